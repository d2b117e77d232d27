"""What figures share: the grid of panels, curves over training with their band, marks and labels, the legend above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eval.report.style import PANEL_HEIGHT, WIDTH, Look, Properties
from sfpo.settings import ReportSettings

GROUP = ["model", "dataset"]
SEED_MARKS = {True: "o", False: ">"}
"""Mark of a run that reached a level, and of one that did not."""
UNKNOWN = "unknown"
"""Of a ratio of which one of the two costs is not known."""
ONE_SEED = "One training seed: these are single runs, not methods"
FEW_ARMS = 4
"""Up to so many, the bands of all arms can be told apart, and a table can say each in words."""
LEGEND_CHARACTERS = 100
"""Of legend text that fit side by side; a handle with its space takes as much as HANDLE_CHARACTERS."""
HANDLE_CHARACTERS = 8
MARKED_POINTS = 8
"""Markers along one curve, at most: more would hide it."""
BACKGROUND: Properties = {"linewidth": 0.8, "markersize": 2.5, "alpha": 0.7, "zorder": 1.9}
"""Of curves that are not in front; 2 is matplotlib's own zorder of lines."""


def emphasised(settings: ReportSettings) -> list[str]:
    """The arms that are drawn thick and with a band: all where they are few, else the first and the one called sfpo."""
    arms = list(settings.arms)
    return arms if len(arms) <= FEW_ARMS else [arm for arm in arms if arm in (arms[0], "sfpo")]


def panel_titles(settings: ReportSettings) -> dict[tuple[str, str], str]:
    """(model, dataset) -> its name in figures, in the suite's order; a dataset is named where there are several."""
    return {
        (model, dataset): model if len(settings.datasets) == 1 else f"{model}, {dataset}"
        for model in settings.models
        for dataset in settings.datasets
    }


def rows_of(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows in which each named column has the value given."""
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def over_seeds(frame: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Mean, lowest and highest seed (columns mean, low, high, n_seeds), in the order of first appearance."""
    return frame.groupby(by, sort=False, as_index=False).agg(
        mean=(value, "mean"), low=(value, "min"), high=(value, "max"), n_seeds=(value, "count")
    )


def smoothed(frame: pd.DataFrame, curve: list[str], window: int) -> pd.DataFrame:
    """``value`` replaced by its centred moving average over ``window`` rows of each curve, which stand in order of steps."""
    averages = frame.groupby(curve, sort=False)["value"].transform(
        lambda v: v.rolling(window, center=True, min_periods=1).mean()
    )
    return frame.assign(value=averages)


def grid(panels: int, columns: int, height: float = PANEL_HEIGHT, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the text, with ``panels`` axes in rows of ``columns``.

    Args:
        height: mean height of a row, in inches.
        layout: further settings of ``Figure.subplots``.
    """
    rows = -(-panels // columns)
    # room for legend and axis labels beside the rows
    figure = Figure(figsize=(WIDTH, 0.75 + rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **layout).ravel()
    for spare in axes[panels:]:
        spare.remove()
    return figure, list(axes[:panels])


def draw_curve(axes: Axes, curve: pd.DataFrame, look: Look, x: str = "step", in_front: bool = True) -> None:
    """Mean over seeds; a band from the lowest to the highest seed where there are several.

    Args:
        curve: columns x, mean, low, high, n_seeds, in the units of the axes.
        in_front: False draws a thin line without a band, behind those in front.
    """
    every = -(-len(curve) // MARKED_POINTS)
    axes.plot(
        curve[x],
        curve["mean"],
        color=look.color,
        marker=look.marker,
        linestyle=look.line,
        markevery=every,
        label=look.title,
        **({} if in_front else BACKGROUND),
    )
    if in_front and curve["n_seeds"].max() > 1:
        axes.fill_between(curve[x], curve["low"], curve["high"], color=look.color, alpha=0.15, linewidth=0)


def label_steps(panels: list[Axes], columns: int) -> None:
    """Whole steps on every x axis, named where no panel lies below."""
    for i, axes in enumerate(panels):
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        if i + columns >= len(panels):
            axes.set_xlabel("Step")


def legend_above(figure: Figure, handles: Sequence[Artist], title: str) -> None:
    """One legend for all panels, outside them, in up to four columns, with a line that says what is drawn."""
    widths = [len(str(handle.get_label())) + HANDLE_CHARACTERS for handle in handles]
    fits = [n for n in (4, 3, 2) if sum(max(column, default=0) for column in _split(widths, n)) <= LEGEND_CHARACTERS]
    columns = min(len(handles), fits[0] if fits else 1)
    legend = figure.legend(handles=handles, loc="outside upper center", ncols=columns, title=title)
    legend.get_title().set_color("0.3")


def _split(widths: list[int], columns: int) -> list[list[int]]:
    """As matplotlib fills a legend: column by column, longer ones first."""
    return [list(part) for part in np.array_split(widths, columns)]


def arm_handles(looks: dict[str, Look]) -> list[Line2D]:
    """A legend entry for each arm."""
    return [
        Line2D([], [], color=look.color, marker=look.marker, linestyle=look.line, label=look.title) for look in looks.values()
    ]


def seeds_text(settings: ReportSettings) -> str:
    """The item's title, and what a curve and its band are."""
    count, front = len(settings.seeds), emphasised(settings)
    head = f"{settings.title}. " if settings.title else ""
    of_whom = "" if len(front) == len(settings.arms) else f" of {' and '.join(settings.arms[arm] for arm in front)}"
    several = f"Lines: mean of {count} seeds; bands{of_whom}: lowest to highest seed"
    return head + (ONE_SEED if count == 1 else several)


def ratio_label(row: pd.Series, first: str) -> str:
    """The first arm's cost over this arm's; '?' where it is unknown, nothing for the first arm.

    Args:
        row: of ``targets.costs_to_targets``.
    """
    if row["arm"] == first:
        return ""
    return "?" if pd.isna(row["ratio"]) else f"{row['ratio']:.2f}×"


def time_unit(seconds: pd.Series) -> tuple[float, str]:
    """(seconds in one unit, its name): the largest of s, min, h that the longest time fills twice."""
    longest = float(np.max(seconds))
    return next(((size, name) for size, name in ((3600.0, "h"), (60.0, "min")) if longest >= 2 * size), (1.0, "s"))
