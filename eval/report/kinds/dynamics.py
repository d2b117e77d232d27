"""Response length, entropy and reward over training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import FIGURE, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import figures
    from eval.report.output import write_figure

    write_figure(settings.item, figures.dynamics(collected.metrics, settings), folder)


KIND = Kind(files=lambda item: {f"figures/{item.item}": ("dynamics", FIGURE)}, write=write)
