"""Reads the results of finished jobs into tidy tables.

Accuracies are fractions (0 to 1) here; tables and figures show percent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from eval.report.choice import chosen
from eval.report.kinds import find_kind
from sfpo.settings import ReportSettings, RunId

BASE = "base"
"""Value of column ``arm`` for the untrained model."""
METRICS = [
    *["step", "reward", "response_length", "entropy", "rollouts", "backward_passes", "peak_memory_mb"],
    *["seconds_total", "seconds_update"],
]
VALIDATION = ["step", "accuracy", "pass_at_k", "rollouts", "backward_passes", "seconds"]
SCORES = ["checkpoint", "benchmark", "problem_id", "sample", "correct"]

T = TypeVar("T")


class ReportError(ValueError):
    """A result is missing, corrupt or stale; the message names the file and the problem."""


@dataclass(frozen=True)
class Collected:
    """All results that an item shows. In every table the first columns are model, dataset, arm and seed."""

    scores: pd.DataFrame
    """checkpoint, benchmark, problem_id, sample, correct: one row per sample of the selected checkpoint, or of all checkpoints
    if the item's kind has ``all_checkpoints``. Empty if the item shows no benchmark scores. The untrained model has arm 'base',
    and dataset and seed are missing."""
    validation: pd.DataFrame
    """The lines of validation.jsonl: step (0 = before training), accuracy, pass_at_k, rollouts, backward_passes, seconds."""
    metrics: pd.DataFrame
    """The lines of metrics.jsonl, one row per step; its nested seconds become seconds_<phase>, ``updates`` is a list of
    dicts."""
    summaries: pd.DataFrame
    """The summary.json of each run, one row per run; trigger_fired_at is a step, or missing if it did not fire."""


def collect(settings: ReportSettings, root: Path = Path(".")) -> Collected:
    """Read the results of every run that an item shows, and those of the untrained models.

    Args:
        settings: lists the item's runs and benchmarks.
        root: folder that contains runs/ and evaluations/.

    Raises:
        ReportError: a file is missing or corrupt, or its content does not match ``settings``; the message names it.
    """
    runs = root / "runs"
    return Collected(
        scores=(
            pd.concat(list(_all_scores(settings, root / "evaluations")), ignore_index=True)
            if settings.scored
            else pd.DataFrame(columns=SCORES)
        ),
        validation=_of_runs(settings, lambda run: _steps(runs / run.path / "validation.jsonl", VALIDATION)),
        metrics=_of_runs(settings, lambda run: _steps(runs / run.path / "metrics.jsonl", METRICS)),
        summaries=_of_runs(settings, lambda run: _summary(runs / run.path / "summary.json")).astype(
            {"trigger_fired_at": "Int64"}
        ),
    )


def _all_scores(settings: ReportSettings, evaluations: Path) -> Iterator[pd.DataFrame]:
    """For each model, the scores of the untrained model, then those of its runs; checks that all have the same problems."""
    kinds = {"dataset": "string", "seed": "Int64"}
    for model in settings.models:
        base_path = evaluations.parent / settings.base[model] / "scores.parquet"
        base = _scores(base_path, settings)
        keys = {"model": model, "dataset": None, "arm": BASE, "seed": None}
        yield pd.DataFrame(keys, index=base.index).astype(kinds).join(base)
        for run in (run for run in settings.runs if run.model == model):
            path = evaluations / run.path / "scores.parquet"
            frame = _scores(path, settings)
            other = _problems(base) ^ _problems(frame)
            if other:
                raise ReportError(f"{path}: not the same problems as in {base_path}; {len(other)} differ, such as {min(other)}")
            shown = (
                frame if find_kind(settings.shows).all_checkpoints else read(path, partial(chosen, frame, settings.checkpoint))
            )
            yield _of_run(run, shown).astype(kinds)


def _problems(frame: pd.DataFrame) -> set[str]:
    return set(frame["benchmark"] + " " + frame["problem_id"].astype(str))


def _of_run(run: RunId, frame: pd.DataFrame) -> pd.DataFrame:
    keys = {"model": run.model, "dataset": run.dataset, "arm": run.arm, "seed": run.seed}
    return pd.DataFrame(keys, index=frame.index).join(frame)


def _of_runs(settings: ReportSettings, read_one: Callable[[RunId], pd.DataFrame]) -> pd.DataFrame:
    frames = [_of_run(run, read_one(run)) for run in settings.runs]
    columns = list(dict.fromkeys(column for frame in frames for column in frame))
    # A column that is empty in one run must not determine the dtype of the concatenated column.
    return pd.concat([frame.dropna(axis=1, how="all") for frame in frames], ignore_index=True).reindex(columns=columns)


def _scores(path: Path, settings: ReportSettings) -> pd.DataFrame:
    """One row per sample; checks that every problem of every benchmark has the suite's number of samples."""
    frame = read(path, lambda: pd.read_parquet(path, columns=SCORES))
    if frame["correct"].dtype != bool:
        raise ReportError(f"{path}: column correct must be boolean; its type is {frame['correct'].dtype}")
    frame = frame[frame["benchmark"].isin(list(settings.benchmarks))]
    missing = [name for name in settings.benchmarks if name not in set(frame["benchmark"])]
    if missing:
        raise ReportError(f"{path}: no scores for {', '.join(missing)}")
    drawn = frame.groupby(["checkpoint", "benchmark", "problem_id"])["sample"].agg(["nunique", "size"])
    asked = drawn.index.get_level_values("benchmark").map(settings.samples)
    wrong = (drawn["nunique"] != asked) | (drawn["size"] != asked)
    if wrong.any():
        checkpoint, benchmark, problem = wrong.idxmax()
        rows, number = drawn.loc[(checkpoint, benchmark, problem), ["size", "nunique"]]
        raise ReportError(
            f"{path}: {benchmark} must have {settings.samples[benchmark]} samples per problem with different numbers; "
            f"{problem} has {rows} rows with {number} different numbers (checkpoint {checkpoint})"
        )
    checkpoints, problems = frame["checkpoint"].nunique(), len(frame.drop_duplicates(["benchmark", "problem_id"]))
    if len(drawn) != checkpoints * problems:
        raise ReportError(f"{path}: its {checkpoints} checkpoints were not scored on the same problems")
    return frame


def _steps(path: Path, columns: list[str]) -> pd.DataFrame:
    """A .jsonl file with one line per step; the entries of nested dicts become columns <key>_<entry>."""
    frame = pd.json_normalize(read(path, lambda: _json_lines(path)), sep="_")
    absent = [column for column in columns if column not in frame]
    if absent:
        raise ReportError(f"{path}: " + (f"no line has the key {', '.join(absent)}" if len(frame) else "the file is empty"))
    if not (frame["step"].is_monotonic_increasing and frame["step"].is_unique):
        raise ReportError(f"{path}: steps must increase from line to line")
    holes = frame[columns].isna().any(axis=1)
    if holes.any():
        raise ReportError(f"{path}: line {holes.idxmax() + 1} has no value for at least one of {', '.join(columns)}")
    return frame


def recorded_step(folder: Path) -> dict[str, Any]:
    """The results.json of eval.record_step in ``folder``.

    Raises:
        ReportError: it is missing or corrupt.
    """
    path = folder / "results.json"
    content = read(path, lambda: json.loads(path.read_text()))
    if not isinstance(content, dict) or not {"arms", "grid", "share_in_plane"} <= content.keys():
        raise ReportError(f"{path}: is not a recorded step (needs the keys arms, grid and share_in_plane)")
    return content


def _summary(path: Path) -> pd.DataFrame:
    content = read(path, lambda: json.loads(path.read_text()))
    if not isinstance(content, dict) or "trigger_fired_at" not in content:
        raise ReportError(f"{path}: has no key trigger_fired_at")
    return pd.DataFrame([content])


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        row = json.loads(line) if line.startswith("{") else None
        if row is None:
            raise ValueError(f"line {number} is not a JSON object")
        rows.append(row)
    return rows


def read(path: Path, reader: Callable[[], T]) -> T:
    """Call ``reader``; turn its errors into one that names the file.

    Raises:
        ReportError: the file is missing or corrupt.
    """
    try:
        return reader()
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; the job that writes it has not finished") from None
    except (OSError, ValueError) as error:  # truncated JSON, corrupt parquet, missing column
        raise ReportError(f"{path}: cannot be read ({error})") from error
