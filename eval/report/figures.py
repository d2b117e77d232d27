"""The figures of curves, training dynamics, costs and memory. Each returns a Figure and the table of the data it shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from eval.report.collect import BASE
from eval.report.panels import (
    GROUP,
    ONE_SEED,
    SEED_MARKS,
    arm_handles,
    draw_curve,
    emphasised,
    grid,
    label_steps,
    legend_above,
    over_seeds,
    panel_titles,
    ratio_label,
    rows_of,
    seeds_text,
    smoothed,
    time_unit,
)
from eval.report.style import BASE_COLOR, Look, looks, styled
from eval.report.targets import BEST, costs_to_targets, spent_to_targets
from sfpo.settings import ReportSettings

DYNAMICS = {"response_length": "Response length (tokens)", "entropy": "Entropy (nats per token)", "reward": "Mean reward"}
COSTS = {"rollouts": "Rollouts", "seconds": "Training time ({unit})", "backward_passes": "Backward passes"}


@styled
def curves(validation: pd.DataFrame, summaries: pd.DataFrame, settings: ReportSettings) -> tuple[Figure, pd.DataFrame]:
    """Validation accuracy over training, one panel per model and data set.

    Args:
        validation: model, dataset, arm, seed, step, accuracy (fraction).
        summaries: model, dataset, arm, seed, trigger_fired_at (step, or missing).

    Returns:
        The figure, and its data in percent: series 'accuracy' (mean, low, high over seeds at each step), 'base' (mean at step 0
        over all runs) and 'trigger' (the first step after each seed's entropy trigger fired).
    """
    look = looks(settings.arms)
    percent = validation.assign(accuracy=100 * validation["accuracy"])
    accuracy = over_seeds(percent, [*GROUP, "arm", "step"], "accuracy").assign(series="accuracy")
    base = over_seeds(rows_of(percent, step=0), GROUP, "accuracy").assign(series="base", arm=BASE, step=0)
    fired = summaries.dropna(subset=["trigger_fired_at"])
    trigger = fired[[*GROUP, "arm", "seed"]].assign(series="trigger", step=fired["trigger_fired_at"].astype(int))
    titles, front = panel_titles(settings), emphasised(settings)
    columns = _columns(len(titles))
    figure, panels = grid(len(titles), columns, height=2.1 if len(front) == len(look) else 2.8)
    for axes, ((model, dataset), title) in zip(panels, titles.items(), strict=True):
        group = {"model": model, "dataset": dataset}
        for arm in settings.arms:
            draw_curve(axes, rows_of(accuracy, **group, arm=arm), look[arm], in_front=arm in front)
        for level in rows_of(base, **group)["mean"]:
            axes.axhline(level, color=BASE_COLOR, linestyle=(0, (4, 2)), linewidth=1)
        _trigger_ticks(axes, rows_of(trigger, **group), look)
        axes.set_title(title)
    for axes in panels[::columns]:
        axes.set_ylabel("Validation accuracy (%)")
    label_steps(panels, columns)
    handles = [*arm_handles(look), Line2D([], [], color=BASE_COLOR, linestyle=(0, (4, 2)), linewidth=1, label="Base")]
    if len(trigger):
        handles.append(Line2D([], [], color="0.3", marker="|", linestyle="", markersize=6, label="Entropy trigger (one seed)"))
    legend_above(figure, handles, seeds_text(settings))
    return figure, pd.concat([frame for frame in (accuracy, base, trigger) if len(frame)], ignore_index=True)


def _columns(panels: int) -> int:
    """Number of panels per row, chosen so that the last row is full if possible."""
    return panels if panels <= 3 else 2 if panels == 4 else 3


def _trigger_ticks(axes: Axes, trigger: pd.DataFrame, look: dict[str, Look]) -> None:
    """Ticks below the curves at the steps where the trigger had fired: one tick per seed, one height per arm."""
    arms = [arm for arm in look if arm in set(trigger["arm"])]
    low, high = axes.get_ylim()
    line = min(0.055, 0.3 / max(len(arms), 1))
    strip = (line + 0.005) * len(arms)
    axes.set_ylim(low - strip * (high - low) / (1 - strip), high)
    for i, arm in enumerate(arms):
        steps = rows_of(trigger, arm=arm)["step"]
        heights = np.full(len(steps), 0.04 + line * i)
        transform, size = axes.get_xaxis_transform(), 110 * line
        axes.plot(steps, heights, transform=transform, color=look[arm].color, marker="|", linestyle="", markersize=size)


@styled
def dynamics(metrics: pd.DataFrame, settings: ReportSettings) -> tuple[Figure, pd.DataFrame]:
    """Training dynamics: response length, entropy and reward at each step, one row of panels per model and data set.

    Each seed's curve is a centred moving average over a twentieth of the steps, because single steps are noisy.

    Args:
        metrics: model, dataset, arm, seed, step, response_length (tokens), entropy (nats per token), reward.

    Returns:
        The figure, and its data: one row per model, dataset, arm, measure and step (mean, low, high over seeds).
    """
    look = looks(settings.arms)
    window = max(1, metrics["step"].nunique() // 20)
    long = metrics.melt([*GROUP, "arm", "seed", "step"], list(DYNAMICS), var_name="measure")
    averages = over_seeds(
        smoothed(long, [*GROUP, "arm", "seed", "measure"], window), [*GROUP, "arm", "measure", "step"], "value"
    )
    titles, front = panel_titles(settings), emphasised(settings)
    figure, panels = grid(3 * len(titles), columns=3)
    for i, ((model, dataset), title) in enumerate(titles.items()):
        row = panels[3 * i : 3 * i + 3]
        row[0].set_ylabel(title)
        for axes, measure in zip(row, DYNAMICS, strict=True):
            for arm in settings.arms:
                curve = rows_of(averages, model=model, dataset=dataset, arm=arm, measure=measure)
                draw_curve(axes, curve, look[arm], in_front=arm in front)
    for axes, title in zip(panels, DYNAMICS.values(), strict=False):
        axes.set_title(title)
    label_steps(panels, columns=3)
    legend_above(
        figure, arm_handles(look), seeds_text(settings) + (f"; moving average over {window} steps" if window > 1 else "")
    )
    return figure, averages


@styled
def costs(validation: pd.DataFrame, settings: ReportSettings) -> tuple[Figure, pd.DataFrame]:
    """Cost of reaching the first arm's best validation accuracy: rollouts, training time and backward passes of each arm.

    Args:
        validation: as for ``targets.spent_to_targets``.

    Returns:
        The figure, and its data, for this single target: series 'mean' (the rows of ``targets.costs_to_targets``) and 'seed'
        (those of ``targets.spent_to_targets``).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    spent = spent_to_targets(validation, settings, (BEST,))
    means = costs_to_targets(validation, settings, (BEST,))
    figure, panels = grid(3 * len(titles), columns=3, height=0.65 + 0.22 * len(look), sharey=True)
    unit_size, unit = time_unit(spent.loc[spent["measure"] == "seconds", "cost"])
    for i, ((model, dataset), title) in enumerate(titles.items()):
        row = panels[3 * i : 3 * i + 3]
        for axes, (cost, label) in zip(row, COSTS.items(), strict=True):
            bars, seeds = (rows_of(frame, model=model, dataset=dataset, measure=cost) for frame in (means, spent))
            scale = unit_size if cost == "seconds" else 1.0
            bars = bars.assign(cost=bars["cost"] / scale, spent=bars["spent"] / scale)
            _cost_bars(axes, bars, seeds.assign(cost=seeds["cost"] / scale), look)
            axes.set_xlabel(label.format(unit=unit))
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            if cost != "seconds":
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        row[1].set_title(f"{title}: to {bars['level'].iloc[0]:.1f}% validation accuracy")
    legend_above(figure, _cost_handles(spent), _cost_text(settings, means))
    return figure, pd.concat([means.assign(series="mean"), spent.assign(series="seed")], ignore_index=True)


def _cost_handles(spent: pd.DataFrame) -> list[Line2D]:
    marks = {True: "Single seed", False: "Single seed that did not reach it (k of n did), at its total"}
    return [
        Line2D([], [], color="0.2", marker=SEED_MARKS[reached], markerfacecolor="w", linestyle="", label=label)
        for reached, label in marks.items()
        if reached in set(spent["reached"])
    ]


def _cost_text(settings: ReportSettings, means: pd.DataFrame) -> str:
    first, count = next(iter(settings.arms.values())), len(settings.seeds)
    bars = f"Bars: mean curve of {count} seeds" if count > 1 else ONE_SEED
    level = f"best of {first}'s monotone {'mean ' * (count > 1)}validation curve"
    pale = "; pale: total cost without reaching it, ?: ratio unknown" if means["cost"].isna().any() else ""
    return f"{bars}; n×: {first}'s bar divided by this bar\nTarget: {level}{pale}"


def _cost_bars(axes: Axes, means: pd.DataFrame, seeds: pd.DataFrame, look: dict[str, Look]) -> None:
    """One bar per arm, a mark for each seed, and at the bar's end the first arm's cost divided by this arm's.

    Args:
        means: one row per arm, costs in units of the axes.
        seeds: the costs of single runs, in the same units.
    """
    for place, (arm, (_, mean)) in enumerate(zip(look, means.iterrows(), strict=True)):
        reached = not np.isnan(mean["cost"])
        length, alpha = (mean["cost"], 0.75) if reached else (mean["spent"], 0.25)
        axes.barh(place, length, height=0.65, color=look[arm].color, alpha=alpha, linewidth=0)
        runs = rows_of(seeds, arm=arm)
        offsets = 0.22 * np.linspace(-1, 1, len(runs)) * (len(runs) > 1)  # seeds often coincide, since validations are few
        for cost, seed_reached, offset in zip(runs["cost"], runs["reached"], offsets, strict=True):
            mark = SEED_MARKS[seed_reached]
            axes.plot(cost, place + offset, marker=mark, color="0.2", markerfacecolor="w", markeredgewidth=0.6)
        arrived = "" if mean["n_reached"] == mean["n_seeds"] else f"{mean['n_reached']} of {mean['n_seeds']}"
        axes.annotate(
            "\n".join(filter(None, [ratio_label(mean, next(iter(look))), arrived])),
            (max(runs["cost"].max(), length), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes.set_yticks(range(len(look)), [one.title for one in look.values()])
    axes.set_ylim(len(look) - 0.5, -0.5)
    axes.set_xlim(0, 1.6 * seeds["cost"].max())
    axes.grid(False, axis="y")


@styled
def memory(metrics: pd.DataFrame, settings: ReportSettings) -> tuple[Figure, pd.DataFrame]:
    """Peak memory of training (of the GPU if there is one, otherwise of the process), one panel per model and data set.

    Args:
        metrics: model, dataset, arm, seed, peak_memory_mb (MiB, the maximum up to each step).

    Returns:
        The figure, and its data: one row per run with gib, and ratio (the arm's mean over seeds divided by the first arm's).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    peaks = metrics.groupby([*GROUP, "arm", "seed"], sort=False, as_index=False)["peak_memory_mb"].max()
    peaks = peaks.assign(gib=peaks.pop("peak_memory_mb") / 1024)
    means = peaks.groupby([*GROUP, "arm"])["gib"].mean()
    first = next(iter(settings.arms))
    ratios = [means[(*key,)] / means[(*key[:2], first)] for key in zip(*(peaks[c] for c in (*GROUP, "arm")), strict=True)]
    peaks = peaks.assign(ratio=ratios)
    columns = _columns(len(titles))
    figure, panels = grid(len(titles), columns, height=0.7 + 0.2 * len(look), sharey=True)
    for axes, ((model, dataset), title) in zip(panels, titles.items(), strict=True):
        for place, arm in enumerate(look):
            rows = rows_of(peaks, model=model, dataset=dataset, arm=arm)
            axes.barh(place, rows["gib"].mean(), height=0.65, color=look[arm].color, alpha=0.75, linewidth=0)
            axes.plot(rows["gib"], [place] * len(rows), marker="o", color="0.2", markerfacecolor="w", linestyle="")
            label = "" if arm == first else f"{rows['ratio'].iloc[0]:.2f}×"
            axes.annotate(label, (rows["gib"].max(), place), xytext=(5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(look)), [one.title for one in look.values()])
        axes.set_ylim(len(look) - 0.5, -0.5)
        axes.set_xlim(0, 1.3 * peaks["gib"].max())
        axes.grid(False, axis="y")
        axes.set_title(title)
    for axes in panels[-columns:]:
        axes.set_xlabel("Peak memory (GiB)")
    mark = Line2D([], [], color="0.2", marker="o", markerfacecolor="w", linestyle="", label="One seed")
    legend_above(figure, [mark], f"Bars: mean over seeds; n×: divided by {settings.arms[first]}'s")
    return figure, peaks
