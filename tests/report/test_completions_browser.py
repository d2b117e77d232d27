"""The page of completions in a real headless Chromium: it loads fast, loads nothing, and its controls work."""

import json
import shutil
import time

import pytest

from eval.report.completions_page import completions_page
from sfpo.settings import ReportSettings, RunId

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; make test-browser installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = "<img src='http://attack.invalid/x.png' onerror='document.title=\"owned\"'><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """2 runs x 125 steps x 5 prompts x 8 completions = 10,000."""
    root = tmp_path_factory.mktemp("page")
    arms = {"grpo": "GRPO", "sfpo": "SFPO"}
    for arm in arms:
        folder = root / "runs" / RunId(suite="s", model="m", dataset="d", arm=arm, seed=0).path
        folder.mkdir(parents=True)
        with (folder / "completions.jsonl").open("w") as file:
            for step in range(1, 126):
                for prompt in range(5):
                    rows = [
                        {
                            "text": f"{arm} sample {sample} of step {step}. {ATTACK} " + "so the answer is near " * 20,
                            "reward": float(sample % 3 == 0),
                            "correct": sample % 3 == 0,
                            "advantage": 0.5,
                            "tokens": 40,
                            "truncated": sample == 7,
                        }
                        for sample in range(8)
                    ]
                    line = {"step": step, "prompt": f"sums/{prompt}", "problem": f"{prompt}+1=?", "answer": [str(prompt + 1)]}
                    file.write(json.dumps(line | {"completions": rows}) + "\n")
    item = ReportSettings(
        suite="s",
        item="figure2",
        shows="curves",
        scored=False,
        title=None,
        models=["m"],
        datasets=["d"],
        arms=arms,
        seeds=[0],
        benchmarks={"sums": "Sums"},
        out_of_distribution=[],
        samples={"sums": 1},
        checkpoint="best",
        base={},
        made_from={},
    )
    path = root / "completions.html"
    path.write_text(completions_page([item], root))
    return path


@pytest.fixture
def page(browser, page_file):
    tab = browser.new_page()
    tab.requests = []
    tab.on("request", lambda request: tab.requests.append(request.url))
    started = time.perf_counter()
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("article")
    tab.seconds = time.perf_counter() - started
    yield tab
    tab.close()


def test_ten_thousand_completions_load_in_two_seconds_and_nothing_else_is_loaded(page, page_file):
    assert page.seconds < 2
    assert page.requests == [page_file.as_uri()]
    assert page.title() == "Completions of suite s"  # no text has become markup
    assert page.locator("article").count() == 8 and page.locator("main img").count() == 0


def test_two_arms_side_by_side_on_one_prompt_sorted_by_reward(page):
    page.select_option("#two", "SFPO, seed 0")
    assert page.locator("#sides h2").all_inner_texts() == ["GRPO, seed 0: 3 of 8 right", "SFPO, seed 0: 3 of 8 right"]
    verdicts = page.locator("#sides section").first.locator(".verdict").all_inner_texts()
    assert verdicts == ["right"] * 3 + ["wrong"] * 5
    page.select_option("#order", "worst")
    assert page.locator("#sides section").first.locator(".verdict").all_inner_texts() == ["wrong"] * 5 + ["right"] * 3


def test_steps_prompts_search_and_links(page, browser):
    page.select_option("#step", "77")
    page.click("#next")
    assert "1+1=?" in page.locator("#problem").inner_text()
    page.fill("#search", "of step 99.")
    assert page.input_value("#step") == "99" and page.locator("mark").count() == 8
    other = browser.new_page()
    other.goto(page.url)  # the address holds what is shown
    other.wait_for_selector("article")
    assert other.input_value("#step") == "99" and other.input_value("#search") == "of step 99."
    page.fill("#search", "no such words anywhere")
    assert page.locator("article").count() == 0 and "Nothing here" in page.locator("#problem").inner_text()


def test_a_phone_shows_it_without_sideways_scrolling(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.select_option("#two", "SFPO, seed 0")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
