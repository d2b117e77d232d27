"""The interface of a kind of table or figure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected

TABLE, FIGURE = ("csv", "md", "tex", "html"), ("png", "pdf", "csv")
"""File formats of a table and of a figure (written by eval.report.output)."""
PAPER_VALUES = Path(__file__).parents[1] / "paper_values.yaml"

Files = dict[str, tuple[str, tuple[str, ...]]]
"""Path below results/<suite> without extension -> (caption: a file of eval/report/captions/ without .rst, file formats)."""


@dataclass(frozen=True)
class Kind:
    """A kind of table or figure."""

    files: Callable[[ReportSettings], Files]
    """The files that an item of this kind writes."""
    write: Callable[[Collected, ReportSettings, Path], None]
    """Writes these files below a folder."""
    scored: bool = False
    """Needs the evaluations on the benchmarks, not only the training runs."""
    all_checkpoints: bool = False
    """Shows every checkpoint that ``train.export_every`` keeps, not only the selected one."""
    in_metrics: bool = False
    """Its accuracies go into metrics.json and the suite's headline."""
    records_step: bool = False
    """Shows one recorded step of its arms (eval.record_step), starting from the last checkpoint of the second arm's first seed
    (or the first arm's, if it is the only one). If the item lists no arms, it has the suite's first two."""
    over_rates: bool = False
    """Can show its arms at several learning rates."""
    reads_texts: bool = False
    """Also reads the prepared data sets and benchmarks."""


@functools.cache
def paper_items() -> frozenset[str]:
    """Items for which paper_values.yaml has values."""
    return frozenset(row["item"] for row in yaml.safe_load(PAPER_VALUES.read_text())["rows"])


def beside_paper(item: str) -> Files:
    """The table that compares our values with the paper's; empty if the paper has none for this item."""
    return {f"tables/{item}_beside_paper": ("beside_paper", TABLE)} if item in paper_items() else {}
