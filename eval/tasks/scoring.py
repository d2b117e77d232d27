"""Functions that the lm-eval task files refer to: they load the prepared problems, and grade with the training graders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import datasets

from sfpo.config import GraderName
from sfpo.data.prompts import user_turn
from sfpo.rewards.graders import make_grader

_graders = {name: make_grader(name, workers=len(os.sched_getaffinity(0))) for name in get_args(GraderName)}


def problems(
    problems: dict[str, str],
    graders: dict[str, str],
    instruction: str,
    benchmark: str,
    instructions: dict[str, str] | None = None,
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """The prepared problems of one benchmark, with columns ``prompt`` (the user turn, as in training) and ``grader``.

    Args:
        problems: benchmark -> its parquet file (from the task manager's metadata, like ``graders`` and ``instruction``).
        graders: benchmark -> name of its grader.
        instruction: text of the user turn, in which ``{problem}`` is replaced.
        benchmark: set in the task's YAML file.
        instructions: benchmark -> its own instruction, which replaces ``instruction``.
    """
    table = datasets.Dataset.from_parquet(problems[benchmark])
    grader, words = graders[benchmark], (instructions or {}).get(benchmark, instruction)
    return {"test": table.map(lambda row: {"prompt": user_turn(words, row["problem"]), "grader": grader})}


def every_sample(responses: Iterable[list[str]], docs: Sequence[dict[str, Any]]) -> Iterable[list[str]]:
    """Pass all repeats of each problem to ``process_results`` (lm-eval's default filter keeps only the first)."""
    return responses


def process_results(doc: dict[str, Any], results: list[list[str]]) -> dict[str, Any]:
    """Grade the k completions of one problem: avg@k, pass@k, the fraction that timed out, and each verdict."""
    completions = results[0]
    grades = _graders[doc["grader"]].grade_all(completions, [doc["answer"]] * len(completions))
    correct = [grade.correct for grade in grades]
    return {
        "avg_at_k": sum(correct) / len(correct),
        "pass_at_k": float(any(correct)),
        "timed_out": sum(grade.timed_out for grade in grades) / len(grades),
        "correct": correct,
    }


def share(verdicts: Sequence[list[bool]]) -> float:
    """lm-eval's aggregation of ``correct``: the fraction of correct completions over all problems."""
    flat = [verdict for of_problem in verdicts for verdict in of_problem]
    return sum(flat) / len(flat)
