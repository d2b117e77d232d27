"""Where the uncertainty of a gain comes from, and what it takes to find a smaller one.

The gain of one arm over another on a problem varies with the training seed (the same for all problems of a run), with the
problem (the same for all seeds), with both together, and with the samples. The four variances are estimated from a finished
suite (analysis of variance, as in ``intervals``; that of samples from the samples of each problem). From them follow the error
of the average gain for any number of seeds and any number of samples of each benchmark, and the power of the suite's own test.

A spread over few seeds is uncertain itself. So every answer is a range: it holds the truth in 90% of suites.
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
"""Chance with which a gain is to be found, two-sided at 5%."""
RANGE = 0.9
"""Share of suites in which a range of a spread, and of what follows from it, holds the truth."""
MOST_SEEDS = 200
"""Where more would be needed, none is named."""
MOST_SAMPLES = 1024


@dataclass(frozen=True)
class Components:
    """Variances of the gain of one arm over another (shares squared); arrays are [benchmarks]."""

    seed: float
    """Of the average over benchmarks, from seed to seed."""
    seed_low: float
    seed_high: float
    """Ends of its range."""
    problem: np.ndarray
    """Of problems' gains, the same in every seed."""
    interaction: np.ndarray
    """Of what seed and problem have together."""
    sample: np.ndarray
    """Of one sample, both arms'."""
    problems: np.ndarray
    samples: np.ndarray
    """Of each problem and seed."""
    seeds: int

    def errors(self) -> dict[str, float]:
        """Standard errors of the average gain from each source, with the seeds, problems and samples at hand."""
        of_rest, of_samples = self._rest(self.interaction), self._rest(self.sample / self.samples)
        parts = {
            "seed": self.seed / self.seeds,
            "problem": self._rest(self.problem),
            "interaction": of_rest / self.seeds,
            "sample": of_samples / self.seeds,
        }
        return {source: float(np.sqrt(variance)) for source, variance in parts.items()}

    def power(self, gain: float, seeds: int, seed: float | None = None) -> float:
        """Chance that the suite's test tells ``gain`` (share, on average over benchmarks) from zero with so many seeds.

        The smaller of its two parts' powers (noncentral t): Student's over the seeds' averages, and that of problems and seeds
        together.

        Args:
            seeds: two or more.
            seed: the variance over seeds; None: as measured.
        """
        seed = self.seed if seed is None else seed
        noise = self._rest(self.interaction + self.sample / self.samples)
        of_seeds, of_problems = (seed + noise) / seeds, self._rest(self.problem)
        total = of_seeds + of_problems
        weight = of_seeds**2 / (seeds - 1) + (of_problems + noise / seeds) ** 2 / (self.problems.sum() - len(self.problems))
        freedom, shift = total**2 / weight, gain / np.sqrt(total)
        own = stats.nct.sf(stats.t.ppf((1 + LEVEL) / 2, freedom), freedom, shift)
        beyond = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * np.sqrt(of_seeds / total)  # problems add no spread to the averages
        return float(min(own, stats.nct.sf(beyond, seeds - 1, shift)))

    def seeds_needed(self, gain: float, seed: float | None = None) -> int | None:
        """The least number of seeds that finds ``gain`` with 80%; None: more than ``MOST_SEEDS``."""
        if self.power(gain, MOST_SEEDS, seed) < POWER:
            return None
        low, high = 1, MOST_SEEDS  # power(low) is too little, power(high) enough
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.power(gain, middle, seed) >= POWER else (middle, high)
        return high

    def with_samples(self, samples: np.ndarray) -> Components:
        """The same gain measured with other numbers of samples, [benchmarks]."""
        return replace(self, samples=np.asarray(samples))

    def best_samples(self, completions: float) -> np.ndarray:
        """Samples of each problem of each benchmark that make the average's sampling variance least at ``completions`` a seed.

        Neyman's allocation: k of a benchmark in proportion to the standard deviation of a sample over its number of problems.
        """
        weight = np.sqrt(self.sample) / self.problems
        share = completions * weight / (weight @ self.problems) if weight.any() else completions / self.problems.sum()
        return np.clip(np.round(np.broadcast_to(share, weight.shape)), 1, MOST_SAMPLES).astype(int)

    def _rest(self, variances: np.ndarray) -> float:
        """Of the average over benchmarks, from independent problems."""
        return float((variances / self.problems).sum() / len(self.problems) ** 2)


def components(
    values: Values, reference: Values, sampling: tuple[Values, Values], samples: Mapping[str, int], seed: float | None = None
) -> Components:
    """The variances of the gain of one arm over another.

    Args:
        values, reference: scores (avg@k), benchmark -> [seeds, problems].
        sampling: of both arms, ``scores.sample_variance`` of each problem.
        samples: benchmark -> samples of each problem; two or more.
        seed: variance over seeds of the average gain, where it is assumed and not measured.

    Raises:
        ValueError: the arms cannot be paired; a benchmark has one sample a problem or one problem; there is one seed and no
            ``seed``.
    """
    tables = [table.to_numpy(float) for table in differences(values, reference).values()]
    counts, drawn = np.array([table.shape[1] for table in tables]), np.array([samples[name] for name in values])
    seeds = len(tables[0])
    if drawn.min() < 2 or counts.min() < 2:
        raise ValueError("variances of samples and of problems need two samples of a problem and two problems of a benchmark")
    if seeds < 2 and seed is None:
        raise ValueError("one training seed shows no variance over seeds: assume one")
    sample = np.array([sum(float(arm[name].to_numpy().mean()) for arm in sampling) for name in values])
    of_problems = np.array([table.mean(axis=0).var(ddof=1) for table in tables])
    if seeds == 1:  # what a problem and a seed have together cannot be told from the problem's own
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
    """(low, high): the true variance over an estimate of so many degrees of freedom lies between in 90% of cases."""
    low, high = (float(freedom / stats.chi2.ppf(q, freedom)) for q in ((1 + RANGE) / 2, (1 - RANGE) / 2))
    return low, high


def detectable_gain(values: Values, reference: Values) -> tuple[float, float]:
    """Between which sizes the least average gain lies that such a suite finds with 80% (shares); missing with one seed.

    (t of 97.5% + t of 80%) * standard error, of the wider part of the suite's test. The standard error is known by its degrees
    of freedom alone, so this is a range: with three seeds its ends are 7.6 times apart.

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
