"""The report of a suite: one offline page with all its tables and figures, the main results first. It makes no requests."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable
from html import escape
from pathlib import Path

from docutils.core import publish_parts

from eval.report.collect import ReportError
from eval.report.kinds import find_kind
from sfpo.settings import ReportSettings

CAPTIONS = Path(__file__).with_name("captions")
"""Captions in reStructuredText; the bold text at the start is used as a short caption."""
FIRST = ("scores", "curves", "regime", "sensitivity", "trajectory", "arms", "targets")
"""Kinds that come first, in this order; the other items follow in the suite's order."""


def report_page(items: Iterable[ReportSettings], results: Path, data_mirror: str | None = None) -> str:
    """The page as self-contained HTML, from the files that the items have written below ``results``.

    Args:
        data_mirror: local mirror of the hub's data sets, to be named in the commands that reproduce each item.

    Raises:
        ReportError: a file is missing.
    """
    items = sorted(items, key=lambda item: FIRST.index(item.shows) if item.shows in FIRST else len(FIRST))
    suite, first = items[0].suite, items[0]
    arms = " and ".join(list(first.arms.values())[:2]) if len(first.arms) <= 2 else f"{len(first.arms)} methods"
    seeds = "one seed" if len(first.seeds) == 1 else f"{len(first.seeds)} seeds"
    about = f"{arms} on {', '.join(first.models)}, trained on {', '.join(first.datasets)}; {seeds}"
    sections = [_section(item, results, data_mirror) for item in items]
    links = "".join(f'<a href="#{item.item}">{escape(_title(item))}</a>' for item in items)
    beside = "".join(
        f'<a href="{name}.html">{words}</a>'
        for name, words in (("completions", "browse the completions"), ("runs", "all runs: settings, versions, hardware"))
    )
    return PAGE.format(title=escape(suite), about=escape(about), links=links, beside=beside, body="\n".join(sections))


def _title(item: ReportSettings) -> str:
    return f"{item.title or item.shows.capitalize()} ({item.item})"


def _section(item: ReportSettings, results: Path, data_mirror: str | None) -> str:
    mirror = f" data_mirror={shlex.quote(data_mirror)}" if data_mirror else ""
    command = f"snakemake --cores all --config suite={item.suite}{mirror} -- {item.item}"
    parts = []
    for name, (caption, forms) in find_kind(item.shows).files(item).items():
        shown = _picture(results / f"{name}.png") if "png" in forms else _table(results / f"{name}.html")
        says, more = _caption(caption)
        parts.append(
            f"<figure>{shown}<figcaption>{says}<details><summary>how to read it</summary>{more}</details></figcaption></figure>"
        )
    reproduce = f'<p class="command">Reproduce: <code>{escape(command)}</code></p>'
    return f'<section id="{item.item}"><h2>{escape(_title(item))}</h2>{"".join(parts)}{reproduce}</section>'


def _picture(path: Path) -> str:
    data = base64.b64encode(_read(path)).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{data}">'


def _table(path: Path) -> str:
    """The body of a table's page (eval.report.markup.html_page), without its heading."""
    body = re.search(r"<body>(.*)</body>", _read(path).decode(), re.DOTALL)
    if body is None:
        raise ReportError(f"{path}: not an HTML table page; run the workflow again")
    return f'<div class="scroll">{re.sub(r"<h1>.*?</h1>", "", body[1])}</div>'


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; run the workflow again") from None


def _caption(name: str) -> tuple[str, str]:
    """(short caption: the bold text at its start, the whole caption), both as HTML."""
    text = (CAPTIONS / f"{name}.rst").read_text()
    settings = {"file_insertion_enabled": False, "raw_enabled": False}
    whole = publish_parts(text, writer="html5", settings_overrides=settings)["body"]
    first = re.search(r"<strong>(.*?)</strong>", whole, re.DOTALL)
    return (first[1] if first else escape(name)), whole


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Report of suite {title}</title>
<style>
* {{ box-sizing: border-box }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem }}
body {{ color: #1c1e21; background: #fff }}
h1 {{ margin: 0 }}
nav {{ display: flex; flex-wrap: wrap; gap: .3rem 1rem; font-size: .9rem; margin: .5rem 0 }}
section {{ border-top: 1px solid #c8ccd1; margin-top: 1.5rem; padding-top: .5rem }}
figure {{ margin: 1rem 0 }}
figcaption {{ color: #444; font-size: .92rem; max-width: 55rem }}
img {{ max-width: 100%; height: auto; display: block }}
.scroll {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e3e5e8 }}
th:first-child, td:first-child {{ text-align: left }}
code {{ overflow-wrap: anywhere }}
.command {{ color: #555; font-size: .85rem }}
</style>
</head>
<body>
<h1>Suite {title}</h1>
<p>{about}</p>
<nav>{links}</nav>
<nav>{beside}</nav>
{body}
</body>
</html>
"""
