"""Learning-rate sensitivity: each arm's accuracy at equal budgets over a grid of rates, and at the arm's own best rate.

The maximum of several noisy accuracies is biased upward, the more so the more rates there are. So the best rate is selected on
all seeds but one and scored on the remaining seed, for each seed in turn (leave-one-out cross-validation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from eval.report.panels import GROUP, panel_titles, rows_of
from eval.report.prices import own_prices
from eval.report.statistics.intervals import over_seeds_interval, over_seeds_p_value
from sfpo.config import at_rate
from sfpo.settings import ReportSettings

MEASURES = ("rollouts", "backward_passes", "price")
"""Kinds of equal budget: rollouts (steps), passes over a batch, or total cost at the rho of these runs ('price')."""
LAST = 0.2
"""A run's accuracy is the mean of its validation curve over this last fraction of the budget, since single validations are
noisy."""
ENDS = ("", "_low", "_high")


def mean_before(costs: np.ndarray, accuracy: np.ndarray, budget: float) -> float:
    """Mean of a piecewise linear curve over the last fraction ``LAST`` of ``budget``.

    Args:
        costs: [points], increasing from 0.
        accuracy: [points].
        budget: above 0; a curve that ends before it is extended by its final value.
    """
    start = (1 - LAST) * budget
    inside = costs[(costs > start) & (costs < budget)]
    at = np.concatenate([[start], inside, [budget]])
    return float(np.trapezoid(np.interp(at, costs, accuracy), at) / (budget - start))


def accuracies(validation: pd.DataFrame, metrics: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """Accuracy of every run at every equal budget.

    Args:
        validation: model, dataset, arm (a name of ``at_rate``), seed, step (0 = before training), accuracy (fraction),
            rollouts, backward_passes; diverged (True in the later lines of a run that diverged), if any run did.
        metrics: as for ``own_prices``.

    Returns:
        One row per model, dataset, arm, scale (multiple of the suite's learning rate), seed and measure: budget (the smallest
        total cost of any run; for 'price' in units of one pass), rho (median over runs), accuracy (percent), base (percent:
        mean before training), diverged.
    """
    return pd.DataFrame(_runs(validation, own_prices(metrics), settings))


def _runs(validation: pd.DataFrame, prices: pd.DataFrame, settings: ReportSettings) -> Iterator[dict[str, object]]:
    for model, dataset in panel_titles(settings):
        group = {"model": model, "dataset": dataset}
        runs, rho = rows_of(validation, **group), rows_of(prices, **group)["rho"].median()
        runs = runs.assign(price=rho * runs["step"] + runs["backward_passes"])
        base = 100 * rows_of(runs, step=0)["accuracy"].mean()
        budgets = runs.groupby(["arm", "seed"])[list(MEASURES)].max().min()
        for arm in settings.arms:
            for scale in settings.learning_rate_scales:
                for seed in settings.seeds:
                    run = rows_of(runs, arm=at_rate(arm, scale), seed=seed).sort_values("step")
                    diverged = "diverged" in run and bool(run["diverged"].eq(True).any())
                    for measure in MEASURES:
                        curve = (run[measure].to_numpy(float), run["accuracy"].to_numpy(float))
                        found = {"budget": budgets[measure], "accuracy": 100 * mean_before(*curve, budgets[measure])}
                        of_run = {**group, "arm": arm, "scale": scale, "seed": seed, "measure": measure}
                        yield {**of_run, "rho": rho, "base": base, "diverged": diverged, **found}


def over_scales(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds at each rate, with a 95% interval (Student's t).

    Args:
        found: result of ``accuracies``.

    Returns:
        model, dataset, measure, arm, scale, budget, base, accuracy with _low and _high (percent), below_base (number of seeds
        that ended below the untrained model), diverged (number of seeds), n_seeds.
    """
    rows = []
    for keys, runs in found.groupby([*GROUP, "measure", "arm", "scale"], sort=False):
        known = dict(zip([*GROUP, "measure", "arm", "scale"], keys, strict=True))
        ends = over_seeds_interval(runs["accuracy"].to_numpy(float), (0.0, 100.0))
        of_rate = {f"accuracy{end}": value for end, value in zip(ENDS, ends, strict=True)}
        below = int((runs["accuracy"] < runs["base"]).sum())
        counts = {"below_base": below, "diverged": int(runs["diverged"].sum()), "n_seeds": len(runs)}
        rows.append({**known, **runs.iloc[0][["budget", "base"]].to_dict(), **of_rate, **counts})
    return pd.DataFrame(rows)


def at_own_best(found: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """Each arm at its own best rate, selected by leave-one-out over seeds.

    Args:
        found: result of ``accuracies`` with at least two seeds.

    Returns:
        model, dataset, measure, arm; scales (the selected ones, most frequent first: 'x 1 (4 of 5)'); accuracy, and gain over
        the first arm (paired by seed), each with _low and _high (95%, Student's t over seeds); gain_p.
    """
    first, rows = next(iter(settings.arms)), []
    for keys, of_measure in found.groupby([*GROUP, "measure"], sort=False):
        known = dict(zip([*GROUP, "measure"], keys, strict=True))
        scored = {arm: _left_out(rows_of(of_measure, arm=arm)) for arm in settings.arms}
        for arm, (accuracy, chosen) in scored.items():
            gain = accuracy - scored[first][0]
            times = Counter(chosen).most_common()
            row = {**known, "arm": arm, "scales": ", ".join(f"x {scale:g} ({n} of {len(chosen)})" for scale, n in times)}
            for name, values, bounds in (("accuracy", accuracy, (0.0, 100.0)), ("gain", gain, (-100.0, 100.0))):
                row |= {f"{name}{end}": v for end, v in zip(ENDS, over_seeds_interval(values, bounds), strict=True)}
            rows.append({**row, "gain_p": np.nan if arm == first else over_seeds_p_value(gain)})
    return pd.DataFrame(rows)


def _left_out(runs: pd.DataFrame) -> tuple[np.ndarray, list[float]]:
    """Leave-one-out: ([seeds] accuracy of each seed at the rate that is best on the other seeds, that rate for each seed)."""
    table = runs.pivot(index="seed", columns="scale", values="accuracy")
    chosen = [float(table.drop(index=seed).mean().idxmax()) for seed in table.index]
    return np.array([table.loc[seed, scale] for seed, scale in zip(table.index, chosen, strict=True)]), chosen
