"""Means with 95% intervals that account for the problems and the training seeds together.

Scores of one arm form a table [seeds, problems] for each benchmark. Both seeds and problems are random samples, so the variance
of a mean has a component from each, and one from the residual of each cell (two-way analysis of variance with random effects;
Searle, Casella and McCulloch, "Variance Components", 1992). The interval is mean +- t * standard error, with Satterthwaite's
degrees of freedom. All benchmarks share the same seeds; each has its own problems.

- The interval is never narrower than Student's t interval of the seeds' averages: with few seeds that differ much,
  Satterthwaite's degrees of freedom are uncertain themselves, and p-values below 1% would be too small.
- Accuracies use Wilson's interval, with the number of trials for which the binomial standard error equals the measured one.
- If all problems of a benchmark have the same value in every seed (all wrong, or no difference between two arms), the variance
  is zero and the interval would have no width; the exact bound of ``agreed`` is used instead.

With one seed, the variance over seeds is unknown, and the interval covers only problems (see column n_seeds).
benchmarks/results/report_statistics.md has the coverage of these intervals in simulated suites.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from eval.report.statistics.scores import AVERAGE, Values

LEVEL = 0.95
SHARES = (0.0, 1.0)
ALIKE = 1e-9
"""Scores that differ by less are treated as equal, since means of equal scores may differ by rounding."""


@dataclass(frozen=True)
class Spread:
    """Standard errors of the mean of each benchmark and of their average: arrays [benchmarks + 1], NaN where unknown."""

    error: np.ndarray
    """Standard error from problems and seeds together."""
    freedom: np.ndarray
    """Degrees of freedom of ``error``."""
    seed_error: np.ndarray
    """Standard error of the mean of the seeds' averages, with seeds - 1 degrees of freedom; 0 with one seed."""
    seeds: int

    def reach(self, error: float) -> np.ndarray:
        """Half-width of a symmetric interval of confidence 1 - error."""
        own = stats.t.isf(error / 2, self.freedom) * self.error
        return own if self.seeds == 1 else np.maximum(own, stats.t.isf(error / 2, self.seeds - 1) * self.seed_error)

    def p_value(self, mean: np.ndarray) -> np.ndarray:
        """Two-sided p-value against zero: the error for which ``reach`` equals |mean|."""
        with np.errstate(divide="ignore", invalid="ignore"):
            own = 2 * stats.t.sf(np.abs(mean) / self.error, self.freedom)
            of_seeds = 2 * stats.t.sf(np.abs(mean) / self.seed_error, self.seeds - 1) if self.seeds > 1 else 0.0
        return np.maximum(own, np.nan_to_num(of_seeds))


def interval(values: Values, bounds: tuple[float, float] = SHARES) -> pd.DataFrame:
    """Mean of each benchmark, and of the average over benchmarks, with 95% intervals.

    Args:
        values: benchmark -> [seeds, problems].
        bounds: possible range of the values; intervals are clipped to it.

    Returns:
        One row per benchmark, in the order of ``values``, then ``average``; columns mean, low, high, n_seeds, problems. low and
        high are missing if a benchmark has a single problem.
    """
    tables = [table.to_numpy(float) for table in values.values()]
    problems = [table.shape[1] for table in tables]
    mean = means_of(tables)
    below, above = reaches(tables, spread_of(tables), bounds)
    return pd.DataFrame(
        {
            "mean": mean,
            "low": np.maximum(mean - below, bounds[0]),
            "high": np.minimum(mean + above, bounds[1]),
            "n_seeds": len(tables[0]),
            "problems": [*problems, sum(problems)],
        },
        index=columns_of(values),
    )


def columns_of(benchmarks: Iterable[str]) -> pd.Index:
    return pd.Index([*benchmarks, AVERAGE], name="benchmark")


def means_of(tables: list[np.ndarray]) -> np.ndarray:
    """[benchmarks + 1]: the mean of each table, then the average of these means."""
    means = np.array([table.mean() for table in tables])
    return np.append(means, means.mean())


def agreed(value: float, problems: int, bounds: tuple[float, float], error: float = 1 - LEVEL) -> tuple[float, float]:
    """How far below and above ``value`` the true mean may be, with confidence 1 - error, if all ``problems`` have that value.

    If a fraction q of all problems had other values, the probability that none of n sampled problems does is (1 - q)^n. So q
    above 1 - error^(1/n), about 3/n at 5%, is excluded (the rule of three). The other values may be anywhere in ``bounds``.
    Samples and seeds of the same problem do not count as further evidence, so the bound is conservative.
    """
    share = 1.0 - error ** (1.0 / problems)
    return share * (value - bounds[0]), share * (bounds[1] - value)


def agreeing(tables: list[np.ndarray]) -> list[int]:
    """Indices of the benchmarks of which all problems have the same value in every seed."""
    return [i for i, table in enumerate(tables) if np.ptp(table) < ALIKE and table.shape[1] > 1]


def reaches(
    tables: list[np.ndarray], spread: Spread, bounds: tuple[float, float], error: float = 1 - LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """How far each interval of confidence 1 - error extends below and above its mean: two arrays [benchmarks + 1].

    For the average, the extents of benchmarks of which all problems agree (``agreed``) are added in quadrature, since they are
    independent of the others (Zou and Donner, 2008).
    """
    half = spread.reach(error)
    both = np.stack(wilson(means_of(tables), half) if bounds == SHARES else (half, half))
    for i in agreeing(tables):
        both[:, i] = agreed(tables[i].flat[0], tables[i].shape[1], bounds, error)
        both[:, -1] = np.hypot(both[:, -1], both[:, i] / len(tables))
    return both[0], both[1]


def wilson(share: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far Wilson's interval extends below and above a fraction whose symmetric interval has half-width ``reach``.

    For a binomial with n trials, reach^2 = z^2 p (1 - p) / n. Wilson's formula only needs n / z^2, which follows from the
    measured reach ("effective n"). Fractions of 0 and 1 keep their reach.
    """
    variance = share * (1 - share)
    inner = variance > 0
    h = np.divide(reach**2, variance, out=np.zeros_like(reach), where=inner)  # z^2 / n
    center, half = (share + h / 2) / (1 + h), np.sqrt(reach**2 + h**2 / 4) / (1 + h)
    return np.where(inner, share - center + half, reach), np.where(inner, center + half - share, reach)


def spread_of(tables: list[np.ndarray]) -> Spread:
    """The ``Spread`` of the benchmarks' tables [seeds, problems], which must all have the same seeds."""
    seeds, own = len(tables[0]), [[table] for table in tables]
    columns = [_spread(parts) for parts in ([*own, tables] if len(tables) > 1 else [*own, *own])]
    error, freedom, seed_error = map(np.array, zip(*columns, strict=True))
    return Spread(error, freedom, seed_error, seeds)


def _spread(parts: list[np.ndarray]) -> tuple[float, float, float]:
    """(standard error, degrees of freedom, standard error of the seeds' averages) of the mean of these benchmarks' means.

    The mean squares of seeds and of problems, divided by their counts, both contain the residual variance of the mean; it is
    subtracted once. The estimate is bounded below by the one from problems only.
    """
    seeds, counts = len(parts[0]), np.array([part.shape[1] for part in parts])
    if counts.min() < 2:
        return np.nan, np.nan, np.nan
    of_problems = np.array([part.mean(axis=0).var(ddof=1) for part in parts]) / counts / len(parts) ** 2
    if seeds == 1:
        return float(np.sqrt(of_problems.sum())), _freedom(of_problems, counts - 1), 0.0
    of_seeds = float(np.mean([part.mean(axis=1) for part in parts], axis=0).var(ddof=1) / seeds)
    of_rest = np.array([rest_variance(part) for part in parts]) / (seeds * counts) / len(parts) ** 2
    total = max(of_seeds + (of_problems - of_rest).sum(), of_problems.sum())
    freedom = _freedom(np.append(of_problems, of_seeds), np.append(counts - 1, seeds - 1))
    return float(np.sqrt(total)), freedom, float(np.sqrt(of_seeds))


def rest_variance(table: np.ndarray) -> float:
    """Residual mean square (interaction and sampling) of a table [seeds, problems] with at least two of each."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)))


def _freedom(variances: np.ndarray, degrees: np.ndarray) -> float:
    """Satterthwaite's degrees of freedom of a sum of independent variances."""
    weight = np.sum(variances**2 / degrees)
    return float(variances.sum() ** 2 / weight) if weight else np.inf


def over_seeds_interval(values: np.ndarray, bounds: tuple[float, float] = SHARES) -> tuple[float, float, float]:
    """(mean, low, high): mean over seeds of one value per seed, with its 95% interval (Student's t).

    low and high are missing with one seed, and if all seeds are equal, since the variance is then unknown.

    Args:
        values: [seeds].
        bounds: possible range of the values; the interval is clipped to it.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2 or np.ptp(values) < ALIKE:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return mean, max(mean - half, bounds[0]), min(mean + half, bounds[1])


def over_seeds_p_value(values: np.ndarray) -> float:
    """Two-sided p-value of a mean over seeds against zero (Student's t); missing where ``over_seeds_interval`` is."""
    return np.nan if len(values) < 2 or np.ptp(values) < ALIKE else float(stats.ttest_1samp(values, 0.0).pvalue)
