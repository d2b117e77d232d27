"""Regime analysis: for which relative cost of rollouts (rho, sfpo/plan/price.py) an arm is cheaper than the first arm.

With steps and passes (over the batch) as measured, the cost of a run is modelled as rho * steps + passes. For each rho, the
first arm's cost of reaching a target is divided by each other arm's. The learning curves do not depend on rho, so one suite is
enough for all values of rho.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from eval.report.markup import Block, Cell, Table, latex, markdown
from eval.report.panels import GROUP, grid, legend_above, panel_titles, rows_of
from eval.report.paper_values import RATIOS, paper_values
from eval.report.partial import missing_note
from eval.report.prices import own_prices
from eval.report.statistics.target_time import Curves, ratio_of_costs
from eval.report.style import Look, Properties, looks, styled
from eval.report.targets import Target
from sfpo.plan.price import break_even
from sfpo.settings import ReportSettings

RATIO_COLUMNS = [*GROUP, "target", "level", "arm", "rho", "ratio", "ratio_low", "ratio_high"]
PRICES = np.geomspace(0.1, 300, 61)
TARGETS = (Target(0.5), Target(0.8))
PAPER_PASSES = 4
"""Passes per step of SFPO in the paper's runs: K + 1 with K = 3."""
MODEL_TITLES = {"deepseek-r1-distill-qwen-1.5b": "1.5B", "qwen3-4b-base": "4B", "deepseek-r1-distill-qwen-7b": "7B"}
PAPER_LOOK: Properties = {"color": "0.55", "linewidth": 0.8}
OWN_PRICE: Properties = {"color": "k", "linestyle": ":", "linewidth": 0.9}
PAYS = "#009E73"


def curves_at(runs: pd.DataFrame, seeds: list[int], rho: float) -> Curves:
    """The curves of one arm with the cost ``price`` = rho * steps + passes, at the steps at which all seeds were validated.

    Args:
        runs: seed, step (0 = before training), accuracy (fraction), backward_passes.
    """
    accuracy, passes = (
        runs.pivot(index="seed", columns="step", values=one).loc[seeds] for one in ("accuracy", "backward_passes")
    )
    steps = accuracy.columns[accuracy.notna().all()]
    cost = rho * steps.to_numpy(float) + passes[steps].to_numpy(float)
    return Curves(accuracy[steps].to_numpy(float), {"price": cost})


def ratios(validation: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """The first arm's cost divided by each other arm's, for each rho in PRICES.

    Args:
        validation: model, dataset, arm, seed, step, accuracy (fraction), backward_passes.

    Returns:
        model, dataset, target, level (percent), arm, rho, ratio, ratio_low, ratio_high (95%, jackknife over seeds), missing
        where ``ratio_of_costs`` is. No rows if there is only one arm.
    """
    first, *others = settings.arms
    rows = []
    for model, dataset in panel_titles(settings):
        group = rows_of(validation, model=model, dataset=dataset)
        for rho in PRICES:
            curves = {arm: curves_at(rows_of(group, arm=arm), settings.seeds, rho) for arm in settings.arms}
            for target in TARGETS:
                level = target.level(curves[first])
                known = {"model": model, "dataset": dataset, "target": target.name(settings.arms[first]), "level": 100 * level}
                for arm in others:
                    found = ratio_of_costs(curves[first], curves[arm], target.level, "price")
                    ends = {"ratio": found.value, "ratio_low": found.low, "ratio_high": found.high}
                    rows.append({**known, "arm": arm, "rho": rho, **ends})
    return pd.DataFrame(rows, columns=RATIO_COLUMNS)


def paper_ratios() -> pd.DataFrame:
    """GRPO / SFPO ratios from the paper's Figure 4: model, rollouts, hours, and the rho at which the two ratios are consistent.

    Time = rollouts * (rho + 1) / (rho + K + 1), solved for rho.
    """
    values = rows_of(paper_values(), item=RATIOS)
    found = []
    for model in dict.fromkeys(values["model"]):
        cells = rows_of(values, model=model).pivot(index="arm", columns="quantity", values="value")
        rollouts, hours = (cells.loc["grpo", one] / cells.loc["sfpo", one] for one in ("rollouts", "hours"))
        share = hours / rollouts
        rho = (PAPER_PASSES * share - 1) / (1 - share)
        found.append({"model": model, "rollouts": rollouts, "hours": hours, "rho": rho})
    return pd.DataFrame(found)


@styled
def regime_figure(validation: pd.DataFrame, metrics: pd.DataFrame, settings: ReportSettings) -> tuple[Figure, pd.DataFrame]:
    """The first arm's cost of reaching a target divided by each arm's, against rho; one row per model, one panel per target.

    Args:
        validation: as for ``ratios``.
        metrics: as for ``own_prices``.

    Returns:
        The figure, and its data: series 'ratio' (the rows of ``ratios``), 'own price' (rho of each run) and 'paper' (the rows
        of ``paper_ratios``).
    """
    look, titles = looks(settings.arms), panel_titles(settings)
    found, prices, paper = ratios(validation, settings), own_prices(metrics), paper_ratios()
    figure, panels = grid(len(TARGETS) * len(titles), len(TARGETS), height=2.5, sharey=True)
    for place, (axes, (group, target)) in enumerate(zip(panels, _panels(settings, titles), strict=True)):
        model, dataset = group
        of_panel = rows_of(found, model=model, dataset=dataset, target=target)
        _paper(axes, paper)
        for arm in list(look)[1:]:
            _ratio(axes, rows_of(of_panel, arm=arm), look[arm])
        axes.axhline(1, color="k", linewidth=0.8)
        axes.axhspan(1, 1e3, color=PAYS, alpha=0.06, linewidth=0)
        axes.axvline(rows_of(prices, model=model, dataset=dataset)["rho"].median(), **OWN_PRICE)
        axes.set(xscale="log", yscale="log", xlim=(PRICES[0], PRICES[-1]))
        level = "" if of_panel.empty else f" {of_panel['level'].iloc[0]:.1f}%"
        axes.set_title(f"{titles[group]}: to{level}\n({target})")
        _plain_logs(axes)
        if place % len(TARGETS) == 0:
            axes.set_ylabel(f"{next(iter(look.values())).title}'s cost / the arm's cost")
        if place >= len(panels) - len(TARGETS):
            axes.set_xlabel("rho: cost of a step's rollouts / cost of one pass")
    low, high = _limits(found, paper)
    panels[0].set_ylim(low, high)
    legend_above(figure, _handles(look, found), _legend_title(settings))
    frames = [found.assign(series="ratio"), prices.assign(series="own price"), paper.assign(series="paper", arm="sfpo")]
    return figure, pd.concat(frames, ignore_index=True)


def _panels(settings: ReportSettings, titles: dict[tuple[str, str], str]) -> Iterator[tuple[tuple[str, str], str]]:
    targets = [target.name(next(iter(settings.arms.values()))) for target in TARGETS]
    return iter([(group, target) for group in titles for target in targets])


def _ratio(axes: Axes, curve: pd.DataFrame, look: Look) -> None:
    """Draw one arm's ratio with its 95% band, and a marker where it breaks even."""
    axes.plot(curve["rho"], curve["ratio"], color=look.color, linestyle=look.line, label=look.title, zorder=3)
    axes.fill_between(curve["rho"], curve["ratio_low"], curve["ratio_high"], color=look.color, alpha=0.15, linewidth=0)
    even = even_at(curve)
    if even is not None:
        axes.plot(even, 1, color=look.color, marker=look.marker, markeredgecolor="w", markersize=5, zorder=4)


def _paper(axes: Axes, paper: pd.DataFrame) -> None:
    """Draw the paper's rollout ratios, converted to cost ratios for each rho, and a diamond at the rho implied by its hours.
    Labels are above the curves, except for the lowest."""
    lowest = paper["rollouts"].min()
    name: Properties = {"textcoords": "offset points", "ha": "right", "fontsize": 6, "color": "0.4"}
    for _, row in paper.iterrows():
        axes.plot(PRICES, [row["rollouts"] / break_even(price, PAPER_PASSES) for price in PRICES], **PAPER_LOOK)
        axes.plot(row["rho"], row["hours"], color="0.35", marker="D", markersize=3.5, linestyle="")
        below = row["rollouts"] == lowest
        offset, side = ((-2, -2), "top") if below else ((-2, 2), "bottom")
        axes.annotate(MODEL_TITLES[row["model"]], (PRICES[-1], row["rollouts"]), xytext=offset, va=side, **name)


def even_at(curve: pd.DataFrame) -> float | None:
    """The smallest rho above which the ratio is always at least 1; None if the ratio at the largest rho is below 1.

    Args:
        curve: rho, ratio; sorted by rho.
    """
    below = np.flatnonzero(~(curve["ratio"].to_numpy(float) >= 1))  # a missing ratio counts as below 1
    if not len(below):
        return float(curve["rho"].iloc[0])
    after = below[-1] + 1
    if after == len(curve):
        return None
    rho, ratio = (np.log(curve[one].to_numpy(float)[after - 1 : after + 1]) for one in ("rho", "ratio"))
    if np.isnan(ratio[0]):
        return float(curve["rho"].iloc[after])
    return float(np.exp(np.interp(0.0, ratio, rho)))


def _plain_logs(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _limits(found: pd.DataFrame, paper: pd.DataFrame) -> tuple[float, float]:
    """Limits of the y axis: all curves, and intervals down to a quarter of the lowest curve, since those of few seeds can be
    much wider."""
    shown = np.append(found["ratio"].dropna().to_numpy(float), [1.0, paper["rollouts"].max()])
    low = max(np.nanmin([found["ratio_low"].min(), shown.min()]), shown.min() / 4)
    return 0.9 * low, 1.15 * shown.max()


def _handles(look: dict[str, Look], found: pd.DataFrame) -> list[Line2D | Patch]:
    arms = []
    for arm in list(look)[1:]:
        one, reached = look[arm], rows_of(found, arm=arm)["ratio"].notna().any()
        label = one.title if reached else f"{one.title} (not reached)"
        arms.append(Line2D([], [], color=one.color, marker=one.marker, linestyle=one.line, label=label))
    return [
        *arms,
        Line2D(
            [], [], **PAPER_LOOK, marker="D", markersize=3.5, markerfacecolor="0.35", markeredgewidth=0, label="Paper's SFPO"
        ),
        Line2D([], [], **OWN_PRICE, label="rho of this suite"),
        Patch(color=PAYS, alpha=0.12, linewidth=0, label="The arm is cheaper"),
    ]


def _legend_title(settings: ReportSettings) -> str:
    band = f"; bands: 95% over {len(settings.seeds)} seeds" if len(settings.seeds) > 1 else "; one training seed"
    head = f"{settings.title}. " if settings.title else ""
    return f"{head}Marks on the line at 1: where an arm breaks even; diamonds: the paper's rho{band}"


def regime_table(validation: pd.DataFrame, metrics: pd.DataFrame, settings: ReportSettings) -> Table:
    """One row per arm and target: passes per step, the rollout ratio it needs at this suite's rho to break even, the ratios it
    has, and the rho from which it is cheaper than the first arm.

    Args:
        validation, metrics: as for ``regime_figure``.

    Returns:
        The table. Its frame: model, dataset, target, level, arm, rho, rho_low, rho_high (of this suite's runs: median, minimum,
        maximum), passes (per step), break_even (ratio of rollouts at which costs are equal, at rho), even_at (rho from which
        the arm is cheaper; missing: none up to 300); ratio with _low and _high (cost ratio at this suite's rho), and
        ratio_rollouts with _low and _high (at the largest rho, where only rollouts count).
    """
    found, prices = ratios(validation, settings), own_prices(metrics)
    (first_arm, first), rows, blocks = next(iter(settings.arms.items())), [], []
    for (model, dataset, target), of_target in found.groupby([*GROUP, "target"], sort=False):
        of_group = rows_of(prices, model=model, dataset=dataset)
        rho = of_group["rho"].median()
        lines: list[tuple[str, list[Cell | str]]] = []
        of_first = rows_of(of_group, arm=first_arm)["passes"].mean()
        for arm, curve in of_target.groupby("arm", sort=False):
            passes, even = rows_of(of_group, arm=arm)["passes"].mean(), even_at(curve)
            here, dear = curve.iloc[np.abs(np.log(curve["rho"] / rho)).argmin()], curve.iloc[-1]
            known = {"model": model, "dataset": dataset, "target": target, "level": here["level"], "arm": arm}
            price = {"rho": rho, "rho_low": of_group["rho"].min(), "rho_high": of_group["rho"].max(), "passes": passes}
            rows.append(
                {
                    **known,
                    **price,
                    "break_even": break_even(rho, passes, of_first),
                    "even_at": even,
                    **{f"ratio{end}": here[f"ratio{end}"] for end in ("", "_low", "_high")},
                    **{f"ratio_rollouts{end}": dear[f"ratio{end}"] for end in ("", "_low", "_high")},
                }
            )
            paying = "none" if even is None else "any" if even <= PRICES[0] else f"{even:.1f}"
            even_rollouts = f"{break_even(rho, passes, of_first):.2f}"
            cells = (f"{passes:.2f}", even_rollouts, _ratio_text(dear), _ratio_text(here), paying)
            lines.append((settings.arms[arm], [*cells]))
        title = f"{model}, trained on {dataset}: to {of_target['level'].iloc[0]:.1f}% ({target}); rho {rho:.2f}"
        blocks.append(
            Block(f"{title} ({of_group['rho'].min():.2f} to {of_group['rho'].max():.2f} over runs)", lines, len(lines))
        )
    heads = [
        "Passes\nper step",
        "Must save\nat rho",
        f"Rollouts:\n{first} / arm",
        f"Cost at rho:\n{first} / arm",
        "Pays off\nfrom rho",
    ]
    caption = "When an arm pays off: cost of reaching a target, depending on the relative cost of rollouts (rho)"
    nothing_to_compare = [] if rows else [f"{first} is the only arm, so there is nothing to compare it with."]
    notes = [*missing_note(settings), *nothing_to_compare, *_notes(settings)]
    frame = pd.DataFrame(rows)
    return Table(frame, markdown(caption, heads, blocks, notes), latex(caption, heads, blocks, notes, settings.item))


def _ratio_text(row: pd.Series) -> str:
    if pd.isna(row["ratio"]):
        return "not reached"
    ends = "" if pd.isna(row["ratio_low"]) else f" [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    return f"{row['ratio']:.2f}{ends}"


def _notes(settings: ReportSettings) -> list[str]:
    implied = ", ".join(f"{MODEL_TITLES[row['model']]} {row['rho']:.1f}" for _, row in paper_ratios().iterrows())
    several = (
        f"Intervals (95%): jackknife over {len(settings.seeds)} seeds, not adjusted for the number of rows."
        if len(settings.seeds) > 1
        else "One training seed: no intervals, and differences may come from the seed instead of the method."
    )
    return [
        "rho: cost of a step that does not depend on the update rule (sampling, grading, old log-probs, weight sync), divided "
        "by the cost of one pass over its batch; measured in these runs without their first step. `python -m sfpo.plan.price` "
        "computes it for any run.",
        "Must save: the ratio of rollouts at which an arm with that many passes per step costs as much as the first arm.",
        f"Rollouts, Cost at rho: {next(iter(settings.arms.values()))}'s divided by this arm's. Cost: where the isotonic mean "
        "curve over seeds reaches the target, as rho * steps + passes. Pays off from: the smallest rho above which the arm is "
        "cheaper; none: not up to 300, where passes hardly count.",
        f"The paper's Figure 4 implies rho of {implied} ({PAPER_PASSES} passes per step).",
        several,
    ]
