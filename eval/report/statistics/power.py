"""Power analysis: the sources of the uncertainty of a gain, and the seeds and samples needed to detect a gain of a given size.

The gain of one arm over another on a problem varies with the training seed (shared by all problems of a run), with the problem
(shared by all seeds), with their interaction, and with the samples. These four variances are estimated from a finished suite
(analysis of variance, as in ``intervals``; the sampling variance from the samples of each problem). They determine the standard
error of the average gain, and the power of the suite's test, for any number of seeds and of samples per benchmark.

A variance estimated from few seeds is itself uncertain, so results are ranges that contain the true value in 90% of suites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from eval.report.statistics.comparisons import differences
from eval.report.statistics.intervals import LEVEL, rest_variance, spread_of
from eval.report.statistics.scores import Values

POWER = 0.8
"""Required power of the two-sided test at 5%."""
RANGE = 0.9
"""Coverage of the range of the variance over seeds, and of what is derived from it."""
MOST_SEEDS = 200
"""Maximum number of seeds that is considered."""
MOST_SAMPLES = 1024


@dataclass(frozen=True)
class Components:
    """Variance components of the gain of one arm over another (in squared fractions); arrays are [benchmarks]."""

    seed: float
    """Variance over seeds of the gain averaged over benchmarks."""
    seed_low: float
    seed_high: float
    """Its 90% range."""
    problem: np.ndarray
    """Variance over problems of the gain, common to all seeds."""
    interaction: np.ndarray
    """Variance of the interaction of seed and problem."""
    sample: np.ndarray
    """Variance of a single sample, summed over both arms."""
    problems: np.ndarray
    samples: np.ndarray
    """Number of samples per problem and seed."""
    seeds: int

    def errors(self) -> dict[str, float]:
        """Source -> its standard error of the average gain, with the suite's numbers of seeds, problems and samples."""
        of_rest, of_samples = self._rest(self.interaction), self._rest(self.sample / self.samples)
        parts = {
            "seed": self.seed / self.seeds,
            "problem": self._rest(self.problem),
            "interaction": of_rest / self.seeds,
            "sample": of_samples / self.seeds,
        }
        return {source: float(np.sqrt(variance)) for source, variance in parts.items()}

    def power(self, gain: float, seeds: int, seed: float | None = None) -> float:
        """Power of the suite's test for a true average gain of ``gain`` (fraction) with ``seeds`` seeds.

        The test requires both Student's t over the seeds' averages and the test over problems and seeds to be significant; this
        is the smaller of their powers (noncentral t).

        Args:
            seeds: at least two.
            seed: variance over seeds; None: the measured one.
        """
        seed = self.seed if seed is None else seed
        noise = self._rest(self.interaction + self.sample / self.samples)
        of_seeds, of_problems = (seed + noise) / seeds, self._rest(self.problem)
        total = of_seeds + of_problems
        weight = of_seeds**2 / (seeds - 1) + (of_problems + noise / seeds) ** 2 / (self.problems.sum() - len(self.problems))
        freedom, shift = total**2 / weight, gain / np.sqrt(total)
        own = stats.nct.sf(stats.t.ppf((1 + LEVEL) / 2, freedom), freedom, shift)
        beyond = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * np.sqrt(of_seeds / total)  # the problems are the same for all seeds
        return float(min(own, stats.nct.sf(beyond, seeds - 1, shift)))

    def seeds_needed(self, gain: float, seed: float | None = None) -> int | None:
        """The smallest number of seeds that detects ``gain`` with 80% power; None if it exceeds ``MOST_SEEDS``."""
        if self.power(gain, MOST_SEEDS, seed) < POWER:
            return None
        low, high = 1, MOST_SEEDS  # invariant of the bisection: power(low) < POWER <= power(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.power(gain, middle, seed) >= POWER else (middle, high)
        return high

    def with_samples(self, samples: np.ndarray) -> Components:
        """The same components with other numbers of samples per problem, [benchmarks]."""
        return replace(self, samples=np.asarray(samples))

    def best_samples(self, completions: float) -> np.ndarray:
        """[benchmarks]: samples per problem that minimize the sampling variance of the average for ``completions`` per seed.

        Neyman allocation: k of a benchmark is proportional to the standard deviation of a sample divided by its number of
        problems.
        """
        weight = np.sqrt(self.sample) / self.problems
        share = completions * weight / (weight @ self.problems) if weight.any() else completions / self.problems.sum()
        return np.clip(np.round(np.broadcast_to(share, weight.shape)), 1, MOST_SAMPLES).astype(int)

    def _rest(self, variances: np.ndarray) -> float:
        """Variance of the average over benchmarks that results from these per-problem variances."""
        return float((variances / self.problems).sum() / len(self.problems) ** 2)


def components(
    values: Values, reference: Values, sampling: tuple[Values, Values], samples: Mapping[str, int], seed: float | None = None
) -> Components:
    """Estimate the variance components of the gain of one arm over another.

    Args:
        values, reference: scores (avg@k), benchmark -> [seeds, problems].
        sampling: for both arms, ``scores.sample_variance`` of each problem.
        samples: benchmark -> number of samples per problem; at least two.
        seed: assumed variance over seeds of the average gain; None: estimate it.

    Raises:
        ValueError: the arms cannot be paired; a benchmark has only one problem, or one sample per problem; or there is one
            training seed and ``seed`` is None.
    """
    tables = [table.to_numpy(float) for table in differences(values, reference).values()]
    counts, drawn = np.array([table.shape[1] for table in tables]), np.array([samples[name] for name in values])
    seeds = len(tables[0])
    if drawn.min() < 2 or counts.min() < 2:
        raise ValueError("every benchmark needs at least two problems, and two samples per problem, to estimate the variances")
    if seeds < 2 and seed is None:
        raise ValueError("the variance over seeds cannot be estimated from one training seed; assume one (--seed-sd)")
    sample = np.array([sum(float(arm[name].to_numpy().mean()) for arm in sampling) for name in values])
    of_problems = np.array([table.mean(axis=0).var(ddof=1) for table in tables])
    if seeds == 1:  # interaction and problem variance cannot be separated
        problem, interaction = np.maximum(of_problems - sample / drawn, 0), np.zeros(len(tables))
    else:
        rest = np.array([rest_variance(table) for table in tables])
        problem, interaction = np.maximum(of_problems - rest / seeds, 0), np.maximum(rest - sample / drawn, 0)
    found = Components(0.0, 0.0, 0.0, problem, interaction, sample, counts, drawn, seeds)
    if seed is not None:
        return replace(found, seed=seed, seed_low=seed, seed_high=seed)
    of_averages = np.mean([table.mean(axis=1) for table in tables], axis=0).var(ddof=1)
    noise = found._rest(interaction + sample / drawn)
    low, high = variance_range(seeds - 1)
    ends = [max(float(of_averages) * factor - noise, 0.0) for factor in (1.0, low, high)]
    return replace(found, seed=ends[0], seed_low=ends[1], seed_high=ends[2])


def variance_range(freedom: float) -> tuple[float, float]:
    """(low, high): 90% range of true variance / estimated variance, for an estimate with ``freedom`` degrees of freedom."""
    low, high = (float(freedom / stats.chi2.ppf(q, freedom)) for q in ((1 + RANGE) / 2, (1 - RANGE) / 2))
    return low, high


def detectable_gain(values: Values, reference: Values) -> tuple[float, float]:
    """(low, high): 90% range of the smallest average gain (fraction) that this suite detects with 80% power; NaN with one seed.

    (t of 97.5% + t of 80%) * standard error, for the part of the suite's test with the wider interval. It is a range, because
    the standard error is only an estimate: with three seeds, its ends differ by a factor of 7.6.

    Raises:
        ValueError: the two cannot be paired.
    """
    spread = spread_of([table.to_numpy(float) for table in differences(values, reference).values()])
    if spread.seeds < 2 or np.isnan(spread.error[-1]):
        return np.nan, np.nan
    parts = [(spread.error[-1], spread.freedom[-1]), (spread.seed_error[-1], spread.seeds - 1)]
    sizes = [
        error * (stats.t.ppf((1 + LEVEL) / 2, freedom) + stats.t.ppf(POWER, freedom)) * np.sqrt(variance_range(freedom))
        for error, freedom in parts
        if np.isfinite(freedom)
    ]
    low, high = max(sizes, key=lambda ends: ends[1]) if sizes else (np.nan, np.nan)
    return float(low), float(high)
