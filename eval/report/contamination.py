"""Contamination: benchmark problems that also occur in the training or validation rows, and the scores without them."""

from __future__ import annotations

import pandas as pd

from eval.report.markup import Block, Cell, Table, latex, markdown
from sfpo.data.contamination import KINDS, THRESHOLD, WORDS
from sfpo.settings import ReportSettings

ANY = "any"
"""Overlap of at least one kind."""
PROBLEM = ["benchmark", "problem_id"]
NOTES = [
    "Cells: scored problems that overlap with at least one row of the training set, by kind of overlap; any: at least one "
    "kind. The held-out validation rows are included: nothing is trained on them, but the checkpoint 'best' is selected on "
    "them.",
    "Exact: the same text (repeated whitespace counts once). Normalized: the same text up to case, whitespace, punctuation, "
    f"dollar signs and other formatting. {WORDS}-gram: at least {THRESHOLD:.0%} of the problem's word {WORDS}-grams occur in "
    f"one row; not applicable to problems with fewer than {WORDS} words.",
    "Only problem texts are compared, not answers, and translations are not detected. Contamination of the model's pretraining "
    "is unknown.",
]


def contamination_table(scores: pd.DataFrame, overlaps: pd.DataFrame, settings: ReportSettings) -> Table:
    """How many of the scored problems of each benchmark overlap with each data set, by kind.

    Args:
        scores: benchmark, problem_id of the scored problems, with every benchmark of ``settings``; overlaps of other problems
            are ignored.
        overlaps: as ``sfpo.data.contamination.overlaps`` returns it, computed for every data set of ``settings``; a data set
            that was not compared would look like one without overlap.

    Returns:
        The table, with one block per data set. Its frame has one row per benchmark: benchmark, problems, and for each data set
        and kind (exact, normalized, 8-gram, any) ``<dataset>_<kind>``, the number of problems that overlap, and
        ``<dataset>_<kind>_share`` in percent.
    """
    frame = _frame(scores, overlaps, settings)
    heads = ["Problems", *(kind.capitalize() for kind in (*KINDS, ANY))]
    blocks = [_block(frame, dataset, settings) for dataset in settings.datasets]
    caption = "Benchmark problems that also occur in the training or validation rows: number (percent)"
    return Table(frame, markdown(caption, heads, blocks, NOTES), latex(caption, heads, blocks, NOTES, settings.item))


def without_overlap(scores: pd.DataFrame, overlaps: pd.DataFrame) -> pd.DataFrame:
    """The scores without the problems that overlap, by any kind, with the data set of the runs.

    Call it for one data set at a time. The same problems are removed from the rows of the untrained model, because gains over
    it are paired by problem; runs on different data sets would need different rows of the untrained model. With several data
    sets, first select ``scores[scores["dataset"].isna() | (scores["dataset"] == name)]``, and make a table for each.

    A problem is removed even if the run never reached the overlapping row.

    Args:
        scores: dataset (missing for untrained models), benchmark, problem_id, and any other columns, for any number of models,
            arms and seeds.
        overlaps: as ``sfpo.data.contamination.overlaps`` returns it; rows of other data sets and benchmarks are ignored.

    Returns:
        The remaining rows of ``scores``, with their order and index. A benchmark may have none left.

    Raises:
        ValueError: the scores belong to no data set or to several.
    """
    trained_on = list(scores["dataset"].dropna().unique())
    if len(trained_on) != 1:
        raise ValueError(
            f"scores of models trained on {', '.join(trained_on) or 'no data set'}: pass the scores of exactly one data set "
            "(and of the untrained models), since gains are paired on the same problems"
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
    return Block(f"Overlap with the training or validation rows of {dataset}", rows, rule_after=len(rows))
