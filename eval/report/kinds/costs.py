"""Rollouts, time and backward passes that each arm needs to reach the first arm's best accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import FIGURE, Kind, beside_paper, paper_items
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import figures
    from eval.report.output import write_figure, write_table
    from eval.report.paper_values import beside_ours

    figure, data = figures.costs(collected.validation, settings)
    write_figure(settings.item, (figure, data), folder)
    if settings.item in paper_items():
        means = data[data["series"] == "mean"]
        write_table(f"{settings.item}_beside_paper", beside_ours(settings.item, means, settings.arms), folder)


KIND = Kind(files=lambda item: {f"figures/{item.item}": ("costs", FIGURE), **beside_paper(item.item)}, write=write)
