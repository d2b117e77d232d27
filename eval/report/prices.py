"""The relative cost of rollouts (rho, sfpo/plan/price.py) measured in each run."""

from __future__ import annotations

import pandas as pd

from eval.report.panels import GROUP
from sfpo.plan.price import PER_STEP, rho_of


def own_prices(metrics: pd.DataFrame) -> pd.DataFrame:
    """rho of every run, without its first step (which includes the engine's start).

    Args:
        metrics: model, dataset, arm, seed, step, backward_passes, seconds_<phase> (cumulative).

    Returns:
        model, dataset, arm, seed, rho, passes (backward passes over the batch per step).
    """
    return pd.DataFrame(
        [
            {**dict(zip([*GROUP, "arm", "seed"], keys, strict=True)), **_price_of(run.sort_values("step"))}
            for keys, run in metrics.groupby([*GROUP, "arm", "seed"], sort=False)
        ]
    )


def _price_of(run: pd.DataFrame) -> dict[str, float]:
    first, last = (
        {
            "step": line["step"],
            "backward_passes": line["backward_passes"],
            "seconds": {phase: line[f"seconds_{phase}"] for phase in (*PER_STEP, "update")},
        }
        for line in (run.iloc[0], run.iloc[-1])
    )
    return {"rho": rho_of(first, last), "passes": last["backward_passes"] / last["step"]}
