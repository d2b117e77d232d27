"""Which checkpoint counts, by every way to choose, worked out by hand."""

from typing import get_args

import pandas as pd
import pytest

from eval.report.choice import best_average, chosen, in_first_half
from eval.report.selection import TITLES
from sfpo.config import CheckpointChoice

PROBLEMS = [f"{benchmark}/{number}" for benchmark in ("amc", "aime") for number in range(4)]
FIRST = in_first_half(pd.DataFrame({"benchmark": [p.split("/")[0] for p in PROBLEMS], "problem_id": PROBLEMS}))


def run(answers: dict[str, list[bool]]) -> pd.DataFrame:
    """{checkpoint: [right or wrong of amc/0..3, aime/0..3]}, one sample each."""
    rows = [
        (checkpoint, problem.split("/")[0], problem, 0, right)
        for checkpoint, verdicts in answers.items()
        for problem, right in zip(PROBLEMS, verdicts, strict=True)
    ]
    return pd.DataFrame(rows, columns=["checkpoint", "benchmark", "problem_id", "sample", "correct"])


# step_1 knows the first half of each benchmark and nothing else, last knows one problem more of the second half than that.
HALVES = run(
    {
        "best": [False] * 8,
        "step_1": list(FIRST),
        "last": [not first and problem != "amc/3" for first, problem in zip(FIRST, PROBLEMS, strict=True)],
    }
)


def test_the_halves_are_halves_of_each_benchmark_and_the_same_for_every_run():
    halves = pd.DataFrame({"benchmark": [p.split("/")[0] for p in PROBLEMS], "first": FIRST})
    assert halves.groupby("benchmark")["first"].sum().to_dict() == {"amc": 2, "aime": 2}
    by_problem = dict(zip(PROBLEMS, FIRST, strict=True))
    shuffled = HALVES.sample(frac=1, random_state=0)
    assert [by_problem[problem] for problem in shuffled["problem_id"]] == list(in_first_half(shuffled))
    odd = pd.DataFrame({"benchmark": "amc", "problem_id": ["amc/0", "amc/1", "amc/2"]})
    assert in_first_half(odd).sum() == 2


def test_best_and_last_are_those_of_training():
    assert set(chosen(HALVES, "best")["checkpoint"]) == {"best"}
    assert set(chosen(HALVES, "last")["checkpoint"]) == {"last"}


def test_the_best_on_the_benchmarks_has_the_highest_mean_over_benchmarks():
    # step_1: 2 of 4 in each: 50%. last: 2 of 4 of aime, and of amc 2, or 1 where amc/3 is in the second half: at most 50%.
    assert best_average(HALVES[HALVES["checkpoint"] != "best"]) == "step_1"  # of equals the earlier
    # Benchmarks weigh equally whatever their size: 1 of 1 and 0 of 3 is 50%, 0 of 1 and 2 of 3 is 33%.
    rows = [("a", "amc", 0, True), ("b", "amc", 0, False), *(("a", "aime", n, False) for n in range(3))]
    rows += [("b", "aime", n, n > 0) for n in range(3)]
    assert best_average(pd.DataFrame(rows, columns=["checkpoint", "benchmark", "problem_id", "correct"])) == "a"
    assert set(chosen(HALVES, "best_on_benchmarks")["checkpoint"]) == {"step_1"}


def test_the_other_half_is_scored_by_what_was_chosen_without_it():
    scored = chosen(HALVES, "best_on_other_half")
    # Chosen on the first half: step_1, which knows nothing of the second; chosen on the second: last, which knows nothing of
    # the first. So every answer is wrong, where the choice on all problems shows 50%.
    assert not scored["correct"].any() and sorted(scored["problem_id"]) == sorted(PROBLEMS)
    by_problem = dict(zip(PROBLEMS, FIRST, strict=True))
    assert all(row.checkpoint == ("last" if by_problem[row.problem_id] else "step_1") for row in scored.itertuples())


def test_a_checkpoint_that_was_not_scored_is_named():
    with pytest.raises(ValueError, match="checkpoint 'best' was not scored; scored are: last"):
        chosen(HALVES[HALVES["checkpoint"] == "last"], "best")


def test_every_way_to_choose_has_a_column():
    assert set(TITLES) == set(get_args(CheckpointChoice))
