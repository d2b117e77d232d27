"""Cost of each arm to reach a target validation accuracy, and the ratio of the first arm's cost to it.

The cost is where the isotonic mean curve over seeds crosses the target (eval/report/statistics/target_time.py). If the mean
curve stays below the target, cost and ratio are unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from eval.report.budgets import COSTS
from eval.report.panels import panel_titles, rows_of
from eval.report.statistics.comparisons import holm
from eval.report.statistics.target_time import UNKNOWN, Curves, Estimate, cost_to, isotonic, mean_cost, ratio_of_costs
from sfpo.settings import ReportSettings

ENDS = ("", "_low", "_high")


@dataclass(frozen=True)
class Target:
    """A validation accuracy to reach, either fixed or derived from the first arm's runs.

    Raises:
        ValueError: ``value`` is not above 0, or a given accuracy is above 1.
    """

    value: float
    of_gain: bool = True
    """True: the target is base + value * (the first arm's best - base), both from its isotonic mean curve. False: the target is
    the accuracy ``value`` (fraction) itself."""

    def __post_init__(self) -> None:
        if not (self.value > 0 and (self.of_gain or self.value <= 1)):
            raise ValueError(f"a target must be above 0, and an accuracy not above 1: {self}")

    def level(self, first: Curves) -> float:
        """The target accuracy (fraction), given the first arm's curves."""
        curve = isotonic(first)
        return float(curve[0] + self.value * (curve[-1] - curve[0])) if self.of_gain else self.value

    def name(self, first: str) -> str:
        """The target's name in tables and figures; ``first`` is the first arm's title."""
        if not self.of_gain:
            return f"{100 * self.value:g}%"
        return f"{first}'s best" if self.value == 1 else f"base + {100 * self.value:g}% of {first}'s gain"


BEST = Target(1.0)
"""The first arm's best accuracy, from its isotonic mean curve. An equally good arm reaches it in about half of all suites."""
TARGETS = (Target(0.5), Target(0.8), BEST)


def curves_of(runs: pd.DataFrame, seeds: list[int]) -> Curves:
    """The curves of one arm, at the steps at which all of its seeds were validated.

    Args:
        runs: seed, step (0 = before training), accuracy (fraction), and the columns of ``COSTS``.
    """
    table = runs.pivot(index="seed", columns="step", values=["accuracy", *COSTS]).loc[seeds]
    table = table.loc[:, table.columns.isin(_common_steps(table), level="step")]
    return Curves(table["accuracy"].to_numpy(float), {cost: table[cost].to_numpy(float) for cost in COSTS})


def _common_steps(table: pd.DataFrame) -> list[int]:
    accuracy = table["accuracy"]
    return list(accuracy.columns[accuracy.notna().all()])


def _curves(validation: pd.DataFrame, settings: ReportSettings, model: str, dataset: str) -> dict[str, Curves]:
    group = rows_of(validation, model=model, dataset=dataset)
    return {arm: curves_of(rows_of(group, arm=arm), settings.seeds) for arm in settings.arms}


def spent_to_targets(validation: pd.DataFrame, settings: ReportSettings, targets: tuple[Target, ...] = TARGETS) -> pd.DataFrame:
    """Cost of each single run to reach each target (where the run's own isotonic curve crosses it), to show the spread of
    seeds.

    Args:
        validation: model, dataset, arm, seed, step (0 = before training), accuracy (fraction), rollouts, backward_passes (whole
            batches), seconds (of training).

    Returns:
        One row per model, dataset, target, arm, seed and measure (rollouts, backward_passes, seconds): cost (in units of the
        measure), reached (False: the run is right-censored, and ``cost`` is its total).
    """
    first, rows = next(iter(settings.arms)), []
    for (model, dataset), target in product(panel_titles(settings), targets):
        curves = _curves(validation, settings, model, dataset)
        known = {"model": model, "dataset": dataset, "target": target.name(settings.arms[first])}
        level = target.level(curves[first])
        for arm, (place, seed), price in product(settings.arms, enumerate(settings.seeds), COSTS):
            run = curves[arm].one(place)
            cost = cost_to(run, level, price)
            reached = not np.isnan(cost)
            of_run = {**known, "arm": arm, "seed": seed, "reached": reached, "measure": price}
            rows.append({**of_run, "cost": cost if reached else float(run.costs[price].max())})
    return pd.DataFrame(rows)


def costs_to_targets(validation: pd.DataFrame, settings: ReportSettings, targets: tuple[Target, ...] = TARGETS) -> pd.DataFrame:
    """Cost of each arm to reach each target, and the first arm's cost divided by it, with 95% intervals (jackknife over seeds).

    Args:
        validation: as for ``spent_to_targets``.

    Returns:
        model, dataset, target, level (percent), measure, arm, n_seeds, n_reached (seeds whose own curve reaches it); spent
        (mean total cost of the runs); cost, cost_low, cost_high; ratio, ratio_low, ratio_high, p (of the ratio against 1),
        p_holm (corrected for all ratios of the frame). Missing: cost and ratio if the mean curve does not reach the target; the
        first arm's ratio; intervals and p with one seed, without variance over seeds, or if some jackknife replicate does not
        reach it.
    """
    first, rows = next(iter(settings.arms)), []
    for (model, dataset), target in product(panel_titles(settings), targets):
        curves = _curves(validation, settings, model, dataset)
        level = target.level(curves[first])
        known = {"model": model, "dataset": dataset, "target": target.name(settings.arms[first]), "level": 100 * level}
        for price, (arm, own) in product(COSTS, curves.items()):
            n_reached = sum(not np.isnan(cost_to(own.one(place), level, price)) for place in range(own.seeds))
            ratio = UNKNOWN if arm == first else ratio_of_costs(curves[first], own, target.level, price)
            of_arm = {**known, "measure": price, "arm": arm, "n_seeds": own.seeds, "n_reached": n_reached}
            of_arm |= {"spent": float(own.costs[price].max(axis=1).mean())}
            cost = mean_cost(own, target.level, price, of=curves[first])
            rows.append({**of_arm, **_named("cost", cost), **_named("ratio", ratio), "p": ratio.p})
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy()))


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return dict(zip((f"{name}{end}" for end in ENDS), (estimate.value, estimate.low, estimate.high), strict=True))
