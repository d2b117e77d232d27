"""Writes tables and figures to files. Output is deterministic: equal results give identical bytes, images included."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from eval.report.markup import Table, html, html_page
from eval.report.style import context
from sfpo.manifest import write_text

# By default matplotlib would write its version into the png and the current time into the pdf.
UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


def write_table(name: str, table: Table, folder: Path) -> None:
    """Write tables/<name> as csv, md, tex and html (the report pages embed the html)."""
    write_text(folder / f"tables/{name}.csv", _csv(table.frame))
    write_text(folder / f"tables/{name}.md", table.markdown)
    write_text(folder / f"tables/{name}.tex", table.latex)
    write_text(folder / f"tables/{name}.html", html_page(name, html(table.markdown)))


def write_figure(name: str, drawn: tuple[Figure, pd.DataFrame], folder: Path) -> None:
    """Write figures/<name> as png and pdf, and its data as csv."""
    figure, data = drawn
    write_text(folder / f"figures/{name}.csv", _csv(data))
    for kind, metadata in UNDATED.items():
        buffer = io.BytesIO()
        with context():
            figure.savefig(buffer, format=kind, metadata=metadata)
        _write_bytes(folder / f"figures/{name}.{kind}", buffer.getvalue())


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.10g")


def _write_bytes(path: Path, content: bytes) -> None:
    """Write atomically, like sfpo.manifest.write_text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.rename(path)
