from html.parser import HTMLParser

from eval.report.markup import html_page


class Texts(HTMLParser):
    """Tag -> the texts directly in it; all that the page names as a source."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.found, self.sources = [""], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        self.open.remove(tag)

    def handle_data(self, data):
        self.found.setdefault(self.open[-1], []).append(data)


def test_a_page_is_whole_and_loads_nothing():
    page = html_page("a < b", "<p>{body}</p>")
    texts = Texts(page)
    assert texts.found["title"] == texts.found["h1"] == ["a < b"] and texts.found["p"] == ["{body}"]
    assert texts.sources == [] and "default-src 'none'" in page
