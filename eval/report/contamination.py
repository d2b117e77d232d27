"""Benchmark problems that are among the training or validation rows too: how many there are, and the scores without them."""

from __future__ import annotations

import pandas as pd

from eval.report.markup import Block, Cell, Table, latex, markdown
from sfpo.data.contamination import KINDS, THRESHOLD, WORDS
from sfpo.settings import ReportSettings

ANY = "any"
"""Of at least one kind."""
PROBLEM = ["benchmark", "problem_id"]
NOTES = [
    "Cells: scored problems that overlap with at least one row of the training set, by kind; any: of at least one kind. Its "
    "held-out validation rows count as well: nothing is trained on them, but the checkpoint named best is chosen on them.",
    "Exact: the same text (a run of blanks is one blank). Normalized: the same but for case, blanks, punctuation, dollar signs "
    f"and the like. {WORDS}-gram: at least {THRESHOLD:.0%} of the problem's word {WORDS}-grams are in one row; a problem of "
    f"fewer than {WORDS} words has none.",
    "Answers are not compared: a problem that asks for something else in the same words counts, a translation does not. What a "
    "model had met before this training is not known.",
]


def contamination_table(scores: pd.DataFrame, overlaps: pd.DataFrame, settings: ReportSettings) -> Table:
    """How many of the scored problems of each benchmark overlap with each data set, by kind.

    Args:
        scores: benchmark, problem_id: what was scored, with every benchmark of ``settings``; overlaps of other problems do not
            count.
        overlaps: as ``sfpo.data.contamination.overlaps`` returns it. It must come from every data set of ``settings``: a set
            that was never compared looks like one without overlap.

    Returns:
        The table. Its frame has one row a benchmark: benchmark, problems, and for each data set and kind (exact, normalized,
        8-gram, any) ``<dataset>_<kind>``, the number of problems that overlap, and ``<dataset>_<kind>_share`` in percent.
        Printed are a block for each data set.
    """
    frame = _frame(scores, overlaps, settings)
    heads = ["Problems", *(kind.capitalize() for kind in (*KINDS, ANY))]
    blocks = [_block(frame, dataset, settings) for dataset in settings.datasets]
    caption = "Benchmark problems that are among the training or validation rows too: number (share)"
    return Table(frame, markdown(caption, heads, blocks, NOTES), latex(caption, heads, blocks, NOTES, settings.item))


def without_overlap(scores: pd.DataFrame, overlaps: pd.DataFrame) -> pd.DataFrame:
    """The scores on problems that do not overlap, under any kind, with the data set that the scored runs are trained on.

    For one data set at a time. The untrained model has no data set of its own, yet its rows lose the same problems as those of
    the arms that are compared with it: gains are paired problem by problem, and its accuracy on other problems could not stand
    beside theirs. With two data sets it would need two versions. So from the scores of a suite with several, first take
    ``scores[scores["dataset"].isna() | (scores["dataset"] == name)]``, and make the tables of each with settings that name it
    alone.

    Overlap is a fact about texts: whether a run got as far as the problem, or its model had met it before, is not looked at.

    Args:
        scores: dataset (missing for untrained models), benchmark, problem_id, any other columns; of any number of models, arms
            and seeds.
        overlaps: as ``sfpo.data.contamination.overlaps`` returns it; rows of other data sets and benchmarks do not count.

    Returns:
        The rows of ``scores`` that are left, in their order, with their index. A benchmark that overlaps whole has none.

    Raises:
        ValueError: the scores are of no data set or of several.
    """
    trained_on = list(scores["dataset"].dropna().unique())
    if len(trained_on) != 1:
        raise ValueError(
            f"scores of models trained on {', '.join(trained_on) or 'no data set'}: take those of one data set, with those of "
            "the untrained models, since all must be compared on the same problems"
        )
    dropped = pd.MultiIndex.from_frame(overlaps.loc[overlaps["dataset"] == trained_on[0], PROBLEM])
    return scores[~pd.MultiIndex.from_frame(scores[PROBLEM]).isin(dropped)]


def _frame(scores: pd.DataFrame, overlaps: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    scored = scores[PROBLEM].drop_duplicates()
    problems = scored["benchmark"].value_counts()
    found = overlaps.merge(scored, on=PROBLEM)
    found = pd.concat([found, found.assign(kind=ANY)]).drop_duplicates([*PROBLEM, "dataset", "kind"])
    counts = found.groupby(["benchmark", "dataset", "kind"]).size()
    rows = []
    for benchmark in settings.benchmarks:
        number = int(problems[benchmark])
        row: dict[str, str | float] = {"benchmark": benchmark, "problems": number}
        for dataset in settings.datasets:
            for kind in (*KINDS, ANY):
                count = int(counts.get((benchmark, dataset, kind), 0))
                row |= {f"{dataset}_{kind}": count, f"{dataset}_{kind}_share": 100 * count / number}
        rows.append(row)
    return pd.DataFrame(rows)


def _block(frame: pd.DataFrame, dataset: str, settings: ReportSettings) -> Block:
    rows: list[tuple[str, list[Cell | str]]] = []
    for _, row in frame.iterrows():
        columns = [f"{dataset}_{kind}" for kind in (*KINDS, ANY)]
        cells = [f"{row[column]} ({row[f'{column}_share']:.1f}%)" for column in columns]
        rows.append((settings.benchmarks[row["benchmark"]], [str(row["problems"]), *cells]))
    return Block(f"in the training or validation rows of {dataset}", rows, rule_after=len(rows))
