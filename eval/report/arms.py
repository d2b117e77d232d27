"""Table and figure of all arms at equal rollouts, backward passes and training time."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from eval.report.accuracy import accuracy_frame
from eval.report.budgets import COSTS, at_equal_budgets
from eval.report.markup import Block, Cell, Table, latex, markdown
from eval.report.notes import one_seed, seeds_fixed_beforehand
from eval.report.panels import (
    GROUP,
    arm_handles,
    draw_curve,
    emphasised,
    grid,
    legend_above,
    over_seeds,
    panel_titles,
    rows_of,
    seeds_text,
    time_unit,
)
from eval.report.partial import missing_note
from eval.report.statistics.comparisons import holm, is_significant
from eval.report.statistics.scores import AVERAGE
from eval.report.style import Look, Properties, looks, styled
from sfpo.settings import ReportSettings

COST_TITLES = {"rollouts": "Rollouts", "backward_passes": "Backward passes", "seconds": "Training time"}
ENDS = ("", "_low", "_high")
LEVEL_LINE: Properties = {"color": "0.35", "linestyle": (0, (1, 1)), "linewidth": 0.8}
BUDGET_LINE: Properties = {"color": "0.35", "linestyle": "-", "linewidth": 0.6}


def arms_table(
    scores: pd.DataFrame, validation: pd.DataFrame, metrics: pd.DataFrame, summaries: pd.DataFrame, settings: ReportSettings
) -> Table:
    """One row per arm: test accuracy, validation accuracy at equal budgets, gains over the first arm, and trigger steps.

    Args:
        scores: as for ``accuracy_frame``.
        validation: as for ``at_equal_budgets``, with seconds from ``budgets.with_modelled_seconds``.
        metrics: model, dataset, arm, entropy_zscore (missing at steps where the trigger is not evaluated).
        summaries: model, dataset, arm, seed, trigger_fired_at (step, or missing).

    Returns:
        The table. Its frame is that of ``at_equal_budgets``, with additional rows of measure 'test' (average over benchmarks,
        after training) and the columns p_holm (of the gain in accuracy, corrected for all gains of the table) and ``trigger``
        (as printed).
    """
    frame = pd.concat([_of_test(accuracy_frame(scores, settings), settings), at_equal_budgets(validation, settings)])
    frame = frame.assign(p_holm=holm(frame["accuracy_gain_p"].to_numpy(float)))
    triggers = {
        (*group, arm): trigger_text(_of_arm(metrics, group, arm), _of_arm(summaries, group, arm))
        for group in panel_titles(settings)
        for arm in settings.arms
    }
    frame = frame.assign(trigger=[triggers[key] for key in zip(*(frame[c] for c in (*GROUP, "arm")), strict=True)])
    first = next(iter(settings.arms.values()))
    names = ["Test\naccuracy", "Equal\nrollouts", "Equal\npasses", "Equal\ntime"]
    heads = [head for name in names for head in (name, f"Gain over\n{first}")] + ["Trigger\nfired at"]
    groups = frame.groupby(GROUP, sort=False)
    blocks = [_block(rows, settings, f"{model}, trained on {dataset}") for (model, dataset), rows in groups]
    caption = "Test accuracy, and validation accuracy at equal rollouts, backward passes and training time (%)"
    notes, above = missing_note(settings) + _notes(settings, int(frame["p_holm"].notna().sum())), one_seed(settings)
    return Table(
        frame, markdown(caption, heads, blocks, notes, above), latex(caption, heads, blocks, notes, settings.item, above)
    )


def _of_arm(frame: pd.DataFrame, group: tuple[str, str], arm: str) -> pd.DataFrame:
    return rows_of(frame, model=group[0], dataset=group[1], arm=arm)


def _of_test(table: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """Each arm's accuracy averaged over benchmarks, and its gain over the first arm, from the frame of ``accuracy_frame``."""
    first = next(iter(settings.arms))
    rows = []
    for group in panel_titles(settings):
        found = rows_of(table, model=group[0], dataset=group[1]).set_index("arm")
        for arm in settings.arms:
            row = {**dict(zip(GROUP, group, strict=True)), "arm": arm, "measure": "test", "n_seeds": len(settings.seeds)}
            row |= {f"accuracy{end}": found.loc[arm, f"{AVERAGE}{end}"] for end in ENDS}
            if arm != first:
                gain = found.loc[f"{arm}-{first}"]
                row |= {f"accuracy_gain{end}": gain[f"{AVERAGE}{end}"] for end in ENDS} | {"accuracy_gain_p": gain["p"]}
            rows.append(row)
    return pd.DataFrame(rows)


def trigger_text(metrics: pd.DataFrame, summaries: pd.DataFrame) -> str:
    """The first step after the entropy trigger fired, per seed in the order of ``summaries``; '-' if no step evaluated a
    trigger.

    Args:
        metrics: an arm's steps, with entropy_zscore.
        summaries: its runs, with trigger_fired_at.
    """
    if metrics["entropy_zscore"].isna().all():
        return "-"
    return ", ".join("never" if pd.isna(step) else str(step) for step in summaries["trigger_fired_at"])


def _block(rows: pd.DataFrame, settings: ReportSettings, title: str) -> Block:
    first = next(iter(settings.arms))
    lines = []
    for arm, name in settings.arms.items():
        cells: list[Cell | str] = []
        for _, row in rows_of(rows, arm=arm).iterrows():  # test, then each cost
            gain = Cell.of(row, "accuracy_gain", signed=True, bold=is_significant(row["p_holm"]))
            cells += [Cell.of(row, "accuracy"), "-" if arm == first else gain]
        lines.append((name, [*cells, rows_of(rows, arm=arm)["trigger"].iloc[0]]))
    budget = rows.dropna(subset=["budget"]).groupby("measure")["budget"].first()
    return Block(f"{title}; equal budgets: {', '.join(_amount(cost, budget[cost]) for cost in COSTS)}", lines, len(lines))


def _amount(cost: str, budget: float, unit: tuple[float, str] | None = None) -> str:
    """A budget as text; seconds are shown in ``unit`` (seconds per unit, name), by default that of ``time_unit``."""
    if cost == "seconds":
        size, name = unit or time_unit(pd.Series([budget]))
        return f"{budget / size:.1f} {name} of training"
    return f"{budget:,.0f} {COST_TITLES[cost].lower()}"


def _notes(settings: ReportSettings, gains: int) -> list[str]:
    first, seeds = next(iter(settings.arms.values())), len(settings.seeds)
    notes = [
        f"Test accuracy: average of {len(settings.benchmarks)} benchmarks, as in the accuracy table, which also explains the "
        "intervals.",
        f"Equal budgets: {first}'s total cost. Validation accuracy is interpolated linearly between validations; a run that "
        "ends before the budget keeps its final accuracy. A backward pass covers the whole batch. Training time excludes "
        f"validation and saving, and is computed with {first}'s seconds per rollout and per backward pass for every arm.",
        "Trigger: for each seed, the first step after the entropy trigger fired; '-': no entropy trigger, or fewer steps than "
        "its window; never: it did not fire.",
    ]
    if seeds > 1:
        notes[2:2] = [
            f"Intervals of validation accuracy (95%): Student's t over {seeds} seeds, gains paired by seed; [n/a]: all seeds "
            "are equal, so there is no variance. All runs share the same validation problems, which are not resampled.",
            f"Bold: gains over {first} that differ from zero, p below 5% after Holm's correction for {gains} gains. Intervals "
            "are not corrected. The csv also has each curve's mean up to the budget, which is less noisy than one validation.",
            *seeds_fixed_beforehand(settings),
        ]
    return notes


@styled
def arms_figure(validation: pd.DataFrame, settings: ReportSettings) -> tuple[Figure, pd.DataFrame]:
    """Top: validation accuracy against each cost. Bottom: each arm's gain over the first at an equal budget of that cost.

    Args:
        validation: as for ``at_equal_budgets``.

    Returns:
        The figure, and its data in percent: series 'accuracy' (mean, low, high over seeds at each step, with the mean cost of
        that step) and 'equal budget' (the rows of ``at_equal_budgets``).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    percent = validation.assign(accuracy=100 * validation["accuracy"])
    keys = [*GROUP, "arm", "step"]
    curves = over_seeds(percent, keys, "accuracy").merge(percent.groupby(keys, as_index=False)[COSTS].mean())
    equal = at_equal_budgets(validation, settings)
    heights = [1.7, 0.4 + 0.15 * len(look)]
    figure, panels = grid(
        6 * len(titles), columns=3, height=sum(heights) / 2, sharey="row", height_ratios=heights * len(titles)
    )
    size, unit = time_unit(curves["seconds"])
    for i, ((model, dataset), title) in enumerate(titles.items()):
        group = {"model": model, "dataset": dataset}
        for axes, below, cost in zip(panels[6 * i :], panels[6 * i + 3 :], COSTS, strict=False):
            scale, name = (size, f"{COST_TITLES[cost]} ({unit})") if cost == "seconds" else (1.0, COST_TITLES[cost])
            found = rows_of(equal, **group, measure=cost).set_index("arm")
            of_group = rows_of(curves, **group)
            budget = found["budget"].iloc[0]
            _curves(axes, of_group.assign(cost=of_group[cost] / scale), look, emphasised(settings))
            axes.axvline(budget / scale, **BUDGET_LINE)
            axes.set_xlabel(name)
            _gains(below, found, look)
            below.set_title(f"at {_amount(cost, budget, (size, unit))}")
        panels[6 * i].set_ylabel("Validation accuracy (%)")
        panels[6 * i + 1].set_title(title)
        panels[6 * i + 4].set_xlabel(f"Gain over {next(iter(settings.arms.values()))} (points)")
    intervals = "; gains: 95% interval" if len(settings.seeds) > 1 else ""
    legend_above(figure, _handles(look), seeds_text(settings) + intervals)
    return figure, pd.concat([curves.assign(series="accuracy"), equal.assign(series="equal budget")], ignore_index=True)


def _curves(axes: Axes, curves: pd.DataFrame, look: dict[str, Look], front: list[str]) -> None:
    """Each arm's curve against column ``cost``, and a horizontal line at the first arm's final accuracy."""
    for arm in look:
        draw_curve(axes, rows_of(curves, arm=arm), look[arm], x="cost", in_front=arm in front)
    axes.axhline(rows_of(curves, arm=next(iter(look)))["mean"].iloc[-1], **LEVEL_LINE)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _gains(axes: Axes, found: pd.DataFrame, look: dict[str, Look]) -> None:
    """Each arm's gain with its interval, one row per arm."""
    for place, arm in enumerate(look):
        gain, low, high = (found.loc[arm, f"accuracy_gain{end}"] for end in ENDS)
        axes.plot([low, high], [place, place], color=look[arm].color, linewidth=1)
        axes.plot(gain, place, color=look[arm].color, marker=look[arm].marker)
    axes.axvline(0, **LEVEL_LINE)
    axes.set_yticks(range(len(look)), [arm.title for arm in look.values()])
    axes.set_ylim(len(look) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _handles(look: dict[str, Look]) -> list[Line2D]:
    first = next(iter(look.values())).title
    return [
        *arm_handles(look),
        Line2D([], [], **LEVEL_LINE, label=f"{first}'s final accuracy"),
        Line2D([], [], **BUDGET_LINE, label="Equal budget"),
    ]
