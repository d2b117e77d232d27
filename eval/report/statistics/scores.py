"""Scores (avg@k or pass@k) of each problem under each training seed, from the verdicts on single samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import special

AVERAGE = "average"
"""Key of the unweighted mean over benchmarks."""

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(number of correct samples, number of samples), both [problems] -> score [problems]."""
Values = dict[str, pd.DataFrame]
"""Benchmark -> score of each problem, [seeds, problems]."""


def avg_at_k(correct: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Fraction of a problem's samples that are correct (pass@1 estimated from all samples)."""
    return correct / samples


def pass_at_k(correct: np.ndarray, samples: np.ndarray, k: int) -> np.ndarray:
    """Unbiased estimate of pass@k, 1 - C(n-c, k) / C(n, k), for c correct of n samples (Chen et al., 2021, arXiv 2107.03374).

    Raises:
        ValueError: a problem has fewer than k samples.
    """
    if np.any(np.asarray(samples) < k):
        raise ValueError(f"pass@{k} needs at least {k} samples of each problem; one has {np.min(samples)}")
    return 1.0 - special.comb(np.subtract(samples, correct), k) / special.comb(samples, k)


def sample_variance(correct: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Unbiased variance of a single sample's correctness on a problem: p (1 - p) n / (n - 1); missing with one sample."""
    share = correct / samples
    return share * (1 - share) * samples / np.where(samples > 1, samples - 1, np.nan)


def per_problem(scores: pd.DataFrame, measure: Measure = avg_at_k) -> Values:
    """Benchmark -> score of each problem, [seeds, problems].

    Args:
        scores: one row per sample of one arm: seed, benchmark, problem_id, correct.

    Raises:
        ValueError: the seeds do not have the same problems.
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
