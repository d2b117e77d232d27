"""Renders tables as Markdown (aligned for the terminal), LaTeX (booktabs) and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Self

import pandas as pd

DAGGER = "†"
PAGE_ROWS = 30
"""Number of rows of a LaTeX table that fit on one page with its notes; a longer one is split into one table per block."""


@dataclass(frozen=True)
class Table:
    """One table as data, Markdown and LaTeX."""

    frame: pd.DataFrame
    """The numbers, including columns that are not printed."""
    markdown: str
    latex: str


@dataclass(frozen=True)
class Cell:
    """A number with its interval, in percent or points."""

    mean: float
    low: float
    high: float
    signed: bool = False
    """Print the mean with its sign even if positive (for gains)."""
    bold: bool = False

    @classmethod
    def of(cls, row: pd.Series, name: str, signed: bool = False, bold: bool = False) -> Self:
        """From the columns <name>, <name>_low and <name>_high of a row."""
        return cls(row[name], row[f"{name}_low"], row[f"{name}_high"], signed, bold)

    @property
    def mean_text(self) -> str:
        return f"{self.mean:+z.1f}" if self.signed else f"{self.mean:z.1f}"

    @property
    def range_text(self) -> str:
        return "[n/a]" if pd.isna(self.low) else f"[{self.low:z.1f}, {self.high:z.1f}]"

    def __str__(self) -> str:
        return f"{self.mean_text} {self.range_text}"


@dataclass(frozen=True)
class Block:
    """The rows of one model and data set: (row title, cells). In LaTeX, a horizontal rule follows the first ``rule_after``
    rows."""

    title: str
    rows: list[tuple[str, list[Cell | str]]]
    rule_after: int


def markdown(caption: str, heads: list[str], blocks: list[Block], notes: list[str], above: Sequence[str] = ()) -> str:
    """One Markdown table per block; column widths are the same in all blocks.

    Args:
        notes: printed as a list below the last block.
        above: warnings, printed as paragraphs before the first block.
    """
    heads = [head.replace("\n", " ") for head in heads]
    bodies = [[[title, *map(_markdown_cell, cells)] for title, cells in block.rows] for block in blocks]
    head = ["", *heads]
    widths = [max(len(line[i]) for line in [head, *(line for body in bodies for line in body)]) for i in range(len(head))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    parts = [f"**{caption}**", *above]
    for block, body in zip(blocks, bodies, strict=True):
        lines = [_padded(line, widths) for line in (head, rule, *body)]
        parts.append(f"{block.title}\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _markdown_cell(cell: Cell | str) -> str:
    return f"**{cell.mean_text}** {cell.range_text}" if isinstance(cell, Cell) and cell.bold else str(cell)


def _padded(line: list[str], widths: list[int]) -> str:
    first, *others = (text.replace("|", "\\|") for text in line)
    return "| " + " | ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(others, widths[1:], strict=True))]) + " |"


def latex(caption: str, heads: list[str], blocks: list[Block], notes: list[str], label: str, above: Sequence[str] = ()) -> str:
    """LaTeX table environments that need only the package booktabs; six benchmarks fit a text width of 5.5 inches.

    Args:
        heads: headings of all columns but the first, which has none; line breaks are kept (in Markdown they become spaces).
        notes: printed below the last table.
        above: warnings, added to the caption.
    """
    pages = [blocks] if sum(len(block.rows) for block in blocks) <= PAGE_ROWS else [[block] for block in blocks]
    parts = []
    for number, page in enumerate(pages):
        title = (
            rf"\caption{{{escaped(' '.join([f'{caption}.', *above]))}}}\label{{tab:{label}}}"
            if number == 0
            else rf"Table~\ref{{tab:{label}}}, continued\par\medskip"
        )
        below = notes if number == len(pages) - 1 else []
        parts.append(_latex_page(title, heads, page, below))
    return "\n".join(parts)


def _latex_page(title: str, heads: list[str], blocks: list[Block], notes: list[str]) -> str:
    lines = [
        r"\begin{table}[t]",
        rf"\centering\footnotesize\setlength{{\tabcolsep}}{{{2 if len(heads) < 8 else 1}pt}}",
        title,
        r"\begin{tabular}{l" + "c" * len(heads) + "}",
        r"\toprule",
        " & ".join(["", *map(_latex_head, heads)]) + r" \\",
    ]
    for block in blocks:
        lines += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{\emph{{{escaped(block.title)}}}}} \\[2pt]"]
        for number, (name, cells) in enumerate(block.rows):
            if number == block.rule_after:
                lines.append(rf"\cmidrule(lr){{1-{len(heads) + 1}}}")
            lines.append(" & ".join([rf"\scriptsize {escaped(name)}", *map(_latex_cell, cells)]) + r" \\[2pt]")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\medskip\raggedright\footnotesize"]
    return "\n".join([*lines, *(escaped(note) + r"\par" for note in notes), r"\end{table}"]) + "\n"


def _latex_head(head: str) -> str:
    """A heading; its lines are stacked."""
    lines = [rf"\scriptsize {escaped(line)}" for line in head.split("\n")]
    return lines[0] if len(lines) == 1 else r"\shortstack{" + r"\\".join(lines) + "}"


def _latex_cell(cell: Cell | str) -> str:
    """The mean stacked above its interval, because next to each other they are too wide."""
    if isinstance(cell, str):
        return r"\shortstack{" + r"\\".join(rf"\tiny {escaped(line)}" for line in cell.split(", ")) + "}"
    mean = rf"\mathbf{{{cell.mean_text}}}" if cell.bold else cell.mean_text
    interval = r"[\mathrm{n/a}]" if pd.isna(cell.low) else cell.range_text.replace(", ", r",\,")
    return rf"\shortstack{{${mean}$\\{{\tiny ${interval}$}}}}"


def escaped(text: str) -> str:
    """Plain text with LaTeX's special characters escaped."""
    return _SPECIAL.sub(lambda match: _AS_LATEX[match[0]], text)


_AS_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "†": r"$^\dagger$",
    "×": r"$\times$",
    " - ": " $-$ ",
}
_SPECIAL = re.compile("|".join(map(re.escape, _AS_LATEX)))


def html(text: str) -> str:
    """Convert the output of ``markdown`` to HTML (tables, lists, paragraphs, bold)."""
    return "\n".join(_html_block(part) for part in text.strip().split("\n\n"))


def _html_block(part: str) -> str:
    if part.startswith("|"):
        return _html_table(part)
    if part.startswith("- "):
        notes = part.removeprefix("- ").split("\n- ")
        return "<ul>" + "".join(f"<li>{_html_text(note)}</li>" for note in notes) + "</ul>"
    return f"<p>{_html_text(part)}</p>"


def _html_table(text: str) -> str:
    head, _, *rows = ([_html_text(cell.strip()) for cell in _COLUMN_END.split(line)[1:-1]] for line in text.splitlines())
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    return (
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>"
        + "\n".join(f"<tr>{line}</tr>" for line in lines)
        + "</tbody></table>"
    )


_COLUMN_END = re.compile(r"(?<!\\)\|")


def _html_text(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text.replace("\\|", "|")))


def html_page(title: str, body: str) -> str:
    """A complete HTML page without external resources or scripts.

    Args:
        title: plain text, which is escaped here.
        body: HTML in which untrusted text is already escaped.
    """
    return PAGE.format(title=escape(title), body=body)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 sans-serif; margin: 1.5em; color: #111; background: #fff }}
p {{ max-width: 60em; white-space: pre-line }}
table {{ border-collapse: collapse }}
th, td {{ padding: 0.3em 0.6em; text-align: left; vertical-align: top }}
thead, tbody {{ border-bottom: 1px solid #bbb }}
tbody:has(mark) {{ background: #fdf3d0 }}
mark {{ background: #f5c542; font-weight: bold }}
pre {{ font-size: 12px }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
