from html.parser import HTMLParser

from eval.report.markup import Block, Cell, html, html_page, markdown


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


def test_a_table_in_html_has_the_cells_of_the_markdown():
    best = Cell(61.0, 58.25, 63.5, bold=True)
    block = Block("m, trained on d", [("a|b <i>", ["3", best]), ("c", ["never", Cell(1.0, 0.0, 2.0, signed=True)])], 1)
    found = Texts(html(markdown("Accuracy", ["n", "Sums &"], [block], ["One note.", "Another."]))).found
    assert found["th"] == ["n", "Sums &"]  # the first head is empty
    assert found["td"] == ["a|b <i>", "3", " [58.2, 63.5]", "c", "never", "+1.0 [0.0, 2.0]"]
    assert found["b"] == ["Accuracy", "61.0"] and found["p"] == ["m, trained on d"]
    assert found["li"] == ["One note.", "Another."]


def test_a_page_is_whole_and_loads_nothing():
    page = html_page("a < b", "<p>{body}</p>")
    texts = Texts(page)
    assert texts.found["title"] == texts.found["h1"] == ["a < b"] and texts.found["p"] == ["{body}"]
    assert texts.sources == [] and "default-src 'none'" in page
