"""Figure of one training step in weight space, over the loss surface of its batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter
from scipy import interpolate

from eval.report.panels import GROUP, grid, legend_above, panel_titles, rows_of
from eval.report.style import Look, Properties, looks, styled
from sfpo.settings import ReportSettings

START: Properties = {"color": "k", "marker": "o", "markersize": 5.5, "linestyle": ""}
END: Properties = {"marker": "*", "markersize": 10, "markeredgecolor": "w", "markeredgewidth": 0.6, "linestyle": ""}
PASS: Properties = {"linestyle": "-", "marker": "o", "markersize": 3.6, "markeredgecolor": "w", "markeredgewidth": 0.5}
REPOSITION: Properties = {"linestyle": (0, (2, 1.2))}
REPOSITIONED: Properties = {"marker": "o", "markersize": 4.4, "markerfacecolor": "w", "markeredgewidth": 1.1, "linestyle": ""}
CONTOURS = 16
DRAWN_POINTS = 200
"""Resolution of the contours along each axis; the loss is interpolated between grid points by a spline."""


@styled
def trajectory(steps: dict[tuple[str, str], dict[str, Any]], settings: ReportSettings) -> tuple[Figure, pd.DataFrame]:
    """The path of the weights through one step of each arm, over the batch's loss; one panel per model and data set.

    Args:
        steps: (model, dataset) -> content of the results.json of eval.record_step.

    Returns:
        The figure, and its data: series 'path' (arm, point counted from 0, move, x, y, loss at the actual weights, which can
        lie off the plane) and 'loss' (x, y, loss in the plane, on a grid).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    columns = min(len(titles), 2)
    figure, panels = grid(len(titles), columns, height=2.75 if columns == 1 else 2.3)
    frames = []
    for axes, ((model, dataset), title) in zip(panels, titles.items(), strict=True):
        step = steps[model, dataset]
        paths, losses = path_table(step), loss_table(step)
        frames += [one.assign(model=model, dataset=dataset) for one in (paths, losses)]
        _loss(figure, axes, losses)
        # The first arm is on top but thinner, since paths may share their first pass.
        for place, arm in reversed(list(enumerate(look))):
            _path(axes, rows_of(paths, arm=arm), look[arm], width=1.5 if place == 0 else 2.6)
        axes.plot(0, 0, **START, zorder=5)
        share = f"{100 * step['share_in_plane']:.1f}% of the movement lies in this plane"
        axes.set_title(f"{title}, step {step['trained_steps'] + step['lead_in_steps'] + 1}: {share}")
    for place, axes in enumerate(panels):
        if place % columns == 0:
            axes.set_ylabel("Second direction")
        if place + columns >= len(panels):
            axes.set_xlabel("First principal direction of the weights' movement (Euclidean distance)")
    legend_above(figure, _handles(look), settings.title or "")
    found = pd.concat(frames, ignore_index=True)
    return figure, found[[*GROUP, "series", "arm", "point", "move", "x", "y", "loss"]]


def path_table(step: dict[str, Any]) -> pd.DataFrame:
    """One row per point of each arm's path."""
    rows = [
        {"series": "path", "arm": arm, "point": point, **place}
        for arm, places in step["arms"].items()
        for point, place in enumerate(places)
    ]
    return pd.DataFrame(rows)


def loss_table(step: dict[str, Any]) -> pd.DataFrame:
    """One row per grid point."""
    x, y = np.meshgrid(step["grid"]["x"], step["grid"]["y"])
    losses = np.array(step["grid"]["loss"], float)
    return pd.DataFrame({"series": "loss", "x": x.ravel(), "y": y.ravel(), "loss": losses.ravel()})


def _loss(figure: Figure, axes: Axes, losses: pd.DataFrame) -> None:
    """Draw filled contours and a colour bar. Levels are quantiles of the loss, so that valleys next to high plateaus stay
    visible; between grid points the loss is interpolated by a cubic spline."""
    table = losses.pivot(index="y", columns="x", values="loss")
    y, x = (np.linspace(ends[0], ends[-1], DRAWN_POINTS) for ends in (table.index, table.columns))
    axes.grid(False)
    if np.ptp(table.to_numpy()) == 0:  # no completion has an advantage
        return
    fine = interpolate.RectBivariateSpline(table.index, table.columns, table.to_numpy())(y, x)
    levels = np.unique(np.quantile(fine, np.linspace(0, 1, CONTOURS)))
    drawn = axes.contourf(x, y, fine, levels=levels, cmap=sns.color_palette("crest_r", as_cmap=True), alpha=0.6)
    axes.contour(x, y, fine, levels=levels, colors="w", linestyles="-", linewidths=0.4, alpha=0.8)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=25, ticks=levels[:: len(levels) // 5])
    bar.set_label("Loss of the batch")
    bar.outline.set_visible(False)
    bar.formatter = ScalarFormatter(useMathText=True)
    bar.formatter.set_powerlimits((-2, 3))
    bar.update_ticks()


def _path(axes: Axes, path: pd.DataFrame, look: Look, width: float) -> None:
    """Draw passes as solid lines with dots, repositions (moves without a pass) dashed, and a star at the end."""
    for before, after in zip(path.iloc[:-1].itertuples(), path.iloc[1:].itertuples(), strict=True):
        ends = ([before.x, after.x], [before.y, after.y])
        if after.move == "pass":
            axes.plot(*ends, color=look.color, markevery=[1], linewidth=width, **PASS, zorder=3)
        else:
            axes.plot(*ends, color=look.color, linewidth=width, **REPOSITION, zorder=2.5)
            axes.plot(after.x, after.y, color=look.color, **REPOSITIONED, zorder=4)
    axes.plot(path["x"].iloc[-1], path["y"].iloc[-1], color=look.color, **END, zorder=6)


def _handles(look: dict[str, Look]) -> list[Line2D]:
    return [
        Line2D([], [], **START, label="Start of the step"),
        *(Line2D([], [], color=one.color, linewidth=2, label=one.title) for one in look.values()),
        Line2D([], [], color="0.3", **PASS, label="A pass over the batch"),
        Line2D([], [], color="0.3", **{**REPOSITIONED, **REPOSITION}, label="Reposition"),
        Line2D([], [], color="0.3", **END, label="End of the step"),
    ]
