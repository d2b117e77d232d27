"""Accuracy after training (avg@k and pass@k): one row per model, data set and arm, and the gains between arms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import TABLE, Kind, beside_paper, paper_items
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import tables
    from eval.report.output import write_table
    from eval.report.paper_values import beside_ours

    table = tables.accuracy(collected.scores, settings)
    write_table(settings.item, table, folder)
    write_table(f"{settings.item}_pass_at_k", tables.pass_at_least_once(collected.scores, settings), folder)
    if settings.item in paper_items():
        titles = {**settings.arms, **settings.benchmarks}
        write_table(f"{settings.item}_beside_paper", beside_ours(settings.item, table.frame, titles), folder)


KIND = Kind(
    files=lambda item: {
        f"tables/{item.item}": ("scores", TABLE),
        f"tables/{item.item}_pass_at_k": ("pass_at_k", TABLE),
        **beside_paper(item.item),
    },
    write=write,
    scored=True,
    in_metrics=True,
)
