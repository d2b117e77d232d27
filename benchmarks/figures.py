"""Statistics of turns: medians with ranges, and ratios of consecutive turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.sides import Measured


@dataclass(frozen=True)
class Spread:
    """Median and range of a quantity."""

    median: float
    min: float
    max: float
    repetitions: int


Result = dict[str, Any]
"""Result of a benchmark: "figures" (key -> Spread) and "sides" (the measurements of each)."""


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values), len(values))


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Spread of the ratios of the k-th turns, in which a drift of the machine cancels."""
    return spread([one / other for one, other in zip(numerators, denominators, strict=True)])


def result(figures: dict[str, Spread], sides: dict[str, Measured]) -> Result:
    return {
        "figures": {key: asdict(value) for key, value in figures.items()},
        "sides": {name: asdict(side) for name, side in sides.items()},
    }
