"""The grader on pairs that were written without sight of its other pairs, and on answers that must be quick."""

import pytest
from fresh_pairs import ANSWERS, COMPLETIONS, MANY, REJECTED_THOUGH_RIGHT

from sfpo.rewards.math_answer import Grader


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=2) as one:
        yield one


def box(answer: str) -> str:
    return rf"\boxed{{{answer}}}"


def misjudged(grader, cases):
    grades = grader.grade_all([response for response, _, _ in cases], [gold for _, gold, _ in cases])
    return [case for case, one in zip(cases, grades, strict=True) if one.correct != case[2] or one.timed_out]


def test_every_boxed_answer_is_judged_rightly(grader):
    cases = [(box(answer), gold, True) for gold, right, _ in ANSWERS for answer in right]
    cases += [(box(answer), gold, False) for gold, _, wrong in ANSWERS for answer in wrong]
    assert len(cases) > 1_100
    assert misjudged(grader, cases) == []


def test_every_answer_to_several_golds_is_judged_rightly(grader):
    cases = [(answer, golds, True) for golds, right, _ in MANY for answer in right]
    cases += [(answer, golds, False) for golds, _, wrong in MANY for answer in wrong]
    assert misjudged(grader, cases) == []


def test_every_completion_is_judged_rightly(grader):
    assert misjudged(grader, [(response, gold, right) for gold, response, right in COMPLETIONS]) == []


def test_what_is_rejected_though_right_is_this(grader):
    assert misjudged(grader, [(box(answer), gold, False) for gold, answer in REJECTED_THOUGH_RIGHT]) == []
