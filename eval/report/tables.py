"""The accuracy tables (avg@k and pass@k) as data, Markdown and LaTeX. All numbers are in percent or percentage points."""

from __future__ import annotations

from functools import partial

import pandas as pd

from eval.report.accuracy import accuracy_frame
from eval.report.markup import DAGGER, Block, Cell, Table, latex, markdown
from eval.report.notes import one_seed, samples_text, seeds_fixed_beforehand
from eval.report.panels import FEW_ARMS
from eval.report.partial import missing_note, missing_rows
from eval.report.statistics.scores import AVERAGE, Measure, avg_at_k, pass_at_k
from eval.report.verdicts import arm_title, by_group, printed, verdicts
from sfpo.settings import ReportSettings

NONE_LEFT = "none left"
"""Cell text for a benchmark of which no problem is left (contamination tables)."""


def accuracy(scores: pd.DataFrame, settings: ReportSettings) -> Table:
    """Accuracy (avg@k) of the base model and of each arm on every benchmark, and the gains between them.

    Args:
        scores: as for ``accuracy_frame``. A benchmark of ``settings`` without scores is marked, and excluded from averages.

    Returns:
        The table; its frame is that of ``accuracy_frame``.
    """
    return _table(scores, settings, avg_at_k, f"avg@{samples_text(settings)}", settings.item)


def pass_at_least_once(scores: pd.DataFrame, settings: ReportSettings) -> Table:
    """Like ``accuracy``, for pass@k. k is the smallest number of samples of any benchmark."""
    k = min(settings.samples.values())
    return _table(scores, settings, partial(pass_at_k, k=k), f"pass@{k}", f"{settings.item}_pass_at_k")


def _table(scores: pd.DataFrame, settings: ReportSettings, measure: Measure, name: str, label: str) -> Table:
    scored = [benchmark for benchmark in settings.benchmarks if benchmark in set(scores["benchmark"])]
    frame = accuracy_frame(scores, settings, measure)
    heads = [
        title + (DAGGER if benchmark in settings.out_of_distribution else "")
        for benchmark, title in settings.benchmarks.items()
    ]
    blocks = [block for group, rows in by_group(frame) for block in _blocks(rows, settings, group)]
    count = len(heads) if len(scored) == len(heads) else f"{len(scored)} of {len(heads)}"
    caption = f"{settings.title or 'Accuracy'} ({name}, %) on {count} benchmarks, with 95% intervals"
    notes = missing_note(settings) + _none_left_note(scored, settings) + (_notes(frame, settings) if scored else [])
    heads, above = [*heads, "Average"], one_seed(settings) if scored else []
    return Table(frame, markdown(caption, heads, blocks, notes, above), latex(caption, heads, blocks, notes, label, above))


def _blocks(rows: pd.DataFrame, settings: ReportSettings, title: str) -> list[Block]:
    """One block of scores and gains; with many arms two blocks, so that each fits on a page."""
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
        return Cell.of(row, column, signed=row["kind"] == "gain", bold=column in row["best_in"].split())

    def cells(row: pd.Series) -> list[Cell | str]:
        return [cell(row, column) for column in (*settings.benchmarks, AVERAGE)]

    scores, gains = (
        [(arm_title(row["arm"], settings), cells(row)) for _, row in rows[rows["kind"] == kind].iterrows()]
        for kind in ("score", "gain")
    )
    of_group = rows.iloc[0]
    absent = missing_rows(settings, of_group["model"], of_group["dataset"]) if scores else []
    scores += [(arm, ["missing"] * (len(settings.benchmarks) + 1)) for arm in absent]
    return Block(title, [*scores, *gains], rule_after=len(scores) or len(gains))


def _none_left_note(scored: list[str], settings: ReportSettings) -> list[str]:
    """A note that lists the benchmarks without problems and those in the average; empty if all benchmarks have problems."""
    left_out = [title for benchmark, title in settings.benchmarks.items() if benchmark not in scored]
    if not left_out:
        return []
    averaged = ", ".join(settings.benchmarks[benchmark] for benchmark in scored)
    meaning = f"the average covers only {averaged}" if averaged else "there is no accuracy"
    return [f"NONE LEFT: no problem of {', '.join(left_out)} is left, so {meaning}."]


def _notes(frame: pd.DataFrame, settings: ReportSettings) -> list[str]:
    first = frame.iloc[0]
    notes = [
        f"Cells: mean [95% interval] over {first['problems']} problems with {_samples(settings)} each; the average weights "
        "benchmarks equally. Rows 'A - B': gain in points, paired on the same problems and seeds. Base: the untrained model.",
        *_interval_notes(settings),
        "If all problems of a cell have the same result (for example all wrong), its interval is the exact binomial bound for "
        "n equal results (rule of three: about 3/n).",
    ]
    if settings.out_of_distribution:
        notes.append(f"{DAGGER} Out of distribution: the training set has no problems of this kind.")
    return notes + verdicts(frame, settings)


def _samples(settings: ReportSettings) -> str:
    if (number := samples_text(settings)).isdigit():
        return f"{number} sample{'s' if number != '1' else ''}"
    return f"k samples (k: {', '.join(f'{settings.benchmarks[name]} {k}' for name, k in settings.samples.items())})"


def _interval_notes(settings: ReportSettings) -> list[str]:
    seeds, models = len(settings.seeds), len(settings.models)
    pooled = ["All models: gains averaged over seeds, their interval and p over models."] if models > 1 else []
    if seeds == 1:
        return ["Intervals: only over problems (analysis of variance, Student's t; Wilson's for accuracies).", *pooled]
    return [
        f"Intervals: over problems (within each benchmark) and the {seeds} training seeds together (analysis of variance, "
        "Student's t; Wilson's for accuracies), never narrower than Student's over the seeds' averages; the base has no seed.",
        *pooled,
        "Bold: the best of a column, if its lead over the second has p below 5% after Holm's correction for all columns. "
        "Intervals are not corrected for multiple comparisons.",
        *seeds_fixed_beforehand(settings),
    ]
