"""All arms at equal rollouts, backward passes and seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import FIGURE, TABLE, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import arms
    from eval.report.budgets import with_modelled_seconds
    from eval.report.output import write_figure, write_table

    validation = with_modelled_seconds(collected.validation, collected.metrics, settings)
    found = (collected.scores, validation, collected.metrics, collected.summaries)
    write_table(settings.item, arms.arms_table(*found, settings), folder)
    write_figure(settings.item, arms.arms_figure(validation, settings), folder)


KIND = Kind(
    files=lambda item: {f"tables/{item.item}": ("arms", TABLE), f"figures/{item.item}": ("arms_figure", FIGURE)},
    write=write,
    scored=True,
)
