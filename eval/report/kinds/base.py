"""What a kind of table or figure has to say for itself."""

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
"""The forms of a table and of a figure (eval.report.output)."""
PAPER_VALUES = Path(__file__).parents[1] / "paper_values.yaml"

Files = dict[str, tuple[str, tuple[str, ...]]]
"""File below results/<suite>, without its ending -> its caption (eval/report/captions/<caption>.rst), and its forms."""


@dataclass(frozen=True)
class Kind:
    """A kind of table or figure."""

    files: Callable[[ReportSettings], Files]
    """What an item of this kind writes."""
    write: Callable[[Collected, ReportSettings, Path], None]
    """Writes these files below a folder."""
    scored: bool = False
    """It shows what lm-eval finds, not training alone."""
    all_checkpoints: bool = False
    """It shows every checkpoint that ``train.export_every`` keeps, not the chosen one alone."""
    in_metrics: bool = False
    """Its accuracies are what metrics.json and the headline of a suite say."""
    records_step: bool = False
    """It shows one recorded step of its arms (eval.record_step), which starts from the last checkpoint of the first seed of the
    second arm, or of the only one. An item without arms of its own has the suite's first two."""
    over_rates: bool = False
    """It can show its arms at several learning rates."""
    reads_texts: bool = False
    """It reads the prepared data sets and benchmarks too."""


@functools.cache
def paper_items() -> frozenset[str]:
    """Tables and figures of which the paper's values are known."""
    return frozenset(row["item"] for row in yaml.safe_load(PAPER_VALUES.read_text())["rows"])


def beside_paper(item: str) -> Files:
    """The table of our values beside the paper's, for an item of which it has values."""
    return {f"tables/{item}_beside_paper": ("beside_paper", TABLE)} if item in paper_items() else {}
