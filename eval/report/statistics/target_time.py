"""Cost of reaching an accuracy level, from validation curves of several seeds.

The first noisy validation at or above a level is biased early, the more so the more validations precede it, which biases ratios
of two costs toward 1. So the mean curve over seeds is first made monotone (isotonic regression, pool adjacent violators); the
cost is where it crosses the level, interpolated linearly between validations. The interval is a jackknife over seeds: each
replicate leaves out one seed and recomputes everything, including the level if it is derived from the same runs.

If a curve stays below the level, its cost is unknown (right-censored). Its total cost is not used as a confidence limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from eval.report.statistics.intervals import ALIKE, LEVEL


@dataclass(frozen=True)
class Curves:
    """Validation curves of one arm, one row per seed; the first column is before training, at cost 0."""

    accuracy: np.ndarray
    """[seeds, validations], fractions."""
    costs: dict[str, np.ndarray]
    """Measure of cost -> each run's cumulative cost at each validation, [seeds, validations], increasing."""

    def without(self, seed: int) -> Curves:
        """The curves without row ``seed``."""
        rest = np.arange(len(self.accuracy)) != seed
        return Curves(self.accuracy[rest], {price: cost[rest] for price, cost in self.costs.items()})

    def one(self, seed: int) -> Curves:
        """Only row ``seed``."""
        return Curves(self.accuracy[[seed]], {price: cost[[seed]] for price, cost in self.costs.items()})

    @property
    def seeds(self) -> int:
        return len(self.accuracy)


@dataclass(frozen=True)
class Estimate:
    """A positive number with its 95% interval and p-value against 1, both computed on the log scale; all NaN if unknown."""

    value: float
    low: float
    high: float
    p: float


UNKNOWN = Estimate(np.nan, np.nan, np.nan, np.nan)


def isotonic(curves: Curves) -> np.ndarray:
    """[validations]: the non-decreasing curve closest (least squares) to the mean over seeds."""
    return np.asarray(optimize.isotonic_regression(curves.accuracy.mean(axis=0)).x)


def cost_to(curves: Curves, level: float, price: str) -> float:
    """Cost (mean over seeds) at which the isotonic mean curve crosses ``level``; NaN if it does not.

    Args:
        level: accuracy (fraction). A level at or below the accuracy before training counts as reached at the first validation
            during training, because a cost of 0 would have no logarithm.
        price: measure of cost, a key of ``curves.costs``.
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
    """``first``'s cost of reaching a level divided by ``other``'s, with a jackknife over seeds (paired: both leave out seed i).

    Args:
        first, other: curves of the same seeds.
        level: function from the first arm's curves to the accuracy to reach: a constant, or for example half of its gain.
        price: measure of cost, a key of ``Curves.costs``.

    Returns:
        Above 1 if ``other`` is cheaper. Unknown if either does not reach the level; without interval and p-value if there is
        one seed, if a jackknife replicate does not reach the level, or if all replicates are equal.

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
    """``cost_to`` with a jackknife interval over seeds.

    Args:
        level: as for ``ratio_of_costs``; applied to the curves ``of`` (default: ``curves``).
        price: measure of cost, a key of ``Curves.costs``.
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
    """``Estimate`` from a logarithm and its jackknife replicates (Student's t with seeds - 1 degrees of freedom)."""
    if np.isnan(value):
        return UNKNOWN
    count = len(left_out)
    error = float(np.sqrt((count - 1) * np.var(left_out))) if count else np.nan
    if np.isnan(error) or error < ALIKE:
        return Estimate(float(np.exp(value)), np.nan, np.nan, np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * error
    p = float(2 * stats.t.sf(abs(value) / error, count - 1))
    return Estimate(float(np.exp(value)), float(np.exp(value - half)), float(np.exp(value + half)), p)
