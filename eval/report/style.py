"""Style of all figures: font sizes for a paper, embedded fonts, and a fixed colour, marker and line style per arm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeVar

import matplotlib as mpl
import seaborn as sns

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Properties = dict[str, Any]
"""Keyword arguments for matplotlib artists; the type of a value depends on its key."""
LineStyle = Literal["-", "--", ":"]

WIDTH = 5.5
"""Inches: the text width of a single-column paper."""
PANEL_HEIGHT = 1.75
"""Inches, for one row of panels."""

# Okabe and Ito's colour-blind-safe palette, without its yellow, which is too faint on white.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
LINES: list[LineStyle] = ["-", "--", ":"]
BASE_COLOR = "0.45"

RC: dict[RcKeyType, Any] = {
    "font.size": 8,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "0.9",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 250,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}

P = ParamSpec("P")
R = TypeVar("R")


class Look(NamedTuple):
    """The look of an arm, the same in all figures."""

    title: str
    color: str
    marker: str
    line: LineStyle


def looks(arms: dict[str, str]) -> dict[str, Look]:
    """Arm -> its look. The first arm and ``sfpo`` get the first two looks in every suite, the other arms the rest in order.

    Colours repeat after seven arms, with another line style and marker.

    Args:
        arms: arm -> title, in the suite's order.
    """
    ranked = sorted(arms, key=lambda arm: arm not in (next(iter(arms)), "sfpo"))
    found = {}
    for i, arm in enumerate(ranked):
        turn, place = divmod(i, len(COLORS))
        found[arm] = Look(arms[arm], COLORS[place], MARKERS[(place + turn) % len(MARKERS)], LINES[turn % len(LINES)])
    return {arm: found[arm] for arm in arms}


def context() -> AbstractContextManager[None]:
    """Context manager that sets matplotlib's rcParams while a figure is drawn or saved, and restores them afterwards."""
    return mpl.rc_context({**sns.axes_style("ticks"), **RC})


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorator that runs ``draw`` within ``context``."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with context():
            return draw(*args, **kwargs)

    return inside
