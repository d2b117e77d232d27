"""One training step in weight space, over the loss surface of its batch (paper, Figure 1)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import FIGURE, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report.collect import recorded_step
    from eval.report.output import write_figure
    from eval.report.trajectory import trajectory

    steps = {
        (model, dataset): recorded_step(Path(settings.trajectory(model, dataset)))
        for model in settings.models
        for dataset in settings.datasets
    }
    write_figure(settings.item, trajectory(steps, settings), folder)


KIND = Kind(files=lambda item: {f"figures/{item.item}": ("trajectory", FIGURE)}, write=write, records_step=True)
