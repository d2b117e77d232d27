"""Validation accuracy at equal cost: where each run stood when it had spent the same as every other."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval.report.panels import GROUP, rows_of
from eval.report.statistics import over_seeds_interval
from sfpo.settings import ReportSettings

COSTS = ["rollouts", "backward_passes", "seconds"]
QUANTITIES = ["accuracy", "area"]


def largest_common(validation: pd.DataFrame) -> pd.DataFrame:
    """[(model, dataset), cost]: the most of each cost that every run has spent.

    Args:
        validation: model, dataset, arm, seed, rollouts, backward_passes (whole batches), seconds (of training, without
            validation and saving); one row a validation.
    """
    return validation.groupby([*GROUP, "arm", "seed"], sort=False)[COSTS].max().groupby(GROUP, sort=False).min()


def at_budget(run: pd.DataFrame, cost: str, budget: float) -> dict[str, float]:
    """The last validation at or before ``budget``; nothing is interpolated, so nothing later is used.

    Args:
        run: step, accuracy (share) and ``cost`` of one run's validations; the first, before training, has cost 0.
        budget: above 0, in the units of ``cost``.

    Returns:
        step and accuracy of that validation; and ``area``: the mean of accuracy over the budget, each validation holding until
        the next. It uses every validation, and is less noisy than one.
    """
    seen = run[run[cost] <= budget].sort_values("step")
    holds = np.diff(np.append(seen[cost].to_numpy(float), budget))
    last = seen.iloc[-1]
    return {"step": last["step"], "accuracy": last["accuracy"], "area": float(seen["accuracy"].to_numpy() @ holds / budget)}


def at_equal_budgets(validation: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """Each arm at the largest budget that every run reached, by each cost, and its gain over the first arm, seed by seed.

    Args:
        validation: as for ``largest_common``, with step and accuracy (share).

    Returns:
        model, dataset, arm, measure (the cost), budget, step (mean over seeds of the validation that counts), n_seeds; and, in
        percent, accuracy and area (see ``at_budget``), each with _low and _high (95% interval over seeds), and
        <quantity>_gain over the first arm with _low and _high (paired by seed). Ends are missing where seeds show no spread.
    """
    budgets = largest_common(validation)
    first = next(iter(settings.arms))
    rows = []
    for (model, dataset), budget in budgets.iterrows():
        runs = rows_of(validation, model=model, dataset=dataset)
        for cost in COSTS:
            found = {arm: _by_seed(rows_of(runs, arm=arm), settings.seeds, cost, budget[cost]) for arm in settings.arms}
            for arm, seeds in found.items():
                row = {"model": model, "dataset": dataset, "arm": arm, "measure": cost, "budget": budget[cost]}
                row |= {"step": seeds["step"].mean(), "n_seeds": len(seeds)}
                for quantity in QUANTITIES:
                    row |= _with_interval(quantity, seeds[quantity], (0.0, 1.0))
                    row |= _with_interval(f"{quantity}_gain", seeds[quantity] - found[first][quantity], (-1.0, 1.0))
                rows.append(row)
    return pd.DataFrame(rows)


def _by_seed(runs: pd.DataFrame, seeds: list[int], cost: str, budget: float) -> pd.DataFrame:
    return pd.DataFrame([at_budget(rows_of(runs, seed=seed), cost, budget) for seed in seeds], index=seeds)


def _with_interval(name: str, values: pd.Series, bounds: tuple[float, float]) -> dict[str, float]:
    numbers = over_seeds_interval(values.to_numpy(float), bounds)
    return {f"{name}{suffix}": 100 * number for suffix, number in zip(("", "_low", "_high"), numbers, strict=True)}
