"""Table and figure of each arm's cost to reach a target validation accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

from eval.report.arms import COST_TITLES
from eval.report.budgets import COSTS
from eval.report.markup import Block, Cell, Table, latex, markdown
from eval.report.notes import one_seed, seeds_fixed_beforehand
from eval.report.panels import (
    GROUP,
    ONE_SEED,
    SEED_MARKS,
    UNKNOWN,
    grid,
    legend_above,
    panel_titles,
    ratio_label,
    rows_of,
    time_unit,
)
from eval.report.partial import missing_note
from eval.report.statistics.comparisons import is_significant
from eval.report.style import Look, Properties, looks, styled
from eval.report.targets import ENDS, TARGETS, Target, costs_to_targets, spent_to_targets
from sfpo.settings import ReportSettings

FURTHEST = 4.0
"""Axes extend to this factor beyond the costs of single runs; intervals of few seeds can be much wider and are cut off."""
SEED_LOOK: Properties = {"color": "0.4", "markerfacecolor": "w", "markersize": 2.5, "markeredgewidth": 0.5, "linestyle": ""}


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
    """One row per arm and target: number of seeds that reached it, mean cost by each measure, and the ratio to the first arm.

    Args:
        validation: as for ``spent_to_targets``.

    Returns:
        The table; its frame is that of ``costs_to_targets``, with costs in rollouts, passes and seconds.
    """
    frame = costs_to_targets(validation, settings, targets)
    first, units = next(iter(settings.arms.values())), _units(frame)
    heads = ["Seeds that\nreached it"]
    for measure in COSTS:
        heads += [COST_TITLES[measure] + (f"\n({units[measure][1]})" if units[measure][1] else ""), f"{first} /\nthis arm"]
    groups = frame.groupby([*GROUP, "target", "level"], sort=False)
    blocks = [
        _block(rows, settings, units, f"{model}, trained on {dataset}: to {level:.1f}% ({target})")
        for (model, dataset, target, level), rows in groups
    ]
    caption = "Cost of reaching a validation accuracy, with 95% intervals over seeds"
    notes, above = missing_note(settings) + _notes(settings, int(frame["p"].notna().sum())), one_seed(settings)
    return Table(
        frame, markdown(caption, heads, blocks, notes, above), latex(caption, heads, blocks, notes, settings.item, above)
    )


def _units(frame: pd.DataFrame) -> dict[str, tuple[float, str]]:
    """Measure -> (size of the printed unit, its name)."""
    most = frame.groupby("measure")["spent"].max()
    counts = {measure: (1000.0, "thousands") if most[measure] >= 10_000 else (1.0, "") for measure in COSTS}
    return {**counts, "seconds": time_unit(frame.loc[frame["measure"] == "seconds", "spent"])}


def _block(rows: pd.DataFrame, settings: ReportSettings, units: dict[str, tuple[float, str]], title: str) -> Block:
    first, lines = next(iter(settings.arms)), []
    for arm, name in settings.arms.items():
        of_arm = rows_of(rows, arm=arm).set_index("measure", drop=False)
        cells: list[Cell | str] = [f"{of_arm['n_reached'].iloc[0]} of {of_arm['n_seeds'].iloc[0]}"]
        for measure in COSTS:
            cells += [_cost_cell(of_arm.loc[measure], units[measure][0]), _ratio_cell(of_arm.loc[measure], first)]
        lines.append((name, cells))
    return Block(title, lines, len(lines))


def _cost_cell(row: pd.Series, unit: float) -> Cell | str:
    if pd.isna(row["cost"]):
        return f"not within {row['spent'] / unit:.1f}"
    return Cell(row["cost"] / unit, row["cost_low"] / unit, row["cost_high"] / unit)


def _ratio_cell(row: pd.Series, first: str) -> Cell | str:
    if row["arm"] == first:
        return "-"
    if pd.isna(row["ratio"]):
        return UNKNOWN
    return Ratio.of(row, "ratio", bold=is_significant(row["p_holm"]))


def _notes(settings: ReportSettings, ratios: int) -> list[str]:
    first, count = next(iter(settings.arms.values())), len(settings.seeds)
    notes = [
        "Cost: where the mean curve over seeds, made monotone by isotonic regression, crosses the target, interpolated between "
        "validations (the first noisy validation above the target would be biased low). Training time excludes validation and "
        "saving.",
        f"{first} / this arm: {first}'s cost divided by this arm's. 'not within' a total cost: the mean curve stays below the "
        "target, so the cost is censored and the ratio unknown.",
        f"Base and {first}'s gain: from its monotone mean curve. An arm as good as {first} reaches all of that gain in about "
        "half of such suites.",
    ]
    if count > 1:
        notes += [
            f"Intervals (95%): jackknife over {count} seeds on the log scale, paired by seed; each replicate recomputes the "
            "target. [n/a]: seeds do not differ, or a replicate does not reach the target.",
            f"Bold: differs from 1, p below 5% after Holm's correction for {ratios} ratios.",
            *seeds_fixed_beforehand(settings),
        ]
    return notes


# ---------------------------------------------------------------------------------------------- figure


@styled
def targets_figure(
    validation: pd.DataFrame, settings: ReportSettings, targets: tuple[Target, ...] = TARGETS
) -> tuple[Figure, pd.DataFrame]:
    """Cost of each arm to reach each target on log axes: means with intervals, single seeds, and ratios to the first arm.

    Args:
        validation: as for ``spent_to_targets``.

    Returns:
        The figure, and its data: series 'mean' (the rows of ``costs_to_targets``) and 'seed' (those of ``spent_to_targets``).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    spent = spent_to_targets(validation, settings, targets)
    means = costs_to_targets(validation, settings, targets)
    lines = len(targets) * (len(look) + 1)
    figure, panels = grid(3 * len(titles), columns=3, height=0.5 + 0.15 * lines, sharey="row")
    for i, ((model, dataset), title) in enumerate(titles.items()):
        row = panels[3 * i : 3 * i + 3]
        of_group = rows_of(means, model=model, dataset=dataset)
        for axes, measure in zip(row, COSTS, strict=True):
            size, unit = time_unit(spent.loc[spent["measure"] == "seconds", "cost"]) if measure == "seconds" else (1.0, "")
            seeds = rows_of(spent, model=model, dataset=dataset, measure=measure)
            scaled = rows_of(of_group, measure=measure)
            scaled = scaled.assign(**{name: scaled[name] / size for name in ("spent", *(f"cost{end}" for end in ENDS))})
            _points(axes, scaled, seeds.assign(cost=seeds["cost"] / size), look)
            axes.set_xlabel(COST_TITLES[measure] + (f" ({unit})" if unit else ""))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if unit else EngFormatter(sep=""))
        _name_lines(row[0], rows_of(of_group, measure=COSTS[0]), look)
        row[1].set_title(title)
    unknown = bool(means.loc[means["arm"] != next(iter(look)), "ratio"].isna().any())
    legend_above(figure, _handles(spent), _legend_text(settings, targets, unknown))
    return figure, pd.concat([means.assign(series="mean"), spent.assign(series="seed")], ignore_index=True)


def _points(axes: Axes, means: pd.DataFrame, seeds: pd.DataFrame, look: dict[str, Look]) -> None:
    """For each target, one row per arm below the row of the target's name (as labelled by ``_name_lines``).

    Args:
        means: rows of one panel, ordered by target and arm, with costs in units of the axes.
        seeds: the costs of single runs, in the same units.
    """
    axes.set_xscale("log")
    nearest, farthest = seeds["cost"].min(), seeds["cost"].max()
    left = max(np.nanmin([means["cost_low"].min(), nearest]), nearest / FURTHEST) / 1.3
    right = min(np.nanmax([means["cost_high"].max(), farthest]), farthest * FURTHEST) * 1.3
    for place, (_, row) in zip(_places(len(look), means["target"].nunique()), means.iterrows(), strict=True):
        color = look[row["arm"]].color
        runs = rows_of(seeds, target=row["target"], arm=row["arm"])
        offsets = np.linspace(0.28, 0.44, len(runs))  # below the mean and spread out, since seeds often coincide
        for cost, reached, offset in zip(runs["cost"], runs["reached"], offsets, strict=True):
            axes.plot(cost, place + offset, marker=SEED_MARKS[reached], **SEED_LOOK)
        axes.plot([row["cost_low"], row["cost_high"]], [place, place], color=color, linewidth=1)
        axes.plot(row["cost"], place, color=color, marker=look[row["arm"]].marker)  # draws nothing if the cost is missing
        weight = "bold" if is_significant(row["p_holm"]) else "normal"
        label = ratio_label(row, next(iter(look)))
        axes.annotate(
            label,
            (1, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            fontweight=weight,
        )
    axes.set_xlim(left, right)
    decades = np.log10(right / left)
    steps = (1, 1.5, 2, 3, 5, 7) if decades < 0.6 else (1, 2, 5) if decades < 1.4 else (1, 3) if decades < 2 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _places(arms: int, targets: int) -> list[int]:
    """Row numbers of each target's arms, counted from the top; the row above each target's first arm is for its name."""
    return [target * (arms + 1) + 1 + arm for target in range(targets) for arm in range(arms)]


def _name_lines(axes: Axes, means: pd.DataFrame, look: dict[str, Look]) -> None:
    """Label the rows: each target's accuracy, then the arms, with 'k of n' if only k of n seeds reached it."""
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


def _handles(spent: pd.DataFrame) -> list[Line2D]:
    marks = {True: "Single seed", False: "Single seed that did not reach it, at its total"}
    return [
        Line2D([], [], **SEED_LOOK, marker=SEED_MARKS[reached], label=label)
        for reached, label in marks.items()
        if reached in set(spent["reached"])
    ]


def _legend_text(settings: ReportSettings, targets: tuple[Target, ...], unknown: bool) -> str:
    first, count = next(iter(settings.arms.values())), len(settings.seeds)
    shares = ", ".join(f"{100 * target.value:g}%" for target in targets)
    of_what = f" of {first}'s gain" if all(target.of_gain for target in targets) else ""
    points = f"points: mean curve of {count} seeds, 95% interval" if count > 1 else ONE_SEED
    marks = ["?: unknown"] * unknown + ["bold: differs from 1 after Holm's correction"] * (count > 1)
    return f"To {shares}{of_what}; {points}\n" + "; ".join([f"n×: {first}'s cost divided by this arm's", *marks])
