"""Cost of each arm to reach target accuracies derived from the first arm's gain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import FIGURE, TABLE, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import targets_display
    from eval.report.output import write_figure, write_table

    write_table(settings.item, targets_display.targets_table(collected.validation, settings), folder)
    write_figure(settings.item, targets_display.targets_figure(collected.validation, settings), folder)


KIND = Kind(
    files=lambda item: {f"tables/{item.item}": ("targets", TABLE), f"figures/{item.item}": ("targets_figure", FIGURE)},
    write=write,
)
