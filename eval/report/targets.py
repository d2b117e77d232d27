"""What each arm spends to reach a target validation accuracy, and how many times as much the first arm does.

Of all seeds together: their mean curve is made monotone, crossed, and compared (eval/report/statistics/target_time.py). An arm
whose mean curve does not get there has no cost, and no ratio: unknown.
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
    """A validation accuracy to reach: one that is given, or one found from the first arm's runs.

    Raises:
        ValueError: ``value`` is not above 0, or a given accuracy is above 1.
    """

    value: float
    of_gain: bool = True
    """True: base + value * (the first arm's best - base), both of its isotonic mean curve. False: the accuracy ``value``
    (share) itself."""

    def __post_init__(self) -> None:
        if not (self.value > 0 and (self.of_gain or self.value <= 1)):
            raise ValueError(f"a target must be above 0, and an accuracy not above 1: {self}")

    def level(self, first: Curves) -> float:
        """The accuracy (share), from the curves of the arm that is compared with."""
        curve = isotonic(first)
        return float(curve[0] + self.value * (curve[-1] - curve[0])) if self.of_gain else self.value

    def name(self, first: str) -> str:
        """In words; ``first`` is the first arm's title."""
        if not self.of_gain:
            return f"{100 * self.value:g}%"
        return f"{first}'s best" if self.value == 1 else f"base + {100 * self.value:g}% of {first}'s gain"


BEST = Target(1.0)
"""The first arm's best accuracy, by its isotonic mean curve. An arm that is as good arrives in about half of all suites."""
TARGETS = (Target(0.5), Target(0.8), BEST)


def curves_of(runs: pd.DataFrame, seeds: list[int]) -> Curves:
    """The curves of one arm, at the steps that all of its seeds were validated at.

    Args:
        runs: seed, step (0 = before training), accuracy (share), and the columns of ``COSTS``.
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
    """Cost of each run up to each target, where its own isotonic curve crosses it: how far seeds lie apart.

    Args:
        validation: model, dataset, arm, seed, step (0 = before training), accuracy (share), rollouts, backward_passes (whole
            batches), seconds (of training).

    Returns:
        One row for each model, dataset, target, arm, seed and measure (rollouts, backward_passes, seconds): cost (in units of
        the measure), reached (False: ``cost`` is all that the run spent).
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
    """Cost of each arm up to each target, and the first arm's cost over it, with 95% intervals over seeds (jackknife).

    Args:
        validation: as for ``spent_to_targets``.

    Returns:
        model, dataset, target, level (percent), measure, arm, n_seeds, n_reached (seeds whose own curve arrives); spent (mean
        of all that runs spent); cost, cost_low, cost_high; ratio, ratio_low, ratio_high, p (of the ratio against 1), p_holm
        (corrected for all ratios of the frame). Missing: cost and ratio where the mean curve does not arrive, the first arm's
        ratio, and ends and p where there is one seed, no spread, or no arrival without some seed.
    """
    first, rows = next(iter(settings.arms)), []
    for (model, dataset), target in product(panel_titles(settings), targets):
        curves = _curves(validation, settings, model, dataset)
        level = target.level(curves[first])
        known = {"model": model, "dataset": dataset, "target": target.name(settings.arms[first]), "level": 100 * level}
        for price, (arm, own) in product(COSTS, curves.items()):
            arrived = sum(not np.isnan(cost_to(own.one(place), level, price)) for place in range(own.seeds))
            ratio = UNKNOWN if arm == first else ratio_of_costs(curves[first], own, target.level, price)
            of_arm = {**known, "measure": price, "arm": arm, "n_seeds": own.seeds, "n_reached": arrived}
            of_arm |= {"spent": float(own.costs[price].max(axis=1).mean())}
            cost = mean_cost(own, target.level, price, of=curves[first])
            rows.append({**of_arm, **_named("cost", cost), **_named("ratio", ratio), "p": ratio.p})
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy()))


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return dict(zip((f"{name}{end}" for end in ENDS), (estimate.value, estimate.low, estimate.high), strict=True))
