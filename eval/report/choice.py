"""Which of a run's checkpoints is scored, by each of the ways to choose that params.yaml knows (``evaluate.checkpoint``).

The paper reports the checkpoint with the best average over the benchmarks on which it is reported. The best of several noisy
averages is too high by what it owes to luck; a choice on other rows owes none of its score to that.
"""

from __future__ import annotations

import pandas as pd

from sfpo.config import CheckpointChoice
from sfpo.seeding import seed_of


def chosen(scores: pd.DataFrame, how: CheckpointChoice) -> pd.DataFrame:
    """The rows of one run that count: each sample of each problem once.

    Args:
        scores: checkpoint, benchmark, problem_id, sample, correct; every checkpoint on the same problems.

    Raises:
        ValueError: the checkpoint that ``how`` asks for was not scored.
    """
    if how in ("best", "last"):
        return _of(scores, how)
    among = scores[scores["checkpoint"] != "best"]
    if how == "best_on_benchmarks":
        return _of(among, best_average(among))
    first_half = in_first_half(among)
    halves = [(first_half, ~first_half), (~first_half, first_half)]
    return pd.concat([_of(among[scored], best_average(among[choosing])) for choosing, scored in halves])


def best_average(scores: pd.DataFrame) -> str:
    """The checkpoint with the highest mean over benchmarks; of equals the earliest in the rows."""
    means = scores.groupby(["checkpoint", "benchmark"], sort=False)["correct"].mean()
    return str(means.groupby("checkpoint", sort=False).mean().idxmax())


def in_first_half(scores: pd.DataFrame) -> pd.Series:
    """[rows], bool: half of each benchmark's problems (one more, where they are odd), the same in every run and suite."""
    problems = scores[["benchmark", "problem_id"]].drop_duplicates()
    problems["draw"] = [seed_of("half", *problem) for problem in problems.itertuples(index=False)]
    place = problems.groupby("benchmark")["draw"].rank()
    problems["first"] = place <= (place.groupby(problems["benchmark"]).transform("max") + 1) // 2
    both = scores[["benchmark", "problem_id"]].merge(problems, how="left")
    return pd.Series(both["first"].to_numpy(), index=scores.index)


def _of(scores: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    found = scores[scores["checkpoint"] == checkpoint]
    if not len(found):
        raise ValueError(f"checkpoint '{checkpoint}' was not scored; scored are: {', '.join(scores['checkpoint'].unique())}")
    return found
