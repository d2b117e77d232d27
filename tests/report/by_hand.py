"""Curves by hand, and what figures show: for several test modules."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

RUN = {"model": "tiny-qwen2", "dataset": "arithmetic"}


def runs(accuracies, passes=(1, 4), seconds=(2.0, 3.0)) -> pd.DataFrame:
    """{(arm, seed): accuracies at steps 0, 5, 10 ...}, 100 rollouts a step; passes, seconds: of a step of grpo, of sfpo."""
    rows = []
    for (arm, seed), values in accuracies.items():
        place = arm == "sfpo"
        for i, accuracy in enumerate(values):
            costs = {"rollouts": 100 * 5 * i, "backward_passes": passes[place] * 5 * i, "seconds": seconds[place] * 5 * i}
            rows.append({**RUN, "arm": arm, "seed": seed, "step": 5 * i, "accuracy": accuracy, **costs})
    return pd.DataFrame(rows)


TWO_SEEDS = {
    ("grpo", 0): [0.4, 0.5, 0.6],
    ("grpo", 1): [0.2, 0.5, 0.8],
    ("sfpo", 0): [0.4, 0.7, 0.9],
    ("sfpo", 1): [0.2, 0.8, 0.7],
}

# Mean curves: GRPO 0.4, 0.5, 0.5667, 0.6, 0.8; SFPO 0.4, 0.6, 0.7, 0.8, 0.8.
THREE_SEEDS = {
    ("grpo", 0): [0.4, 0.5, 0.6, 0.6, 0.8],
    ("grpo", 1): [0.4, 0.4, 0.5, 0.6, 0.8],
    ("grpo", 2): [0.4, 0.6, 0.6, 0.6, 0.8],
    ("sfpo", 0): [0.4, 0.6, 0.8, 0.8, 0.8],
    ("sfpo", 1): [0.4, 0.6, 0.6, 0.8, 0.8],
    ("sfpo", 2): [0.4, 0.6, 0.7, 0.8, 0.8],
}
LATE = [0.4, 0.4, 0.45, 0.5, 0.5]
"""Of a run that never gets to 60%."""


def labelled(axes):
    return {line.get_label(): line for line in axes.lines}


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def overlaps(figure: Figure):
    """Panels that the legend covers, and boxes that leave the page sideways, after layout."""
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    covered = [axes for axes in figure.axes if legend.overlaps(axes.get_tightbbox())]
    page = figure.bbox.padded(1)
    boxes = [legend, *(axes.get_tightbbox() for axes in figure.axes)]
    outside = [box for box in boxes if not (page.containsx(box.x0) and page.containsx(box.x1))]
    return covered, outside
