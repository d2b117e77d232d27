"""What each run spends to reach a target validation accuracy, and means and ratios of that with intervals over seeds.

Costs are compared as ratios, so means and intervals are those of their logarithms. A run that never gets there is kept: all
that it spent bounds its cost from below, and whatever is made of it is marked as a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.report.budgets import COSTS
from eval.report.panels import GROUP, panel_titles, rows_of
from eval.report.statistics import over_seeds_interval
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
    """True: base + value * (the first arm's best mean accuracy - base). False: the accuracy ``value`` (share) itself."""

    def __post_init__(self) -> None:
        if not (self.value > 0 and (self.of_gain or self.value <= 1)):
            raise ValueError(f"a target must be above 0, and an accuracy not above 1: {self}")

    def level(self, validation: pd.DataFrame, first: str) -> float:
        """The accuracy (share) in the runs of one model and dataset.

        Args:
            validation: arm, step, accuracy (share). The base is the mean at step 0 over all runs.
            first: the arm that is compared with; its best is that of its mean curve over seeds.
        """
        if not self.of_gain:
            return self.value
        base = rows_of(validation, step=0)["accuracy"].mean()
        best = rows_of(validation, arm=first).groupby("step")["accuracy"].mean().max()
        return base + self.value * (best - base)

    def name(self, first: str) -> str:
        """In words; ``first`` is the first arm's title."""
        if not self.of_gain:
            return f"{100 * self.value:g}%"
        return f"{first}'s best" if self.value == 1 else f"base + {100 * self.value:g}% of {first}'s gain"


BEST = Target(1.0)
"""The first arm's best mean accuracy."""
TARGETS = (Target(0.5), Target(0.8), BEST)


def arrival(run: pd.DataFrame, level: float) -> tuple[pd.Series, bool]:
    """The first validation at or above ``level`` once training began, and True; without one the last validation, and False.

    The validation before training does not count: it is of the model that all arms start from, and has no cost.

    Args:
        run: step, accuracy (share) and further columns of one run; at least one row after step 0.
    """
    trained = run[run["step"] > 0].sort_values("step")
    hits = trained[trained["accuracy"] >= level - 1e-9]  # a mean of equal accuracies may round above them
    return (hits.iloc[0], True) if len(hits) else (trained.iloc[-1], False)


def spent_to_targets(validation: pd.DataFrame, settings: ReportSettings, targets: tuple[Target, ...] = TARGETS) -> pd.DataFrame:
    """Cost of each run up to each target.

    Args:
        validation: model, dataset, arm, seed, step (0 = before training), accuracy (share), rollouts, backward_passes (whole
            batches), seconds (of training).

    Returns:
        One row for each model, dataset, target, arm, seed and measure (rollouts, backward_passes, seconds): level (percent),
        cost (in units of the measure), reached (False: ``cost`` is all that the run spent, a lower bound).
    """
    first = next(iter(settings.arms))
    rows = []
    for model, dataset in panel_titles(settings):
        group = rows_of(validation, model=model, dataset=dataset)
        for target in targets:
            level, name = target.level(group, first), target.name(settings.arms[first])
            known = {"model": model, "dataset": dataset, "target": name, "level": 100 * level}
            for arm in settings.arms:
                for seed in settings.seeds:
                    row, reached = arrival(rows_of(group, arm=arm, seed=seed), level)
                    of_run = {**known, "arm": arm, "seed": seed, "reached": reached}
                    rows += [{**of_run, "measure": cost, "cost": float(row[cost])} for cost in COSTS]
    return pd.DataFrame(rows)


def costs_to_targets(spent: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """Mean cost of each arm up to each target, and the first arm's cost over it, with 95% intervals over seeds.

    Means are geometric, intervals Student's t on logarithms; ratios are paired by seed. Where a run never arrived, a mean is
    a bound, and has no interval: nothing says how far beyond it lies.

    Args:
        spent: of ``spent_to_targets``.

    Returns:
        model, dataset, target, level (percent), measure, arm, n_seeds, n_reached; cost, cost_low, cost_high, cost_bound (exact,
        at least); ratio, ratio_low, ratio_high, ratio_bound (exact, at least, at most, unknown: no ratio; the first arm has
        none). Ends are missing where there is a bound, one seed, or no spread between seeds.
    """
    first = next(iter(settings.arms))
    rows = []
    for keys, group in spent.groupby([*GROUP, "target", "level", "measure"], sort=False):
        known = dict(zip([*GROUP, "target", "level", "measure"], keys, strict=True))
        of_arm = {arm: rows_of(group, arm=arm).set_index("seed") for arm in settings.arms}
        for arm, runs in of_arm.items():
            row = {**known, "arm": arm, "n_seeds": len(runs), "n_reached": int(runs["reached"].sum())}
            row |= _with_interval("cost", runs["cost"], "exact" if runs["reached"].all() else "at least")
            if arm != first:
                bound = _ratio_bound(of_arm[first]["reached"].all(), runs["reached"].all())
                row |= _with_interval("ratio", of_arm[first]["cost"] / runs["cost"], bound)
            rows.append(row)
    columns = [f"{name}{end}" for name in ("cost", "ratio") for end in (*ENDS, "_bound")]
    return pd.DataFrame(rows, columns=[*GROUP, "target", "level", "measure", "arm", "n_seeds", "n_reached", *columns])


def _ratio_bound(first_arrived: bool, arrived: bool) -> str:
    """What is known of first / own where all of their runs arrived, or some cost is known from below alone."""
    if first_arrived:
        return "exact" if arrived else "at most"
    return "at least" if arrived else "unknown"


def _with_interval(name: str, values: pd.Series, bound: str) -> dict[str, float | str]:
    mean, low, high = np.exp(over_seeds_interval(np.log(values.to_numpy(float)), (-np.inf, np.inf)))
    if bound != "exact":
        mean, low, high = np.nan if bound == "unknown" else mean, np.nan, np.nan
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_bound": bound}
