"""False positives of the entropy trigger: ``python -m benchmarks.trigger_firing``, in the project's root folder.

Entropies are independent normal numbers with constant mean, so the trigger fires by chance. The z-score does not depend on
their mean and variance. Writes docs/figures/trigger_firing.png and .csv, and prints the table of docs/entropy-trigger.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from eval.report.style import COLORS, LINES, WIDTH, context
from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.seeding import seed_of

FORMS = {"paper": "Paper: |z| at or above τ", "released": "Released code: z at or above τ"}
THRESHOLDS = [1.0, 1.5, 2.0, 3.0]
WINDOW, STEPS, SERIES = 30, 400, 2000
"""Window and steps are the paper's."""


def fired_at(form: str, threshold: float, entropies: np.ndarray) -> int | None:
    """First step (1-based) after the trigger fired, which has no slow-fast stages; None if it does not fire.

    Args:
        entropies: [steps], in nats per token.
    """
    trigger = EntropyTrigger(form=form, window=WINDOW, threshold=threshold)
    for entropy in entropies:
        trigger.observe(float(entropy))
        if trigger.fired:
            break
    return trigger.fired_at


def chance_of_first_test(form: str, threshold: float) -> float:
    """Exact probability that the trigger fires at the first full window.

    For n normal values, z of one among them (population deviation, itself included) gives z sqrt((n - 2) / (n - 1 - z^2)),
    which has Student's t distribution with n - 2 degrees of freedom (Thompson, 1935).
    """
    t = threshold * np.sqrt((WINDOW - 2) / (WINDOW - 1 - threshold**2))
    return float(stats.t.sf(t, WINDOW - 2)) * (2 if form == "paper" else 1)


def simulate(series: int = SERIES) -> pd.DataFrame:
    """Columns form, threshold, series, fired_at (missing if it did not fire); all settings use the same series."""
    noise = [np.random.default_rng(seed_of("trigger_firing", k)).normal(1.0, 0.05, STEPS) for k in range(series)]
    rows = [
        (form, threshold, k, fired_at(form, threshold, entropies))
        for form in FORMS
        for threshold in THRESHOLDS
        for k, entropies in enumerate(noise)
    ]
    return pd.DataFrame(rows, columns=["form", "threshold", "series", "fired_at"]).astype({"fired_at": "Int64"})


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """One row per form and threshold: probability of the first test (percent), quartiles of the step, percent fired by some
    steps."""
    rows = []
    for (form, threshold), group in found.groupby(["form", "threshold"], sort=False):
        steps = group["fired_at"].astype(float).fillna(np.inf)
        shares = {f"by {step}": 100 * (steps <= step).mean() for step in (35, 40, 60, 100, STEPS)}
        # "lower": always a step that occurred, since interpolating between a step and "never" is meaningless
        quartiles = np.quantile(steps, [0.25, 0.5, 0.75], method="lower")
        row = {"form": form, "tau": threshold, "first test": 100 * chance_of_first_test(form, threshold)}
        rows.append({**row, "25%": quartiles[0], "median": quartiles[1], "75%": quartiles[2], **shares})
    return pd.DataFrame(rows)


def counted(found: pd.DataFrame) -> pd.DataFrame:
    """Columns form, threshold, fired_at (empty: never), series (number that fired at this step), and the cumulative
    fraction."""
    counts = found.groupby(["form", "threshold", "fired_at"], sort=False, dropna=False).size().rename("series").reset_index()
    counts = counts.sort_values(["form", "threshold", "fired_at"]).reset_index(drop=True)
    groups = counts.groupby(["form", "threshold"])["series"]
    share = groups.cumsum() / groups.transform("sum")
    return counts.assign(share_fired=share.where(counts["fired_at"].notna()))


def draw(found: pd.DataFrame) -> Figure:
    """Fraction of series in which the trigger has fired, against steps."""
    with context():
        figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (form, title) in zip(panels, FORMS.items(), strict=True):
            _draw_form(axes, found[found["form"] == form])
            axes.set_title(title)
        panels[0].set_ylabel("Series in which it has fired (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(THRESHOLDS) + 1)
        return figure


def _draw_form(axes: Axes, found: pd.DataFrame) -> None:
    steps = np.arange(STEPS + 1)
    for place, (threshold, group) in enumerate(found.groupby("threshold")):
        fired = group["fired_at"].astype(float).fillna(np.inf).to_numpy()
        share = 100 * (fired[:, None] <= steps).mean(axis=0)
        line = [*LINES, "-."][place]
        axes.step(steps, share, where="post", color=COLORS[place], linestyle=line, label=f"τ = {threshold}")
    axes.axvline(WINDOW, color="0.45", linewidth=0.8, label="First full window")
    axes.set_xscale("log")
    axes.set_xlim(28, STEPS)
    axes.set_xticks([30, 50, 100, 200, 400], labels=["30", "50", "100", "200", "400"])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 103)
    axes.set_xlabel("Step (log scale)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trigger_firing", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/figures"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    found = simulate()
    counted(found).to_csv(folder / "trigger_firing.csv", index=False, float_format="%.10g")
    with context():
        draw(found).savefig(folder / "trigger_firing.png", metadata={"Software": None})
    print(summary(found).to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
