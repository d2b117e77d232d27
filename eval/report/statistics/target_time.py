"""What it costs to reach an accuracy, from validation curves of several seeds.

The first noisy validation at or above a level comes too early, the more so the more validations there are before it, which
pulls every ratio of two costs toward 1. So the mean curve over seeds is made monotone first (isotonic regression, pool adjacent
violators), and crossed between validations (linear). What the seeds leave open is the jackknife's: everything, the level
included where it comes from the same runs, is computed again without each seed in turn.

A curve that stays below the level has no cost. Nothing is said of it but that: its last cost is no confidence limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from eval.report.statistics.intervals import ALIKE, LEVEL


@dataclass(frozen=True)
class Curves:
    """Validation curves of one arm, a row a seed; the first column is before training, at cost 0."""

    accuracy: np.ndarray
    """[seeds, validations], shares."""
    costs: dict[str, np.ndarray]
    """Price -> what each run had spent at each validation, [seeds, validations], rising."""

    def without(self, seed: int) -> Curves:
        """All rows but this one."""
        rest = np.arange(len(self.accuracy)) != seed
        return Curves(self.accuracy[rest], {price: cost[rest] for price, cost in self.costs.items()})

    def one(self, seed: int) -> Curves:
        """This row alone."""
        return Curves(self.accuracy[[seed]], {price: cost[[seed]] for price, cost in self.costs.items()})

    @property
    def seeds(self) -> int:
        return len(self.accuracy)


@dataclass(frozen=True)
class Estimate:
    """A positive number with its 95% interval and p-value against 1, on the scale of logarithms; all missing where unknown."""

    value: float
    low: float
    high: float
    p: float


UNKNOWN = Estimate(np.nan, np.nan, np.nan, np.nan)


def isotonic(curves: Curves) -> np.ndarray:
    """[validations]: the non-decreasing curve nearest to the mean over seeds."""
    return np.asarray(optimize.isotonic_regression(curves.accuracy.mean(axis=0)).x)


def cost_to(curves: Curves, level: float, price: str) -> float:
    """Mean cost over seeds at which the isotonic mean curve crosses ``level``; NaN where it does not.

    Args:
        level: accuracy (share). A level at or below the accuracy before training is reached at the first validation after it:
            the model that all arms start from has no cost.
    """
    curve, cost = isotonic(curves), curves.costs[price].mean(axis=0)
    above = np.flatnonzero(curve >= level - ALIKE)
    if not len(above):
        return np.nan
    after = max(int(above[0]), 1)
    rise = curve[after] - curve[after - 1]
    part = np.clip((level - curve[after - 1]) / rise, 0, 1) if rise > ALIKE and after == above[0] else 1.0
    return float(cost[after - 1] + part * (cost[after] - cost[after - 1]))


def ratio_of_costs(first: Curves, other: Curves, level: Callable[[Curves], float], price: str) -> Estimate:
    """``first``'s cost to a level over ``other``'s, with the jackknife over seeds (both arms' seed i is left out at once).

    Args:
        first, other: curves of the same seeds.
        level: the accuracy to reach, from the first arm's curves. A constant, or for instance half of its gain.

    Returns:
        Above 1: ``other`` is cheaper. Unknown where one of the two does not arrive; without an interval where there is one
        seed, or one of the two does not arrive without some seed, or all agree.

    Raises:
        ValueError: the two have different numbers of seeds.
    """
    if first.seeds != other.seeds:
        raise ValueError(f"curves of {first.seeds} and {other.seeds} seeds cannot be paired")

    def log_ratio(one: Curves, two: Curves) -> float:
        to = level(one)
        return float(np.log(cost_to(one, to, price)) - np.log(cost_to(two, to, price)))

    return _estimate(
        log_ratio(first, other), [log_ratio(first.without(i), other.without(i)) for i in range(first.seeds) if first.seeds > 1]
    )


def mean_cost(curves: Curves, level: Callable[[Curves], float], price: str, of: Curves | None = None) -> Estimate:
    """``cost_to`` with the jackknife's interval over seeds.

    Args:
        level: as for ``ratio_of_costs``; of the curves ``of``, or of ``curves`` themselves.
    """
    source = of or curves
    value = np.log(cost_to(curves, level(source), price))
    left_out = [
        float(np.log(cost_to(curves.without(i), level(source.without(i)), price)))
        for i in range(curves.seeds)
        if curves.seeds > 1
    ]
    return _estimate(float(value), left_out)


def _estimate(value: float, left_out: list[float]) -> Estimate:
    """A logarithm, and what it is without each seed, as an ``Estimate`` (Student's t with seeds - 1 degrees of freedom)."""
    if np.isnan(value):
        return UNKNOWN
    count = len(left_out)
    error = float(np.sqrt((count - 1) * np.var(left_out))) if count else np.nan
    if np.isnan(error) or error < ALIKE:
        return Estimate(float(np.exp(value)), np.nan, np.nan, np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * error
    p = float(2 * stats.t.sf(abs(value) / error, count - 1))
    return Estimate(float(np.exp(value)), float(np.exp(value - half)), float(np.exp(value + half)), p)
