"""Which of a run's checkpoints is scored, by each of the ways to choose that params.yaml knows (``evaluate.checkpoint``).

The paper reports the checkpoint with the best average over the benchmarks on which it is reported. The best of several noisy
averages is too high by what it owes to luck; a choice on other rows owes none of its score to that. It is made on nine tenths
of the problems, nearly as many as the paper's: on half of them it would choose worse, and that would be taken for luck.
"""

from __future__ import annotations

import pandas as pd

from sfpo.config import CheckpointChoice
from sfpo.seeding import seed_of

FOLDS = 10


def chosen(scores: pd.DataFrame, how: CheckpointChoice) -> pd.DataFrame:
    """The rows of one run that count: each sample of each problem once.

    Args:
        scores: checkpoint, benchmark, problem_id, sample, correct; every checkpoint on the same problems.

    Raises:
        ValueError: the checkpoint that ``how`` asks for was not scored, or no benchmark has two problems to choose and score
    on."""
    if how in ("best", "last"):
        return _of(scores, how)
    among = scores[scores["checkpoint"] != "best"]
    if how == "best_on_benchmarks":
        return _of(among, best_average(among))
    fold = folds(among)
    if fold.nunique() < 2:
        raise ValueError("best_on_other_folds needs a benchmark with two problems or more: there is nothing else to choose on")
    return pd.concat([_of(among[fold == one], best_average(among[fold != one])) for one in sorted(set(fold))])


def best_average(scores: pd.DataFrame) -> str:
    """The checkpoint with the highest mean over benchmarks; of equals the earliest in the rows."""
    means = scores.groupby(["checkpoint", "benchmark"], sort=False)["correct"].mean()
    return str(means.groupby("checkpoint", sort=False).mean().idxmax())


def folds(scores: pd.DataFrame) -> pd.Series:
    """[rows]: the fold of each row's problem, 0 to FOLDS - 1, each with as many of a benchmark's problems as the next or one
    more; the same in every run and suite."""
    problems = scores[["benchmark", "problem_id"]].drop_duplicates()
    problems["draw"] = [seed_of("fold", *problem) for problem in problems.itertuples(index=False)]
    problems["fold"] = (problems.groupby("benchmark")["draw"].rank().astype(int) - 1) % FOLDS
    both = scores[["benchmark", "problem_id"]].merge(problems, how="left")
    return pd.Series(both["fold"].to_numpy(), index=scores.index)


def _of(scores: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    found = scores[scores["checkpoint"] == checkpoint]
    if not len(found):
        raise ValueError(f"checkpoint '{checkpoint}' was not scored; scored are: {', '.join(scores['checkpoint'].unique())}")
    return found
