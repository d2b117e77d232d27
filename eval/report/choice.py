"""Checkpoint selection: which of a run's checkpoints is reported (``evaluate.checkpoint`` in params.yaml).

The paper reports the checkpoint with the highest average over the benchmarks, on those same benchmarks. The maximum of several
noisy averages is biased upward. ``best_on_other_folds`` avoids this bias by cross-validation: each tenth of the problems is
scored with the checkpoint that is best on the other nine tenths. Nine tenths, because a selection on fewer problems would be
worse than the paper's, and that difference would be mistaken for bias.
"""

from __future__ import annotations

import pandas as pd

from sfpo.config import CheckpointChoice
from sfpo.seeding import seed_of

FOLDS = 10


def chosen(scores: pd.DataFrame, how: CheckpointChoice) -> pd.DataFrame:
    """The scores of one run's selected checkpoint: each sample of each problem once.

    Args:
        scores: checkpoint, benchmark, problem_id, sample, correct; every checkpoint on the same problems.

    Raises:
        ValueError: the checkpoint that ``how`` selects was not scored, or no benchmark has two problems, so that there are no
            other folds.
    """
    if how in ("best", "last"):
        return _of(scores, how)
    among = scores[scores["checkpoint"] != "best"]
    if how == "best_on_benchmarks":
        return _of(among, best_average(among))
    fold = folds(among)
    if fold.nunique() < 2:
        raise ValueError("best_on_other_folds needs a benchmark with at least two problems, since it selects on other problems")
    return pd.concat([_of(among[fold == one], best_average(among[fold != one])) for one in sorted(set(fold))])


def best_average(scores: pd.DataFrame) -> str:
    """The checkpoint with the highest mean over benchmarks; ties go to the one that comes first in ``scores``."""
    means = scores.groupby(["checkpoint", "benchmark"], sort=False)["correct"].mean()
    return str(means.groupby("checkpoint", sort=False).mean().idxmax())


def folds(scores: pd.DataFrame) -> pd.Series:
    """[rows]: the fold (0 to FOLDS - 1) of each row's problem. Within a benchmark, fold sizes differ by at most one problem;
    the assignment is the same in every run and suite."""
    problems = scores[["benchmark", "problem_id"]].drop_duplicates()
    problems["draw"] = [seed_of("fold", *problem) for problem in problems.itertuples(index=False)]
    problems["fold"] = (problems.groupby("benchmark")["draw"].rank().astype(int) - 1) % FOLDS
    both = scores[["benchmark", "problem_id"]].merge(problems, how="left")
    return pd.Series(both["fold"].to_numpy(), index=scores.index)


def _of(scores: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    found = scores[scores["checkpoint"] == checkpoint]
    if not len(found):
        raise ValueError(f"checkpoint '{checkpoint}' was not scored; scored: {', '.join(scores['checkpoint'].unique())}")
    return found
