"""The report's one page: the answer first, each part with its caption and command, nothing loaded from elsewhere."""

import base64
import re

import pytest

from eval.report.collect import ReportError
from eval.report.kinds import find_kind
from eval.report.markup import html, html_page
from eval.report.report_page import report_page
from sfpo.settings import ReportSettings

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def item(name: str, shows: str, title: str | None = None) -> ReportSettings:
    return ReportSettings(
        suite="s",
        item=name,
        shows=shows,
        scored=shows == "scores",
        title=title,
        models=["m"],
        datasets=["d"],
        arms={"grpo": "GRPO", "sfpo": "SFPO"},
        seeds=[0, 1],
        benchmarks={"sums": "Sums"},
        out_of_distribution=[],
        samples={"sums": 2},
        checkpoint="best",
        base={"m": "evaluations/s/m/base"},
        made_from={},
    )


ITEMS = [item("memory", "memory"), item("figure2", "curves"), item("table9", "scores", "Accuracy <after> training")]


@pytest.fixture
def results(tmp_path):
    for one in ITEMS:
        for name, (_, forms) in find_kind(one.shows).files(one).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            if "png" in forms:
                (tmp_path / f"{name}.png").write_bytes(PIXEL)
            else:
                table = "**Accuracy**\n\n| | Sums |\n| :- | -: |\n| GRPO | 40.0 |\n\n- First note.\n- Second note.\n"
                (tmp_path / f"{name}.html").write_text(html_page(name, html(table)))
    return tmp_path


def test_the_table_comes_first_then_the_curve_then_the_rest(results):
    page = report_page(ITEMS, results)
    assert re.findall(r'<section id="(\w+)">', page) == ["table9", "figure2", "memory"]
    assert page.index("40.0") < page.index("<img")
    assert "GRPO and SFPO on m, trained on d; 2 seeds" in page
    assert "<li>First note.</li><li>Second note.</li>" in page


def test_each_part_has_its_words_and_the_command_that_makes_it_again(results):
    page = report_page(ITEMS, results)
    assert page.count("<details>") == page.count("<figure>") >= 3
    assert "Accuracy &lt;after&gt; training (table9)" in page and "<after>" not in page
    for one in ITEMS:
        assert f"snakemake --cores all --config suite=s -- {one.item}</code>" in page


def test_the_command_names_the_data_mirror(results):
    page = report_page(ITEMS, results, "/data/my mirror")
    assert "--config suite=s data_mirror=&#x27;/data/my mirror&#x27; -- figure2</code>" in page


def test_it_loads_nothing(results):
    page = report_page(ITEMS, results)
    assert not re.search(r"""(src|href)=["']?https?:""", page) and "<script" not in page
    assert f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}" in page


def test_a_missing_file_is_named(results):
    (results / "figures/figure2.png").unlink()
    with pytest.raises(ReportError, match=r"figures/figure2\.png: no such file"):
        report_page(ITEMS, results)
