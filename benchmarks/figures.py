"""From turns to figures: medians with their range, and ratios of turns that stood next to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.sides import Measured


@dataclass(frozen=True)
class Spread:
    """A figure."""

    median: float
    min: float
    max: float
    repetitions: int


Result = dict[str, Any]
"""What a benchmark writes: "figures" (key -> Spread) and "sides" (what was measured of each)."""


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values), len(values))


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Of the ratios of the k-th turns: a drift of the machine cancels."""
    return spread([one / other for one, other in zip(numerators, denominators, strict=True)])


def result(figures: dict[str, Spread], sides: dict[str, Measured]) -> Result:
    return {
        "figures": {key: asdict(value) for key, value in figures.items()},
        "sides": {name: asdict(side) for name, side in sides.items()},
    }
