"""Effect of checkpoint selection: accuracies with each way to select the checkpoint, on the same runs and problems."""

from __future__ import annotations

import pandas as pd

from eval.report.choice import FOLDS, chosen
from eval.report.collect import BASE
from eval.report.markup import Block, Cell, Table, latex, markdown
from eval.report.notes import one_seed, seeds_fixed_beforehand
from eval.report.panels import rows_of
from eval.report.partial import missing_note, missing_rows
from eval.report.statistics.comparisons import GAIN_BOUNDS, differences, paired_gain
from eval.report.statistics.intervals import interval
from eval.report.statistics.scores import AVERAGE, Values, per_problem
from sfpo.config import CheckpointChoice
from sfpo.settings import ReportSettings

TITLES: dict[CheckpointChoice, str] = {
    "last": "Last",
    "best": "Best on\nheld-out rows",
    "best_on_benchmarks": "Best on these\nproblems (paper)",
    "best_on_other_folds": "Best on the\nother folds",
}
LUCK = "luck"
"""Column: score with ``best_on_benchmarks`` minus score with ``best_on_other_folds`` (the bias of selecting on the test
set)."""

ByChoice = dict[CheckpointChoice, Values]
"""Way to select the checkpoint -> benchmark -> [seeds, problems]."""


def selection_table(scores: pd.DataFrame, settings: ReportSettings) -> Table:
    """Average accuracy of each arm for each way to select the checkpoint, and each arm's gain over the first.

    Args:
        scores: model, dataset, arm, seed, checkpoint, benchmark, problem_id, sample, correct; all checkpoints of every run.

    Returns:
        The table. Its frame has model, dataset, arm, kind (score | gain), and in percent a column for each way to select and
        ``luck``, with _low and _high; for scores also ``checkpoints``, the number of checkpoints to select from.
    """
    rows = []
    for (model, dataset), of_group in scores[scores["arm"] != BASE].groupby(["model", "dataset"], sort=False):
        values = {arm: _values(rows_of(of_group, arm=arm), settings) for arm in settings.arms}
        first, *others = settings.arms
        group = {"model": model, "dataset": dataset}
        among = of_group.loc[of_group["checkpoint"] != "best", "checkpoint"].nunique()
        rows += [{**group, "arm": arm, "kind": "score", "checkpoints": among, **_scores(values[arm])} for arm in settings.arms]
        rows += [{**group, "arm": f"{arm}-{first}", "kind": "gain", **_gains(values[arm], values[first])} for arm in others]
    frame = pd.DataFrame(rows)
    caption = f"{settings.title or 'Effect of checkpoint selection'} (average of {len(settings.benchmarks)} benchmarks, %)"
    heads, notes = [*TITLES.values(), "Luck"], missing_note(settings) + _notes(frame, settings)
    blocks = [_block(block, settings) for _, block in frame.groupby(["model", "dataset"], sort=False)]
    above = one_seed(settings)
    return Table(
        frame, markdown(caption, heads, blocks, notes, above), latex(caption, heads, blocks, notes, settings.item, above)
    )


def _values(of_arm: pd.DataFrame, settings: ReportSettings) -> ByChoice:
    runs = [run for _, run in of_arm.groupby("seed", sort=False)]
    values: ByChoice = {}
    for how in TITLES:
        tables = per_problem(pd.concat([chosen(run, how) for run in runs]))
        values[how] = {benchmark: tables[benchmark] for benchmark in settings.benchmarks}
    return values


def _scores(values: ByChoice) -> dict[str, float]:
    cells: dict[str, pd.DataFrame] = {how: interval(tables) for how, tables in values.items()}
    return _row({**cells, LUCK: interval(_luck(values), GAIN_BOUNDS)})


def _gains(values: ByChoice, reference: ByChoice) -> dict[str, float]:
    cells: dict[str, pd.DataFrame] = {how: paired_gain(values[how], reference[how]) for how in TITLES}
    return _row({**cells, LUCK: paired_gain(_luck(values), _luck(reference))})


def _luck(values: ByChoice) -> Values:
    return differences(values["best_on_benchmarks"], values["best_on_other_folds"])


def _row(cells: dict[str, pd.DataFrame]) -> dict[str, float]:
    parts = (("", "mean"), ("_low", "low"), ("_high", "high"))
    return {f"{name}{suffix}": 100 * cell.loc[AVERAGE, part] for name, cell in cells.items() for suffix, part in parts}


def _block(rows: pd.DataFrame, settings: ReportSettings) -> Block:
    of_group, first = rows.iloc[0], next(iter(settings.arms))
    titles = settings.arms | {f"{arm}-{first}": f"{title} - {settings.arms[first]}" for arm, title in settings.arms.items()}

    def cells(row: pd.Series) -> list[Cell | str]:
        return [Cell.of(row, column, signed=column == LUCK or row["kind"] == "gain") for column in (*TITLES, LUCK)]

    scores, gains = (
        [(titles[row["arm"]], cells(row)) for _, row in rows[rows["kind"] == kind].iterrows()] for kind in ("score", "gain")
    )
    absent = missing_rows(settings, of_group["model"], of_group["dataset"])
    scores += [(arm, ["missing"] * (len(TITLES) + 1)) for arm in absent]
    return Block(f"{of_group['model']}, trained on {of_group['dataset']}", [*scores, *gains], rule_after=len(scores))


def _notes(frame: pd.DataFrame, settings: ReportSettings) -> list[str]:
    among = sorted({int(number) for number in frame["checkpoints"].dropna()})
    notes = [
        "Cells: mean [95% interval], as in the accuracy table. Problems and seeds are the same; only the checkpoint differs.",
        "Held-out rows belong to the training set. The two columns after it select, for each run, the best of "
        f"{' or '.join(map(str, among))} checkpoints by the average over the benchmarks: on all problems, which are also those "
        f"scored (the paper's selection); or on nine tenths of the problems, to score the remaining tenth, {FOLDS} times.",
        "Luck: the paper's selection minus the selection on other problems, in points, paired: the bias of selecting on the "
        "scored problems.",
    ]
    return [*notes, *seeds_fixed_beforehand(settings)]
