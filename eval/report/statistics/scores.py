"""Verdicts on single samples -> the score of each problem under each training seed: avg@k or pass@k."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import special

AVERAGE = "average"
"""Name of the unweighted mean over benchmarks."""

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(right answers, samples) of each problem -> its score."""
Values = dict[str, pd.DataFrame]
"""Benchmark -> score of each problem, [seeds, problems]."""


def avg_at_k(correct: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Share of right answers among a problem's samples: pass@1, estimated from all of them."""
    return correct / samples


def pass_at_k(correct: np.ndarray, samples: np.ndarray, k: int) -> np.ndarray:
    """Unbiased estimate of the chance that at least one of k samples is right: 1 - C(n-c, k) / C(n, k) (Chen et al., 2021).

    Raises:
        ValueError: a problem has fewer than k samples.
    """
    if np.any(np.asarray(samples) < k):
        raise ValueError(f"pass@{k} needs at least {k} samples of each problem; one has {np.min(samples)}")
    return 1.0 - special.comb(np.subtract(samples, correct), k) / special.comb(samples, k)


def sample_variance(correct: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Unbiased variance of a single sample's verdict on a problem: p (1 - p) n / (n - 1); missing with one sample."""
    share = correct / samples
    return share * (1 - share) * samples / np.where(samples > 1, samples - 1, np.nan)


def per_problem(scores: pd.DataFrame, measure: Measure = avg_at_k) -> Values:
    """Benchmark -> score of each problem, [seeds, problems].

    Args:
        scores: one row a sample of one arm: seed, benchmark, problem_id, correct.

    Raises:
        ValueError: not every seed has every problem.
    """
    counted = scores.groupby(["benchmark", "seed", "problem_id"], dropna=False, sort=True)["correct"].agg(["sum", "count"])
    tables = {}
    for benchmark, rows in counted.groupby("benchmark"):
        score = pd.Series(measure(rows["sum"].to_numpy(), rows["count"].to_numpy()), rows.index)
        table = score.droplevel("benchmark").unstack("problem_id")
        if table.size != len(rows):
            raise ValueError(f"{benchmark}: the seeds were not scored on the same problems")
        tables[str(benchmark)] = table
    return tables
