"""Which checkpoint counts, by every way to choose, worked out by hand."""

from typing import get_args

import pandas as pd
import pytest

from eval.report.choice import FOLDS, best_average, chosen, folds
from eval.report.selection import TITLES
from sfpo.config import CheckpointChoice

PROBLEMS = [f"{benchmark}/{number}" for benchmark in ("amc", "aime") for number in range(20)]
FOLD = folds(pd.DataFrame({"benchmark": [p.split("/")[0] for p in PROBLEMS], "problem_id": PROBLEMS}))
FIRST = FOLD == 0


def run(answers: dict[str, list[bool]]) -> pd.DataFrame:
    """{checkpoint: [right or wrong of amc/0..19, aime/0..19]}, one sample each."""
    rows = [
        (checkpoint, problem.split("/")[0], problem, 0, right)
        for checkpoint, verdicts in answers.items()
        for problem, right in zip(PROBLEMS, verdicts, strict=True)
    ]
    return pd.DataFrame(rows, columns=["checkpoint", "benchmark", "problem_id", "sample", "correct"])


REST = [problem for problem, first in zip(PROBLEMS, FIRST, strict=True) if not first]  # 18 of amc, then 18 of aime
# step_1 knows the first fold, two problems of each benchmark, and one more of each; last knows two of the rest of each.
CHECKPOINTS = run(
    {
        "best": [False] * 40,
        "step_1": [first or problem in (REST[0], REST[18]) for first, problem in zip(FIRST, PROBLEMS, strict=True)],
        "last": [problem in (*REST[1:3], *REST[19:21]) for problem in PROBLEMS],
    }
)


def test_folds_are_parts_of_each_benchmark_and_the_same_for_every_run():
    frame = pd.DataFrame({"benchmark": [p.split("/")[0] for p in PROBLEMS], "fold": FOLD})
    assert (frame.groupby(["benchmark", "fold"]).size() == 2).all() and set(FOLD) == set(range(FOLDS))
    by_problem = dict(zip(PROBLEMS, FOLD, strict=True))
    shuffled = CHECKPOINTS.sample(frac=1, random_state=0)
    assert [by_problem[problem] for problem in shuffled["problem_id"]] == list(folds(shuffled))
    odd = pd.DataFrame({"benchmark": "amc", "problem_id": [f"amc/{k}" for k in range(13)]})
    assert sorted(folds(odd).value_counts()) == [1] * 7 + [2] * 3


def test_best_and_last_are_those_of_training():
    assert set(chosen(CHECKPOINTS, "best")["checkpoint"]) == {"best"}
    assert set(chosen(CHECKPOINTS, "last")["checkpoint"]) == {"last"}


def test_the_best_on_the_benchmarks_has_the_highest_mean_over_benchmarks():
    assert best_average(CHECKPOINTS[CHECKPOINTS["checkpoint"] != "best"]) == "step_1"  # 3 of 20 in each; last: 2 of 20
    # Benchmarks weigh equally whatever their size: 1 of 1 and 0 of 3 is 50%, 0 of 1 and 2 of 3 is 33%.
    rows = [("a", "amc", 0, True), ("b", "amc", 0, False), *(("a", "aime", n, False) for n in range(3))]
    rows += [("b", "aime", n, n > 0) for n in range(3)]
    assert best_average(pd.DataFrame(rows, columns=["checkpoint", "benchmark", "problem_id", "correct"])) == "a"
    assert set(chosen(CHECKPOINTS, "best_on_benchmarks")["checkpoint"]) == {"step_1"}


def test_a_fold_is_scored_by_what_was_chosen_without_it():
    scored = chosen(CHECKPOINTS, "best_on_other_folds").set_index("problem_id")
    assert sorted(scored.index) == sorted(PROBLEMS)
    # Without the first fold step_1 knows 1 of 18 and last 2: its own fold is lost to it. Without any other, step_1 knows at
    # least 2 of 18 and last at most 2; equals go to the earlier.
    first = [problem for problem, is_first in zip(PROBLEMS, FIRST, strict=True) if is_first]
    assert set(scored.loc[first, "checkpoint"]) == {"last"} and set(scored.loc[REST, "checkpoint"]) == {"step_1"}
    assert scored["correct"].sum() == 2  # of the 6 that the choice on all problems shows


def test_a_single_fold_is_an_error():
    one = CHECKPOINTS[CHECKPOINTS["problem_id"] == "amc/0"]
    with pytest.raises(ValueError, match="at least two problems"):
        chosen(one, "best_on_other_folds")


def test_a_checkpoint_that_was_not_scored_is_named():
    with pytest.raises(ValueError, match="checkpoint 'best' was not scored; scored: last"):
        chosen(CHECKPOINTS[CHECKPOINTS["checkpoint"] == "last"], "best")


def test_every_way_to_choose_has_a_column():
    assert set(TITLES) == set(get_args(CheckpointChoice))
