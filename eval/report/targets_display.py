"""The table and the figure of what each arm spends to reach a target validation accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

from eval.report.arms import COST_TITLES
from eval.report.budgets import COSTS
from eval.report.markup import Block, Cell, latex, markdown
from eval.report.panels import GROUP, SEED_MARKS, grid, legend_above, panel_titles, ratio_label, rows_of, time_unit
from eval.report.partial import missing_note
from eval.report.style import Look, looks, styled
from eval.report.tables import Table
from eval.report.targets import ENDS, TARGETS, Target, costs_to_targets, spent_to_targets
from sfpo.settings import ReportSettings

FURTHEST = 4.0
"""Axes show intervals up to so many times beyond the costs of single runs; three seeds may give far wider ones."""
SEED_LOOK = {"color": "0.4", "markerfacecolor": "w", "markersize": 2.5, "markeredgewidth": 0.5, "linestyle": ""}


# ---------------------------------------------------------------------------------------------- table


class Ratio(Cell):
    """A ratio with its interval, to two decimals."""

    @property
    def mean_text(self) -> str:
        return f"{self.mean:.2f}"

    @property
    def range_text(self) -> str:
        return "[n/a]" if pd.isna(self.low) else f"[{self.low:.2f}, {self.high:.2f}]"


def targets_table(validation: pd.DataFrame, settings: ReportSettings, targets: tuple[Target, ...] = TARGETS) -> Table:
    """One row an arm and target: how many seeds arrived, mean cost by each measure, and the first arm's cost over it.

    Args:
        validation: as for ``spent_to_targets``.

    Returns:
        The table; its frame is that of ``costs_to_targets``, costs in rollouts, passes and seconds.
    """
    frame = costs_to_targets(spent_to_targets(validation, settings, targets), settings)
    first, units = next(iter(settings.arms.values())), _units(frame)
    heads = ["Seeds that\narrived"]
    for measure in COSTS:
        heads += [COST_TITLES[measure] + (f"\n({units[measure][1]})" if units[measure][1] else ""), f"{first}'s\nover it"]
    groups = frame.groupby([*GROUP, "target", "level"], sort=False)
    blocks = [
        _block(rows, settings, units, f"{model}, trained on {dataset}: to {level:.1f}% ({target})")
        for (model, dataset, target, level), rows in groups
    ]
    caption = "Cost of reaching a validation accuracy, with 95% intervals over seeds"
    notes = missing_note(settings) + _notes(settings, int(frame["ratio_low"].notna().sum()))
    return Table(frame, markdown(caption, heads, blocks, notes), latex(caption, heads, blocks, notes, settings.item))


def _units(frame: pd.DataFrame) -> dict[str, tuple[float, str]]:
    """Measure -> (size of the unit in which it is printed, its name)."""
    most = frame.groupby("measure")["cost"].max()
    counts = {measure: (1000.0, "thousands") if most[measure] >= 10_000 else (1.0, "") for measure in COSTS}
    return {**counts, "seconds": time_unit(frame.loc[frame["measure"] == "seconds", "cost"])}


def _block(rows: pd.DataFrame, settings: ReportSettings, units: dict[str, tuple[float, str]], title: str) -> Block:
    lines = []
    for arm, name in settings.arms.items():
        of_arm = rows_of(rows, arm=arm).set_index("measure")
        cells: list[Cell | str] = [f"{of_arm['n_reached'].iloc[0]} of {of_arm['n_seeds'].iloc[0]}"]
        for measure in COSTS:
            cells += [_cost_cell(of_arm.loc[measure], units[measure][0]), _ratio_cell(of_arm.loc[measure])]
        lines.append((name, cells))
    return Block(title, lines, len(lines))


def _cost_cell(row: pd.Series, unit: float) -> Cell | str:
    if row["cost_bound"] == "exact":
        return Cell(*(row[f"cost{end}"] / unit for end in ENDS))
    return f"at least {row['cost'] / unit:.1f}"


def _ratio_cell(row: pd.Series) -> Cell | str:
    bound = row["ratio_bound"]
    if bound == "exact":
        return Ratio(*(row[f"ratio{end}"] for end in ENDS), bold=_excludes_one(row))
    if pd.isna(bound):  # the first arm's
        return "-"
    return "unknown" if bound == "unknown" else f"{bound} {row['ratio']:.2f}"


def _excludes_one(row: pd.Series) -> bool:
    return bool(row["ratio_low"] > 1 or row["ratio_high"] < 1)


def _notes(settings: ReportSettings, ratios: int) -> list[str]:
    first, count = next(iter(settings.arms.values())), len(settings.seeds)
    intervals = (
        f"Student's t on the logarithms of {count} seeds; [n/a]: all seeds agree, which shows no spread. The target counts as "
        f"known, though it comes from the same runs. They are not adjusted for the number of comparisons: of {ratios} such "
        "ratios, one in twenty would exclude 1 by chance."
        if count > 1
        else "none: there is one training seed."
    )
    return [
        "Cost: what a run had spent at its first validation at or above the target after training began; it may have been "
        "there up to one validation interval sooner, which intervals over seeds leave out. Training time is without validation "
        "and saving.",
        "Mean cost over seeds is geometric. A run that never arrives counts with all that it spent, which bounds its cost from "
        "below: such means are 'at least', and have no interval.",
        f"{first}'s over it: how many times the arm's cost {first} spends, paired by seed; 'at least' or 'at most' where a run "
        "of one of the two never arrived, unknown where runs of both did not. Bold: its interval excludes 1.",
        f"Intervals (95%): {intervals}",
        f"Base: mean validation accuracy before training. {first}'s gain: from there to the best of its mean curve over seeds.",
    ]


# ---------------------------------------------------------------------------------------------- figure


@styled
def targets_figure(
    validation: pd.DataFrame, settings: ReportSettings, targets: tuple[Target, ...] = TARGETS
) -> tuple[Figure, pd.DataFrame]:
    """Cost of each arm up to each target on log axes: means with intervals, single seeds, and the first arm's cost over it.

    Args:
        validation: as for ``spent_to_targets``.

    Returns:
        The figure, and its data: series 'mean' (the rows of ``costs_to_targets``) and 'seed' (those of ``spent_to_targets``).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    spent = spent_to_targets(validation, settings, targets)
    means = costs_to_targets(spent, settings)
    lines = len(targets) * (len(look) + 1)
    figure, panels = grid(3 * len(titles), columns=3, height=0.5 + 0.15 * lines, sharey="row")
    for i, ((model, dataset), title) in enumerate(titles.items()):
        row = panels[3 * i : 3 * i + 3]
        of_group = rows_of(means, model=model, dataset=dataset)
        for axes, measure in zip(row, COSTS, strict=True):
            size, unit = time_unit(spent.loc[spent["measure"] == "seconds", "cost"]) if measure == "seconds" else (1.0, "")
            seeds = rows_of(spent, model=model, dataset=dataset, measure=measure)
            scaled = rows_of(of_group, measure=measure)
            scaled = scaled.assign(**{f"cost{end}": scaled[f"cost{end}"] / size for end in ENDS})
            _points(axes, scaled, seeds.assign(cost=seeds["cost"] / size), look)
            axes.set_xlabel(COST_TITLES[measure] + (f" ({unit})" if unit else ""))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if unit else EngFormatter(sep=""))
        _name_lines(row[0], rows_of(of_group, measure=COSTS[0]), look)
        row[1].set_title(title)
    legend_above(figure, _handles(spent, means), _legend_text(settings, targets))
    return figure, pd.concat([means.assign(series="mean"), spent.assign(series="seed")], ignore_index=True)


def _points(axes: Axes, means: pd.DataFrame, seeds: pd.DataFrame, look: dict[str, Look]) -> None:
    """One line an arm below a line for each target's name, as ``_name_lines`` numbers them.

    Args:
        means: rows of one panel, by target and then arm, costs in units of the axes.
        seeds: the costs of single runs, in the same units.
    """
    axes.set_xscale("log")
    nearest, farthest = seeds["cost"].min(), seeds["cost"].max()
    left = max(np.nanmin([means["cost_low"].min(), nearest]), nearest / FURTHEST) / 1.3
    right = min(np.nanmax([means["cost_high"].max(), farthest]), farthest * FURTHEST) * 1.3
    for place, (_, row) in zip(_places(len(look), means["target"].nunique()), means.iterrows(), strict=True):
        color, known = look[row["arm"]].color, row["cost_bound"] == "exact"
        runs = rows_of(seeds, target=row["target"], arm=row["arm"])
        offsets = np.linspace(0.28, 0.44, len(runs))  # below the mean, and apart: seeds often coincide, validations are few
        for cost, reached, offset in zip(runs["cost"], runs["reached"], offsets, strict=True):
            axes.plot(cost, place + offset, marker=SEED_MARKS[reached], **SEED_LOOK)
        ends = [row["cost_low"], row["cost_high"]] if known else [row["cost"], right]
        axes.plot(ends, [place, place], color=color, linewidth=1, linestyle="-" if known else ":")
        axes.plot(row["cost"], place, color=color, marker=look[row["arm"]].marker, markerfacecolor=color if known else "w")
        beside = {"xycoords": axes.get_yaxis_transform(), "xytext": (3, 0), "textcoords": "offset points"}
        weight = "bold" if _excludes_one(row) else "normal"
        axes.annotate(ratio_label(row), (1, place), va="center", fontsize="small", fontweight=weight, **beside)
    axes.set_xlim(left, right)
    decades = np.log10(right / left)
    steps = (1, 1.5, 2, 3, 5, 7) if decades < 0.6 else (1, 2, 5) if decades < 1.4 else (1, 3) if decades < 2 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _places(arms: int, targets: int) -> list[int]:
    """Height of each target's arms, counted downward, with a line free above each target's first."""
    return [target * (arms + 1) + 1 + arm for target in range(targets) for arm in range(arms)]


def _name_lines(axes: Axes, means: pd.DataFrame, look: dict[str, Look]) -> None:
    """Names of arms, with 'k of n' where some seeds never arrived, below the level of each target."""
    levels = dict.fromkeys(zip(means["target"], means["level"], strict=True))
    names = [
        look[row["arm"]].title + ("" if row["n_reached"] == row["n_seeds"] else f", {row['n_reached']} of {row['n_seeds']}")
        for _, row in means.iterrows()
    ]
    heads = [target * (len(look) + 1) for target in range(len(levels))]
    axes.set_yticks(heads + _places(len(look), len(levels)), [f"to {level:.1f}%:" for _, level in levels] + names)
    for label in axes.get_yticklabels()[: len(heads)]:
        label.set_color("0.4")
    axes.set_ylim(len(levels) * (len(look) + 1) - 0.4, -0.6)


def _handles(spent: pd.DataFrame, means: pd.DataFrame) -> list[Line2D]:
    marks = {True: "One seed, when it got there", False: "One seed that did not, at its end"}
    handles = [
        Line2D([], [], **SEED_LOOK, marker=SEED_MARKS[reached], label=label)
        for reached, label in marks.items()
        if reached in set(spent["reached"])
    ]
    if (means["cost_bound"] == "at least").any():
        handles.append(Line2D([], [], color="0.2", marker="o", markerfacecolor="w", linestyle=":", label="At least so much"))
    return handles


def _legend_text(settings: ReportSettings, targets: tuple[Target, ...]) -> str:
    first, count = next(iter(settings.arms.values())), len(settings.seeds)
    lines = [f"To {', '.join(target.name(first) for target in targets)}"]
    lines.append(f"Points: geometric mean of {count} seeds, 95% interval" if count > 1 else "One training seed")
    bold = "; bold: its 95% interval excludes 1" if count > 1 else ""
    return "\n".join([*lines, f"n×: {first}'s cost over this arm's{bold}"])
