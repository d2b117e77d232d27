"""Validation accuracy at equal cost: each run's accuracy at the point where it has spent the first arm's total budget."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval.report.panels import GROUP, panel_titles, rows_of
from eval.report.statistics.intervals import over_seeds_interval, over_seeds_p_value
from sfpo.settings import ReportSettings

COSTS = ["rollouts", "backward_passes", "seconds"]
QUANTITIES = ["accuracy", "area"]


def unit_seconds(metrics: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """Seconds per rollout and per backward pass over a batch, measured in the first arm's runs.

    Args:
        metrics: model, dataset, arm, seed, step, rollouts, backward_passes, seconds_total, seconds_update (all cumulative).

    Returns:
        Index (model, dataset), columns rollout and backward_pass.
    """
    of_first = rows_of(metrics, arm=next(iter(settings.arms)))
    ends = of_first.sort_values("step").groupby([*GROUP, "seed"]).last().groupby(GROUP).sum(numeric_only=True)
    return pd.DataFrame(
        {
            "rollout": (ends["seconds_total"] - ends["seconds_update"]) / ends["rollouts"],
            "backward_pass": ends["seconds_update"] / ends["backward_passes"],
        }
    )


def with_modelled_seconds(validation: pd.DataFrame, metrics: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """``validation`` with ``seconds`` computed from rollouts and passes, at the first arm's seconds per rollout and per pass.

    Measured seconds would also depend on what else ran on the machine at the time, which differs from run to run.

    Args:
        validation: model, dataset, rollouts, backward_passes.
        metrics: as for ``unit_seconds``.
    """
    of_group = validation[GROUP].join(unit_seconds(metrics, settings), on=GROUP)
    seconds = validation["rollouts"] * of_group["rollout"] + validation["backward_passes"] * of_group["backward_pass"]
    return validation.assign(seconds=seconds)


def at_budget(run: pd.DataFrame, cost: str, budget: float) -> dict[str, float]:
    """A run's step and accuracy at ``budget``, interpolated linearly between validations.

    Args:
        run: one run's validations: step, accuracy (fraction) and ``cost``; the first, before training, has cost 0.
        budget: above 0, in the units of ``cost``. If the run ended before it, its final values are used.

    Returns:
        step and accuracy at the budget; and ``area``, the mean accuracy from 0 to the budget (trapezoidal rule up to the last
        validation at or before the budget, constant from there). It averages all validations, so it is less noisy.
    """
    run = run.sort_values("step")
    costs, accuracy = run[cost].to_numpy(float), run["accuracy"].to_numpy(float)
    seen = costs <= budget
    held = accuracy[seen][-1] * (budget - costs[seen][-1])
    return {
        "step": float(np.interp(budget, costs, run["step"])),
        "accuracy": float(np.interp(budget, costs, accuracy)),
        "area": float((np.trapezoid(accuracy[seen], costs[seen]) + held) / budget),
    }


def at_equal_budgets(validation: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """Each arm's accuracy and gain over the first arm at equal budgets: for each cost, the first arm's total (mean over seeds).

    Args:
        validation: model, dataset, arm, seed, step, accuracy (fraction), rollouts, backward_passes (whole batches), seconds;
            one row per validation.

    Returns:
        model, dataset, arm, measure (the cost), budget, step (mean over seeds), n_seeds; and, in percent, accuracy and area
        (see ``at_budget``), each with _low and _high (95% interval over seeds), and <quantity>_gain over the first arm with
        _low, _high and _p (paired by seed). The interval and p are missing with one seed, or if all seeds are equal.
    """
    first = next(iter(settings.arms))
    rows = []
    for model, dataset in panel_titles(settings):
        runs = rows_of(validation, model=model, dataset=dataset)
        budget = rows_of(runs, arm=first).groupby("seed")[COSTS].max().mean()
        for cost in COSTS:
            found = {arm: _by_seed(rows_of(runs, arm=arm), settings.seeds, cost, budget[cost]) for arm in settings.arms}
            for arm, seeds in found.items():
                row = {"model": model, "dataset": dataset, "arm": arm, "measure": cost, "budget": budget[cost]}
                row |= {"step": seeds["step"].mean(), "n_seeds": len(seeds)}
                for quantity in QUANTITIES:
                    gain = seeds[quantity] - found[first][quantity]
                    row |= _with_interval(quantity, seeds[quantity], (0.0, 1.0))
                    row |= _with_interval(f"{quantity}_gain", gain, (-1.0, 1.0))
                    row |= {f"{quantity}_gain_p": over_seeds_p_value(gain.to_numpy(float))}
                rows.append(row)
    return pd.DataFrame(rows)


def _by_seed(runs: pd.DataFrame, seeds: list[int], cost: str, budget: float) -> pd.DataFrame:
    return pd.DataFrame([at_budget(rows_of(runs, seed=seed), cost, budget) for seed in seeds], index=seeds)


def _with_interval(name: str, values: pd.Series, bounds: tuple[float, float]) -> dict[str, float]:
    numbers = over_seeds_interval(values.to_numpy(float), bounds)
    return {f"{name}{suffix}": 100 * number for suffix, number in zip(("", "_low", "_high"), numbers, strict=True)}
