"""Accuracy against the learning rate, and each arm at its own best rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import FIGURE, TABLE, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import sensitivity_display
    from eval.report.output import write_figure, write_table

    found = (collected.validation, collected.metrics, settings)
    write_table(settings.item, sensitivity_display.sensitivity_table(*found), folder)
    write_figure(settings.item, sensitivity_display.sensitivity_figure(*found), folder)


KIND = Kind(
    files=lambda item: {f"tables/{item.item}": ("sensitivity", TABLE), f"figures/{item.item}": ("sensitivity_figure", FIGURE)},
    write=write,
    over_rates=True,
)
