"""The graders by name: what training, validation and the benchmarks ask for verdicts."""

from __future__ import annotations

from sfpo.config import GraderName
from sfpo.rewards.code_tests import CodeGrader
from sfpo.rewards.math_answer import Grader

GRADERS = {"math": Grader, "code": CodeGrader}


def make_grader(name: GraderName, workers: int) -> Grader | CodeGrader:
    """A context manager with ``grade_all(responses, golds) -> list[Grade]``; no process starts before the first answer.

    Args:
        workers: answers graded at once.
    """
    return GRADERS[name](workers)
