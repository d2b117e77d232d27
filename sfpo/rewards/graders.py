"""The graders by name. Training, validation and benchmark evaluation use the same ones."""

from __future__ import annotations

from sfpo.config import GraderName
from sfpo.rewards.code_tests import CodeGrader
from sfpo.rewards.math_answer import Grader

GRADERS = {"math": Grader, "code": CodeGrader}


def make_grader(name: GraderName, workers: int) -> Grader | CodeGrader:
    """A context manager with ``grade_all(responses, golds) -> list[Grade]``. Processes start when first needed.

    Args:
        workers: number of answers graded in parallel.
    """
    return GRADERS[name](workers)
