"""Shared parts of the figures: the grid of panels, training curves with bands, axis labels, legends."""

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
"""Marker of a single run, by whether it reached the target."""
UNKNOWN = "unknown"
"""Printed for a ratio if one of its two costs is unknown."""
ONE_SEED = "One training seed: these are single runs, not methods"
FEW_ARMS = 4
"""Up to this number of arms, figures draw every arm's band, and tables print all gains."""
LEGEND_CHARACTERS = 100
"""Number of characters of legend text that fit in one row."""
HANDLE_CHARACTERS = 8
"""Width of a legend handle with its padding, in characters."""
MARKED_POINTS = 8
"""Maximum number of markers along a curve; more would hide the line."""
BACKGROUND: Properties = {"linewidth": 0.8, "markersize": 2.5, "alpha": 0.7, "zorder": 1.9}
"""Look of curves that are not emphasised; their zorder is below 2, matplotlib's default for lines."""


def emphasised(settings: ReportSettings) -> list[str]:
    """The arms that are drawn thick and with a band: all if there are at most FEW_ARMS, otherwise the first arm and
    ``sfpo``."""
    arms = list(settings.arms)
    return arms if len(arms) <= FEW_ARMS else [arm for arm in arms if arm in (arms[0], "sfpo")]


def panel_titles(settings: ReportSettings) -> dict[tuple[str, str], str]:
    """(model, dataset) -> panel title, in the suite's order. The data set is only part of it if there are several."""
    return {
        (model, dataset): model if len(settings.datasets) == 1 else f"{model}, {dataset}"
        for model in settings.models
        for dataset in settings.datasets
    }


def rows_of(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows in which every given column has the given value."""
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def over_seeds(frame: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Mean, minimum and maximum of ``value`` over seeds (columns mean, low, high, n_seeds) for each group ``by``."""
    return frame.groupby(by, sort=False, as_index=False).agg(
        mean=(value, "mean"), low=(value, "min"), high=(value, "max"), n_seeds=(value, "count")
    )


def smoothed(frame: pd.DataFrame, curve: list[str], window: int) -> pd.DataFrame:
    """Replace ``value`` by its centred moving average over ``window`` rows of each curve; rows must be in the order of
    steps."""
    averages = frame.groupby(curve, sort=False)["value"].transform(
        lambda v: v.rolling(window, center=True, min_periods=1).mean()
    )
    return frame.assign(value=averages)


def grid(panels: int, columns: int, height: float = PANEL_HEIGHT, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the paper's text width with ``panels`` axes, ``columns`` per row.

    Args:
        height: mean height of a row, in inches.
        layout: further arguments of ``Figure.subplots``.
    """
    rows = -(-panels // columns)
    # 0.75 inches for the legend and the axis labels
    figure = Figure(figsize=(WIDTH, 0.75 + rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **layout).ravel()
    for spare in axes[panels:]:
        spare.remove()
    return figure, list(axes[:panels])


def draw_curve(axes: Axes, curve: pd.DataFrame, look: Look, x: str = "step", in_front: bool = True) -> None:
    """Draw a curve's mean over seeds, and a band from the lowest to the highest seed if there are several.

    Args:
        curve: columns ``x``, mean, low, high, n_seeds, in the units of the axes.
        in_front: if False, draw a thin line without a band, behind the emphasised curves.
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
    """Integer ticks on every x axis; the label 'Step' only on the bottom panels."""
    for i, axes in enumerate(panels):
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        if i + columns >= len(panels):
            axes.set_xlabel("Step")


def legend_above(figure: Figure, handles: Sequence[Artist], title: str) -> None:
    """One legend above all panels, in up to four columns; ``title`` says what lines, bands and marks are."""
    widths = [len(str(handle.get_label())) + HANDLE_CHARACTERS for handle in handles]
    fits = [n for n in (4, 3, 2) if sum(max(column, default=0) for column in _split(widths, n)) <= LEGEND_CHARACTERS]
    columns = min(len(handles), fits[0] if fits else 1)
    legend = figure.legend(handles=handles, loc="outside upper center", ncols=columns, title=title)
    legend.get_title().set_color("0.3")


def _split(widths: list[int], columns: int) -> list[list[int]]:
    """Distribute legend entries over columns like matplotlib: column by column, longer columns first."""
    return [list(part) for part in np.array_split(widths, columns)]


def arm_handles(looks: dict[str, Look]) -> list[Line2D]:
    """A legend entry for each arm."""
    return [
        Line2D([], [], color=look.color, marker=look.marker, linestyle=look.line, label=look.title) for look in looks.values()
    ]


def seeds_text(settings: ReportSettings) -> str:
    """Legend title: the item's title, and what curves and bands show."""
    count, front = len(settings.seeds), emphasised(settings)
    head = f"{settings.title}. " if settings.title else ""
    of_whom = "" if len(front) == len(settings.arms) else f" (only {' and '.join(settings.arms[arm] for arm in front)})"
    several = f"Lines: mean of {count} seeds; bands{of_whom}: lowest to highest seed"
    return head + (ONE_SEED if count == 1 else several)


def ratio_label(row: pd.Series, first: str) -> str:
    """The first arm's cost divided by this arm's, as text; '?' if it is unknown, empty for the first arm itself.

    Args:
        row: a row of ``targets.costs_to_targets``.
    """
    if row["arm"] == first:
        return ""
    return "?" if pd.isna(row["ratio"]) else f"{row['ratio']:.2f}×"


def time_unit(seconds: pd.Series) -> tuple[float, str]:
    """(seconds per unit, name): the largest unit of s, min, h of which the longest time has at least two."""
    longest = float(np.max(seconds))
    return next(((size, name) for size, name in ((3600.0, "h"), (60.0, "min")) if longest >= 2 * size), (1.0, "s"))
