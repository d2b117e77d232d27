"""Accuracy with different ways to select the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import TABLE, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import selection
    from eval.report.output import write_table

    write_table(settings.item, selection.selection_table(collected.scores, settings), folder)


KIND = Kind(files=lambda item: {f"tables/{item.item}": ("selection", TABLE)}, write=write, scored=True, all_checkpoints=True)
