"""At which relative cost of rollouts (rho) each arm pays off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import FIGURE, TABLE, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import regime
    from eval.report.output import write_figure, write_table

    found = (collected.validation, collected.metrics, settings)
    write_table(settings.item, regime.regime_table(*found), folder)
    write_figure(settings.item, regime.regime_figure(*found), folder)


KIND = Kind(
    files=lambda item: {f"tables/{item.item}": ("regime", TABLE), f"figures/{item.item}": ("regime_figure", FIGURE)},
    write=write,
)
