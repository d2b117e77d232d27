"""The tables: scores in; numbers, Markdown and LaTeX out. All numbers are percent, or points of percent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from eval.report.collect import BASE
from eval.report.markup import Block, Cell, latex, markdown
from eval.report.panels import FEW_ARMS, panel_titles
from eval.report.partial import missing_note, missing_rows
from eval.report.statistics import (
    AVERAGE,
    RESAMPLES,
    Measure,
    avg_at_k,
    detectable_gain,
    holm,
    interval,
    paired_gain,
    paired_p_value,
    pass_at_k,
    per_problem,
)
from sfpo.settings import ReportSettings

DAGGER = "†"
NONE_LEFT = "none left"
"""In the cells of a benchmark without a scored problem."""
Values = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Table:
    """One table in its three forms."""

    frame: pd.DataFrame
    """model, dataset, arm, kind (score | gain); <benchmark>, <benchmark>_low, <benchmark>_high for each benchmark and
    ``average``, missing where no problem was scored; n_seeds, problems, samples; best_in (names of the columns in which the
    arm's lead is beyond chance). Of gains, for the average: p (two-sided), p_holm (adjusted for all comparisons with the first
    arm), detectable (the least gain, in points, that would be told from zero in 80% of such suites)."""
    markdown: str
    latex: str


def accuracy(scores: pd.DataFrame, settings: ReportSettings) -> Table:
    """Accuracy (avg@k) of the base model and of each arm on every benchmark, and the gains between them.

    Args:
        scores: model, dataset, arm, seed, benchmark, problem_id, correct; one row a sample. A benchmark of ``settings`` that
            is not in there is marked, and is in no average.
    """
    return _table(scores, settings, avg_at_k, f"avg@{settings.samples}", settings.item)


def pass_at_least_once(scores: pd.DataFrame, settings: ReportSettings) -> Table:
    """As ``accuracy``, for the chance that at least one of k samples is right."""
    measure = partial(pass_at_k, k=settings.samples)
    return _table(scores, settings, measure, f"pass@{settings.samples}", f"{settings.item}_pass_at_k")


def _table(scores: pd.DataFrame, settings: ReportSettings, measure: Measure, name: str, label: str) -> Table:
    scored = [benchmark for benchmark in settings.benchmarks if benchmark in set(scores["benchmark"])]
    frame = _frame(scores, settings, measure) if scored else _without_numbers(settings)
    heads = [
        title + (DAGGER if benchmark in settings.out_of_distribution else "")
        for benchmark, title in settings.benchmarks.items()
    ]
    blocks = [block for group, rows in _by_group(frame, settings) for block in _blocks(rows, settings, group)]
    count = len(heads) if len(scored) == len(heads) else f"{len(scored)} of {len(heads)}"
    caption = f"{settings.title or 'Accuracy'} ({name}, %) on {count} benchmarks, with 95% intervals"
    notes = missing_note(settings) + _none_left_note(scored, settings) + (_notes(frame, settings) if scored else [])
    heads = [*heads, "Average"]
    return Table(frame, markdown(caption, heads, blocks, notes), latex(caption, heads, blocks, notes, label))


# ---------------------------------------------------------------------------------------------- numbers


def gain_pairs(settings: ReportSettings) -> list[tuple[str, str]]:
    """(arm, what it is compared with): each arm with the base, then each further arm with the first."""
    first, *others = settings.arms
    return [(arm, BASE) for arm in settings.arms] + [(arm, first) for arm in others]


def _frame(scores: pd.DataFrame, settings: ReportSettings, measure: Measure) -> pd.DataFrame:
    rows = []
    for model in settings.models:
        of_model = scores[scores["model"] == model]
        base = _values(of_model[of_model["arm"] == BASE], settings, measure)
        for dataset in settings.datasets:
            trained = of_model[of_model["dataset"] == dataset]
            arms = {arm: _values(trained[trained["arm"] == arm], settings, measure) for arm in settings.arms}
            rows += _group_rows({BASE: base, **arms}, settings, {"model": model, "dataset": dataset})
    return pd.DataFrame(rows)


def _values(scores: pd.DataFrame, settings: ReportSettings, measure: Measure) -> Values:
    tables = per_problem(scores, measure)
    return {benchmark: tables[benchmark] for benchmark in settings.benchmarks if benchmark in tables}


def _without_numbers(settings: ReportSettings) -> pd.DataFrame:
    """The rows of the base and the arms where no problem of any benchmark was scored; there are no gains."""
    columns = ["mean", "low", "high", "n_seeds", "problems"]
    nothing = _row(pd.DataFrame({"n_seeds": 0, "problems": 0}, [AVERAGE], columns), settings)
    return pd.DataFrame(
        {"model": model, "dataset": dataset, "arm": arm, "kind": "score", **nothing, "best_in": ""}
        for model, dataset in panel_titles(settings)
        for arm in (BASE, *settings.arms)
    )


def _group_rows(values: dict[str, Values], settings: ReportSettings, group: dict[str, str]) -> list[dict[str, object]]:
    estimates = {arm: interval(tables) for arm, tables in values.items()}
    best_in = _clear_leads(values, estimates)
    rows = [
        {**group, "arm": arm, "kind": "score", **_row(estimate, settings), "best_in": " ".join(best_in[arm])}
        for arm, estimate in estimates.items()
    ]
    for arm, reference in gain_pairs(settings):
        gain = paired_gain(values[arm], values[reference])
        found = {
            "p": paired_p_value(values[arm], values[reference])[AVERAGE],
            "detectable": 100 * detectable_gain(values[arm], values[reference])[AVERAGE],
        }
        rows.append({**group, "arm": f"{arm}-{reference}", "kind": "gain", **_row(gain, settings), "best_in": "", **found})
    first, *others = settings.arms
    compared = [row for row in rows if row["arm"] in {f"{arm}-{first}" for arm in others}]
    for row, adjusted in zip(compared, holm(np.array([row["p"] for row in compared])), strict=True):
        row["p_holm"] = adjusted
    return rows


def _row(estimate: pd.DataFrame, settings: ReportSettings) -> dict[str, float]:
    cells, shown = {}, estimate.reindex([*settings.benchmarks, AVERAGE])
    for column in shown.index:
        for suffix, part in (("", "mean"), ("_low", "low"), ("_high", "high")):
            cells[f"{column}{suffix}"] = 100 * shown.loc[column, part]
    average = estimate.loc[AVERAGE]
    return {**cells, "n_seeds": int(average["n_seeds"]), "problems": int(average["problems"]), "samples": settings.samples}


def _clear_leads(values: dict[str, Values], estimates: dict[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Arm -> columns in which it is best and its paired interval against the runner-up excludes zero."""
    means = pd.DataFrame({arm: estimate["mean"] for arm, estimate in estimates.items()})
    leads: dict[str, list[str]] = {arm: [] for arm in values}
    gains: dict[tuple[str, str], pd.DataFrame] = {}
    for column, row in means.iterrows():
        best, second = row.sort_values(ascending=False, kind="stable").index[:2]
        if (best, second) not in gains:
            gains[best, second] = paired_gain(values[best], values[second])
        if gains[best, second].loc[column, "low"] > 0:
            leads[best].append(str(column))
    return leads


# ---------------------------------------------------------------------------------------------- words


def _by_group(frame: pd.DataFrame, settings: ReportSettings) -> Iterator[tuple[str, pd.DataFrame]]:
    for (model, dataset), rows in frame.groupby(["model", "dataset"], sort=False):
        yield f"{model}, trained on {dataset}", rows


def arm_title(arm: str, settings: ReportSettings) -> str:
    """Title of a row: 'Base', an arm's title, or 'A - B' for a gain."""
    titles = {BASE: "Base", **settings.arms}
    pairs = {f"{a}-{b}": f"{titles[a]} - {titles[b]}" for a, b in gain_pairs(settings)}
    return titles[arm] if arm in titles else pairs[arm]


def printed(rows: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """The rows that are printed: with many arms, gains over the base are in the csv alone."""
    return rows if len(settings.arms) <= FEW_ARMS else rows[~rows["arm"].isin([f"{arm}-{BASE}" for arm in settings.arms])]


def _blocks(rows: pd.DataFrame, settings: ReportSettings, title: str) -> list[Block]:
    """One block of scores and gains; with many arms two, each of which fits a page."""
    rows = printed(rows, settings)
    if len(settings.arms) <= FEW_ARMS:
        return [_block(rows, settings, title)]
    first = next(iter(settings.arms.values()))
    kinds = {"score": title, "gain": f"{title}: gains over {first}"}
    return [_block(rows[rows["kind"] == kind], settings, text) for kind, text in kinds.items() if kind in set(rows["kind"])]


def _block(rows: pd.DataFrame, settings: ReportSettings, title: str) -> Block:
    def cell(row: pd.Series, column: str) -> Cell | str:
        if pd.isna(row[column]):
            return NONE_LEFT
        ends, bold = (row[f"{column}_low"], row[f"{column}_high"]), column in row["best_in"].split()
        return Cell(row[column], *ends, signed=row["kind"] == "gain", bold=bold)

    def cells(row: pd.Series) -> list[Cell | str]:
        return [cell(row, column) for column in (*settings.benchmarks, AVERAGE)]

    scores, gains = (
        [(arm_title(row["arm"], settings), cells(row)) for _, row in rows[rows["kind"] == kind].iterrows()]
        for kind in ("score", "gain")
    )
    of_group = rows.iloc[0]
    absent = missing_rows(settings, of_group["model"], of_group["dataset"]) if scores else []
    scores += [(arm, ["missing"] * (len(settings.benchmarks) + 1)) for arm in absent]
    return Block(title, [*scores, *gains], rule_after=len(scores))


def _none_left_note(scored: list[str], settings: ReportSettings) -> list[str]:
    """A note that names the benchmarks without a problem, and those that the average is of; nothing where all have some."""
    left_out = [title for benchmark, title in settings.benchmarks.items() if benchmark not in scored]
    if not left_out:
        return []
    averaged = ", ".join(settings.benchmarks[benchmark] for benchmark in scored)
    meaning = f"the average is of {averaged} alone" if averaged else "there is no accuracy to give"
    return [f"NONE LEFT: no problem of {', '.join(left_out)} is left, so {meaning}."]


def _notes(frame: pd.DataFrame, settings: ReportSettings) -> list[str]:
    first = frame.iloc[0]
    notes = [
        f"Cells: mean [95% interval] over {first['problems']} problems with {settings.samples} samples each; the average "
        "weighs benchmarks equally. Rows 'A - B': gain in points, paired on the same problems and seeds. Base: the untrained "
        "model.",
        _interval_note(settings),
        "Where all problems of a cell agree (all wrong, say) there is nothing to resample: its interval is the exact bound for "
        "n problems of which none differs (rule of three: about 3/n).",
        "Bold: the best of a column, only where its paired interval against the runner-up excludes zero. "
        "Intervals are not adjusted for the number of comparisons.",
    ]
    if settings.out_of_distribution:
        notes.append(f"{DAGGER} Out of distribution: the training set holds no problem of this kind.")
    said = {group: verdicts(rows, settings) for group, rows in _by_group(frame, settings)}
    return notes + [f"{group}: {' '.join(sentences)}" for group, sentences in said.items() if sentences]


def _interval_note(settings: ReportSettings) -> str:
    if len(settings.seeds) == 1:
        return (
            "Intervals: bootstrap over problems only. There is one training seed, so they compare these runs, not the methods: "
            "another seed may come out differently by more than they show."
        )
    return (
        f"Intervals: bootstrap over problems (within each benchmark) and the {len(settings.seeds)} training seeds together, "
        f"{RESAMPLES:,} resamples, widened by Student's t for the number of seeds; the base has no training seed."
    )


def verdicts(rows: pd.DataFrame, settings: ReportSettings) -> list[str]:
    """For each further arm, in words: its average gain over the first arm, and whether that can be told from zero.

    With many arms, only how many can be.
    """
    first, *others = settings.arms
    gains = [rows[rows["arm"] == f"{arm}-{first}"].iloc[0] for arm in others]
    if len(settings.arms) > FEW_ARMS:
        better, worse = (sum(test(_average(row)) for row in gains) for test in (lambda g: g.low > 0, lambda g: g.high < 0))
        return [
            f"of {len(gains)} average gains over {settings.arms[first]}, {better} are distinguishable from zero as better and "
            f"{worse} as worse, where chance alone would give about {len(gains) / 20:.1f} in all."
        ]
    return [
        f"{arm_title(row['arm'], settings)} = {_average(row)} points on average: {_told_apart(_average(row), settings)}"
        f"{_power(row, len(gains))}."
        for row in gains
    ]


def _power(row: pd.Series, comparisons: int) -> str:
    """p of a gain, adjusted where there are several, and the gain that could have been found."""
    if pd.isna(row["p"]):
        return ""
    adjusted = f", {row['p_holm']:.2g} after Holm's correction for {comparisons} comparisons" if comparisons > 1 else ""
    found = "" if pd.isna(row["detectable"]) else f"; a gain of {row['detectable']:.1f} points would be found with 80% power"
    return f"; p {row['p']:.2g}{adjusted}{found}"


def _average(row: pd.Series) -> Cell:
    return Cell(row[AVERAGE], row[f"{AVERAGE}_low"], row[f"{AVERAGE}_high"], signed=row["kind"] == "gain")


def _told_apart(gain: Cell, settings: ReportSettings) -> str:
    of_what = "these two runs" if len(settings.seeds) == 1 else f"{len(settings.seeds)} seeds"
    if pd.isna(gain.low):
        return "too few problems for an interval"
    if gain.low <= 0 <= gain.high:
        return f"not distinguishable from zero with {of_what}"
    return f"distinguishable from zero with {of_what} ({'better' if gain.low > 0 else 'worse'})"


def headline(table: Table, settings: ReportSettings) -> str:
    """The outcome in a few lines for the terminal, where the rest lies, and what to do next."""
    seeds = f"{len(settings.seeds)} seed{'s' if len(settings.seeds) > 1 else ''}"
    lines = [
        f"Suite {settings.suite}: accuracy (avg@{settings.samples}, %), average of {len(settings.benchmarks)} benchmarks "
        f"[95% interval]; {seeds}, {table.frame['problems'].iloc[0]} problems"
    ]
    against_first = {f"{arm}-{first}" for first, *others in [list(settings.arms)] for arm in others}
    for group, all_rows in _by_group(table.frame, settings):
        rows = printed(all_rows, settings)
        lines += ["", group]
        titles = [arm_title(arm, settings) for arm in rows["arm"]]
        width = max(map(len, titles))
        for title, (_, row) in zip(titles, rows.iterrows(), strict=True):
            cell = _average(row)
            line = f"  {title:<{width}}  {cell.mean_text:>5} {cell.range_text}"
            lines.append(f"{line}  {_told_apart(cell, settings)}" if row["arm"] in against_first else line)
    folder = f"results/{settings.suite}" + ("/partial" if settings.missing else "")
    return "\n".join(
        [
            *lines,
            *(["", *missing_note(settings)] if settings.missing else []),
            "",
            f"Table:   {folder}/tables/{settings.item}.md (.csv, .tex), {settings.item}_pass_at_k.md; the others beside it",
            f"Figures: {folder}/figures/ (.png, .pdf, .csv)",
            "Next:    change arms, seeds or the suite in params.yaml and run the same command; only what changed is run again.",
        ]
    )
