"""Figure of accuracy against the learning rate, and table of each arm at its own best rate."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval.report.markup import Block, Cell, Table, latex, markdown
from eval.report.panels import GROUP, grid, legend_above, panel_titles, rows_of
from eval.report.partial import missing_note
from eval.report.sensitivity import LAST, MEASURES, accuracies, at_own_best, over_scales
from eval.report.statistics.comparisons import holm, is_significant
from eval.report.style import BASE_COLOR, Look, Properties, looks, styled
from sfpo.config import at_rate
from sfpo.settings import ReportSettings

TITLES = {"rollouts": "Equal rollouts", "backward_passes": "Equal passes", "price": "Equal cost"}
BASE_LINE: Properties = {"color": BASE_COLOR, "linestyle": (0, (4, 2)), "linewidth": 1}
CROSS: Properties = {"color": "k", "marker": "x", "markersize": 9, "linestyle": "", "zorder": 4}
DODGE = 0.035
"""Sideways shift between the intervals of two arms at the same rate, in decades of the x axis."""


@styled
def sensitivity_figure(
    validation: pd.DataFrame, metrics: pd.DataFrame, settings: ReportSettings
) -> tuple[Figure, pd.DataFrame]:
    """Validation accuracy against the learning rate at equal rollouts, passes and cost; one row of panels per model.

    Args:
        validation: as for ``accuracies``.
        metrics: as for ``own_prices``, with learning_rate.

    Returns:
        The figure, and its data: the rows of ``over_scales``, with learning_rate (the suite's, multiplied by the scale).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    suite_rate = _suite_rate(metrics, settings)
    found = over_scales(accuracies(validation, metrics, settings))
    found = found.assign(learning_rate=suite_rate * found["scale"])
    figure, panels = grid(len(MEASURES) * len(titles), len(MEASURES), height=2.3, sharey="row")
    for i, (group, title) in enumerate(titles.items()):
        row = panels[len(MEASURES) * i : len(MEASURES) * (i + 1)]
        for axes, measure in zip(row, MEASURES, strict=True):
            of_panel = rows_of(found, model=group[0], dataset=group[1], measure=measure)
            axes.axhline(of_panel["base"].iloc[0], **BASE_LINE)
            for place, arm in enumerate(look):
                _curve(axes, rows_of(of_panel, arm=arm).sort_values("scale"), look[arm], place - (len(look) - 1) / 2)
            _rates(axes, suite_rate, settings)
            axes.set_title(f"{TITLES[measure]}{'' if len(titles) == 1 else f', {title}'}")
        row[0].set_ylabel("Validation accuracy (%)")
    for axes in panels[-len(MEASURES) :]:
        axes.set_xlabel("Learning rate")
    legend_above(figure, _handles(look, found), _words(settings))
    return figure, found


def _suite_rate(metrics: pd.DataFrame, settings: ReportSettings) -> float:
    """The suite's learning rate: that of the first arm's runs, divided by the arm's own scale and by the grid's."""
    scale = settings.learning_rate_scales[0]
    return rows_of(metrics, arm=at_rate(next(iter(settings.arms)), scale))["learning_rate"].iloc[-1] / scale


def _curve(axes: Axes, curve: pd.DataFrame, look: Look, place: float) -> None:
    """Draw the mean at each rate with its interval; hollow if most seeds ended below the untrained model, crossed if any
    diverged."""
    x = curve["learning_rate"] * 10 ** (DODGE * place)
    axes.plot(x, curve["accuracy"], color=look.color, linestyle=look.line, label=look.title, linewidth=1)
    axes.vlines(x, curve["accuracy_low"], curve["accuracy_high"], color=look.color, linewidth=0.8, alpha=0.6)
    for fails, face in ((False, look.color), (True, "w")):
        one = curve[(curve["below_base"] > curve["n_seeds"] / 2) == fails]
        at = one["learning_rate"] * 10 ** (DODGE * place)
        axes.plot(at, one["accuracy"], color=look.color, marker=look.marker, markerfacecolor=face, linestyle="", zorder=3)
    lost = curve["diverged"] > 0
    axes.plot(x[lost], curve["accuracy"][lost], **CROSS)


def _rates(axes: Axes, suite_rate: float, settings: ReportSettings) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([suite_rate * scale for scale in settings.learning_rate_scales]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))
    axes.tick_params(axis="x", labelrotation=45)


def _handles(look: dict[str, Look], found: pd.DataFrame) -> list[Line2D]:
    handles = [Line2D([], [], color=one.color, marker=one.marker, linestyle=one.line, label=one.title) for one in look.values()]
    handles.append(Line2D([], [], **BASE_LINE, label="Base"))
    if (found["below_base"] > found["n_seeds"] / 2).any():
        hollow: Properties = {"color": "0.3", "marker": "o", "markerfacecolor": "w", "linestyle": ""}
        handles.append(Line2D([], [], **hollow, label="Fell below the base"))
    if found["diverged"].any():
        handles.append(Line2D([], [], **CROSS, label="Some seeds diverged"))
    return handles


def _words(settings: ReportSettings) -> str:
    count = len(settings.seeds)
    head = f"{settings.title}. " if settings.title else ""
    spread = f"Mean of {count} seeds, bars: 95% interval" if count > 1 else "One training seed"
    return f"{head}{spread}; the last {100 * LAST:.0f}% of each budget"


def sensitivity_table(validation: pd.DataFrame, metrics: pd.DataFrame, settings: ReportSettings) -> Table:
    """One row per arm: for each equal budget, the rates selected on the other seeds, and the accuracy and gain at them.

    Args:
        validation, metrics: as for ``sensitivity_figure``.

    Returns:
        The table. Its frame is that of ``at_own_best`` with gain_p_holm (corrected for all gains of the frame). With one seed
        it is that of ``over_scales``, because a rate selected and scored on the same seed would be biased upward.
    """
    runs = accuracies(validation, metrics, settings)
    caption = "Each arm at its own best learning rate (validation accuracy, %)"
    if len(settings.seeds) == 1:
        words = "One training seed: a rate cannot be selected on one seed and scored on another. The figure shows all rates."
        frame, notes = over_scales(runs), [words, *missing_note(settings)]
        return Table(frame, markdown(caption, [], [], notes), latex(caption, [], [], notes, settings.item))
    frame = at_own_best(runs, settings)
    frame = frame.assign(gain_p_holm=holm(frame["gain_p"].to_numpy(float)))
    first = next(iter(settings.arms.values()))
    heads = [head for one in TITLES.values() for head in (f"{one}:\nrate", "accuracy", f"gain over\n{first}")]
    blocks = []
    for (model, dataset), rows in frame.groupby(GROUP, sort=False):
        of_group = rows_of(rows_of(runs, model=model, dataset=dataset), seed=settings.seeds[0])
        budget = of_group.groupby("measure")["budget"].first()
        rho = of_group["rho"].iloc[0]
        title = (
            f"{model}, trained on {dataset}: {budget['rollouts']:,.0f} rollouts, {budget['backward_passes']:,.0f} passes, or "
            f"the cost of {budget['price']:,.0f} passes at rho {rho:.2f}"
        )
        lines = [
            (name, _cells(rows_of(rows, arm=arm), arm == next(iter(settings.arms)))) for arm, name in settings.arms.items()
        ]
        blocks.append(Block(title, lines, len(lines)))
    notes = [*missing_note(settings), *_notes(settings, validation, metrics), *_diverged(settings, runs)]
    return Table(frame, markdown(caption, heads, blocks, notes), latex(caption, heads, blocks, notes, settings.item))


def _cells(rows: pd.DataFrame, is_first: bool) -> list[Cell | str]:
    cells: list[Cell | str] = []
    for measure in MEASURES:
        row = rows_of(rows, measure=measure).iloc[0]
        cells += [row["scales"], Cell.of(row, "accuracy")]
        cells.append("-" if is_first else Cell.of(row, "gain", signed=True, bold=is_significant(row["gain_p_holm"])))
    return cells


def _diverged(settings: ReportSettings, runs: pd.DataFrame) -> list[str]:
    """A note that names the rates at which runs diverged."""
    lost = runs[runs["diverged"]].drop_duplicates([*GROUP, "arm", "scale", "seed"])
    counts = lost.groupby(["arm", "scale"], sort=False).size()
    named = [f"{settings.arms[arm]} at x {scale:g}: {count}" for (arm, scale), count in counts.items()]
    words = "Runs that diverged (NaN or inf), with accuracy 0 from then on: "
    return [words + "; ".join(named)] if named else []


def _notes(settings: ReportSettings, validation: pd.DataFrame, metrics: pd.DataFrame) -> list[str]:
    scales, seeds = settings.learning_rate_scales, len(settings.seeds)
    rate = _suite_rate(metrics, settings)
    spent = []
    for arm, title in settings.arms.items():
        names = [at_rate(arm, scale) for scale in scales]
        ends = validation[validation["arm"].isin(names)].groupby([*GROUP, "arm", "seed"])[["backward_passes", "seconds"]].max()
        spent.append(f"{title} {ends['backward_passes'].sum():,.0f} passes, {ends['seconds'].sum() / 3600:.1f} h")
    return [
        f"Rates: {', '.join(f'{rate * scale:.3g}' for scale in scales)}, the same for every arm (a factor in an arm's name "
        f"multiplies them); {seeds} seeds each. The table gives them as multiples of {rate:.3g}.",
        f"A rate is selected on {seeds - 1} seeds and scored on the other, for each seed in turn; in brackets, how often it "
        "was.",
        "Cost of tuning: " + "; ".join(spent) + " (measured training time, including slowdowns by other jobs).",
        f"Accuracy: mean of the validation curve over the last {100 * LAST:.0f}% of the budget; the budget is the smallest "
        "total of any run. Equal cost: rho * steps + passes, with the rho measured in these runs (median).",
        "Intervals (95%): Student's t over seeds, gains paired by seed; they ignore that the selections for different seeds "
        "share runs. Bold: gains that differ from zero, p below 5% after Holm's correction for all gains of the table.",
    ]
