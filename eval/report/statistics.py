"""Accuracies with intervals that account for the problems and the training seeds together.

Scores of one arm form a table [seeds, problems] for each benchmark. Problems and seeds are both samples of something larger, so
both are resampled: one draw of seeds for all benchmarks, and one draw of problems within each benchmark (the bootstrap of
two-way tables of Owen, "The pigeonhole bootstrap", 2007; scipy.stats.bootstrap resamples one way only). Two refinements for
the few seeds that training allows:

- n - 1 of n seeds or problems are drawn, which makes the bootstrap variance unbiased (Rao and Wu, 1988);
- the interval is mean +- t * standard deviation of the resamples, with Satterthwaite's degrees of freedom. Percentiles of the
  resamples cannot reach beyond the best and the worst seed. Measured on simulated gains of one arm over another (six
  benchmarks of 100 problems, 4 samples, seeds that differ by 0.3 logits; see tests/report/test_statistics.py), 1,200 trials:
  percentiles held the truth in 86% with 3 seeds and 72% with 2, this interval in 94% and 90%. Where seeds do not differ at all
  it errs to the wide side (99%).

With one seed nothing can be said about seeds, and the interval is over problems alone (column n_seeds says so).

Where all problems of a benchmark agree in every seed (all wrong, or no difference between two arms) there is no spread to
resample, and an interval of no width would claim certainty. There the exact bound of ``agreed`` holds instead.

``paired_p_value`` is the same interval read backward, ``holm`` corrects many of them, and ``detectable_gain`` says what such an
interval can show at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from sfpo.seeding import seed_of

RESAMPLES = 2000
LEVEL = 0.95
POWER = 0.8
"""Chance with which a gain of the size that ``detectable_gain`` gives is told from zero."""
LEAST_P = 1e-100
"""Smaller p-values are given as this one: far beyond it, scipy's quantiles of t overflow."""
GAIN_BOUNDS = (-1.0, 1.0)
AVERAGE = "average"
"""Name of the unweighted mean over benchmarks."""

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(right answers, samples) of each problem -> its score."""


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


def per_problem(scores: pd.DataFrame, measure: Measure = avg_at_k) -> dict[str, pd.DataFrame]:
    """Benchmark -> score of each problem, [seeds, problems].

    Args:
        scores: one row a sample of one arm: seed, benchmark, problem_id, correct.

    Raises:
        ValueError: not every seed has every problem.
    """
    counted = scores.groupby(["benchmark", "seed", "problem_id"], dropna=False, sort=True)["correct"].agg(["sum", "count"])
    counted["score"] = measure(counted["sum"].to_numpy(), counted["count"].to_numpy())
    tables = {}
    for benchmark, rows in counted["score"].groupby("benchmark"):
        tables[str(benchmark)] = rows.droplevel("benchmark").unstack("problem_id")
        if tables[str(benchmark)].isna().any(axis=None):
            raise ValueError(f"{benchmark}: the seeds were not scored on the same problems")
    return tables


def interval(values: dict[str, pd.DataFrame], bounds: tuple[float, float] = (0.0, 1.0)) -> pd.DataFrame:
    """Mean of each benchmark and of their average, with its 95% interval.

    Args:
        values: benchmark -> [seeds, problems].
        bounds: of the quantity; intervals end there.

    Returns:
        One row a benchmark, in the order of ``values``, then ``average``; columns mean, low, high, n_seeds, problems. low and
        high are missing where a benchmark has a single problem.
    """
    tables = [table.to_numpy(float) for table in values.values()]
    seeds, problems = len(tables[0]), [table.shape[1] for table in tables]
    mean = _means(tables)
    below, above = _reaches(tables, *_spread(tables), bounds)
    return pd.DataFrame(
        {
            "mean": mean,
            "low": np.maximum(mean - below, bounds[0]),
            "high": np.minimum(mean + above, bounds[1]),
            "n_seeds": seeds,
            "problems": [*problems, sum(problems)],
        },
        index=_columns(values),
    )


def _columns(benchmarks: Iterable[str]) -> pd.Index:
    return pd.Index([*benchmarks, AVERAGE], name="benchmark")


def paired_gain(values: dict[str, pd.DataFrame], reference: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """``interval`` of values - reference, seed by seed and problem by problem.

    Seed i of both arms is resampled as one, and so is each problem: what both arms share cancels. The untrained model, which
    has no seed, is the same for every seed of the other arm.

    Raises:
        ValueError: the two were not scored on the same benchmarks, problems and seeds.
    """
    return interval(_differences(values, reference), GAIN_BOUNDS)


def paired_p_value(values: dict[str, pd.DataFrame], reference: dict[str, pd.DataFrame]) -> pd.Series:
    """Two-sided p-value of each benchmark's gain, and of the average's, against no gain.

    ``paired_gain`` read backward, with the same resamples, the same t and the same bound where all problems agree: the p-value
    is the error (1 - confidence) at which the interval just touches zero. So it is below 0.05 exactly where the 95% interval
    excludes zero.

    Returns:
        [benchmarks + 1], named as the rows of ``paired_gain``; missing where the interval is.

    Raises:
        ValueError: as ``paired_gain``.
    """
    tables = [table.to_numpy(float) for table in _differences(values, reference).values()]
    mean, (spread, freedom) = _means(tables), _spread(tables)

    def p_value(column: int) -> float:
        side = 0 if mean[column] > 0 else 1

        def beyond_zero(log_error: float) -> float:
            reaches = _reaches(tables, spread, freedom, GAIN_BOUNDS, float(np.exp(log_error)))
            return float(reaches[side][column] - abs(mean[column]))

        at_least = beyond_zero(np.log(LEAST_P))
        if np.isnan(at_least):
            return np.nan
        if abs(mean[column]) < 1e-9:  # means of equal scores may differ by rounding
            return 1.0
        return float(np.exp(optimize.bisect(beyond_zero, np.log(LEAST_P), 0.0))) if at_least > 0 else LEAST_P

    return pd.Series([p_value(column) for column in range(len(mean))], index=_columns(values), name="p_value")


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values corrected for their number: a claim wherever one is below 5% is false anywhere in at most 5% of such reports.

    The smallest of m is multiplied by m, the next by m - 1, and so on, none falling below the one before it, none above 1. It
    needs no assumption on how the comparisons depend on each other (Holm, "A simple sequentially rejective multiple test
    procedure", 1979).

    Args:
        p_values: [comparisons]; a missing one was not tested: it stays missing and does not count.

    Raises:
        ValueError: a value is not within 0 and 1.
    """
    values = np.asarray(p_values, float)
    if np.any((values < 0) | (values > 1)):
        raise ValueError(f"p-values must lie within 0 and 1: {values}")
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # missing ones are sorted last
    corrected = np.full_like(values, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1.0)
    return corrected


def detectable_gain(values: dict[str, pd.DataFrame], reference: dict[str, pd.DataFrame]) -> pd.Series:
    """The gain (share) that ``paired_gain`` would tell from zero in 80% of repetitions, two-sided at 5%, by the spread at hand.

    (t of 97.5% + t of 80%) * standard error: by the noncentral t, the power is within two points of 80% from three degrees of
    freedom on, and 77% with two. A gain half as large would mostly be missed, so finding none says little about it. Where all
    problems of a benchmark agree, the exact bound of ``agreed`` stands for its spread.

    Returns:
        [benchmarks + 1], named as the rows of ``paired_gain``; missing where a benchmark has a single problem.

    Raises:
        ValueError: as ``paired_gain``.
    """
    tables = [table.to_numpy(float) for table in _differences(values, reference).values()]
    spread, freedom = _spread(tables)
    told_apart = np.maximum(*_reaches(tables, spread, freedom, GAIN_BOUNDS))
    return pd.Series(told_apart + stats.t.ppf(POWER, freedom) * spread, index=_columns(values), name="detectable_gain")


def planned_detectable_gain(
    problems: dict[str, int], samples: int, seeds: int = 1, accuracies: dict[str, float] | None = None
) -> pd.Series:
    """``detectable_gain`` before any run, from the noise of sampling alone.

    The binomial bound: each problem is right with the chance ``accuracies`` gives, which is the most that sampling noise can be
    at that accuracy; both arms gain alike on every problem and in every seed. Where they do not, that comes on top. One seed
    tells two runs apart, several tell methods apart: that takes more, so two seeds can show less than one.

    Args:
        problems: benchmark -> number of problems, two or more.
        samples: of each problem and seed, in either arm.
        seeds: training seeds of either arm.
        accuracies: benchmark -> accuracy (share) expected of both arms; none: 0.5 for each, where the noise is largest.

    Returns:
        Shares, [benchmarks + 1]; the last is that of the average.

    Raises:
        ValueError: a benchmark has fewer than two problems, or there are no samples or seeds.
        KeyError: ``accuracies`` leaves out a benchmark.
    """
    counts = np.array(list(problems.values()), float)
    if np.any(counts < 2) or samples < 1 or seeds < 1:
        raise ValueError(f"at least two problems, one sample and one seed are needed: {problems}, {samples}, {seeds}")
    chances = np.array([0.5 if accuracies is None else accuracies[name] for name in problems])
    noise = 2 * chances * (1 - chances) / (samples * seeds * counts)
    # Resampling both ways counts noise that belongs to neither problems nor seeds thrice (Owen, 2007): once with the problems,
    # once with the seeds, once with their crossing. With one seed there is one way, and it is counted once.
    spread = np.sqrt(_with_average(noise) * (1 if seeds == 1 else 3))
    columns = [[i] for i in range(len(counts))] + [list(range(len(counts)))]
    freedom = np.array([_freedom(noise[own], counts[own], noise[own].sum(), seeds) for own in columns])
    factor = stats.t.ppf((1 + LEVEL) / 2, freedom) + stats.t.ppf(POWER, freedom)
    return pd.Series(factor * spread, index=_columns(problems), name="detectable_gain")


def _with_average(variances: np.ndarray) -> np.ndarray:
    """[benchmarks + 1]: those of independent benchmarks, and that of their average."""
    return np.append(variances, variances.sum() / len(variances) ** 2)


def _differences(values: dict[str, pd.DataFrame], reference: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    if list(values) != list(reference):
        raise ValueError(f"arms scored on different benchmarks: {list(values)} and {list(reference)}")
    return {name: _paired(name, values[name], reference[name]) for name in values}


def _paired(benchmark: str, values: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    if not values.columns.equals(reference.columns):
        raise ValueError(f"{benchmark}: the two arms were not scored on the same problems")
    if reference.index.isna().all():
        return values - reference.to_numpy()
    if values.index.isna().all():
        return values.to_numpy() - reference
    if not values.index.equals(reference.index):
        raise ValueError(f"{benchmark}: seeds {list(values.index)} cannot be paired with {list(reference.index)}")
    return values - reference


def agreed(value: float, problems: int, bounds: tuple[float, float], error: float = 1 - LEVEL) -> tuple[float, float]:
    """How far below and above ``value`` the mean may lie, with confidence 1 - error, when all of ``problems`` have that value.

    If a share q of all problems differed, none of n drawn would with chance (1 - q)^n: q above 1 - error^(1/n), about 3/n at
    5%, is excluded (the rule of three). What differs may lie anywhere within ``bounds``. Samples and seeds of one problem do
    not count as further evidence, so the bound errs to the wide side.
    """
    share = 1.0 - error ** (1.0 / problems)
    return share * (value - bounds[0]), share * (bounds[1] - value)


def _reaches(
    tables: list[np.ndarray], spread: np.ndarray, freedom: np.ndarray, bounds: tuple[float, float], error: float = 1 - LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """[benchmarks + 1] twice: how far each interval of confidence 1 - error reaches below and above its mean.

    t times ``spread``, except where all values agree. The average adds the reach of such benchmarks in quadrature, as is right
    for independent parts (Zou and Donner, 2008).
    """
    half = stats.t.isf(error / 2, freedom) * spread
    reaches = np.stack([half, half])
    for i, table in enumerate(tables):
        if np.ptp(table) < 1e-9 and table.shape[1] > 1:  # means of equal scores may differ by rounding
            reaches[:, i] = agreed(table.flat[0], table.shape[1], bounds, error)
            reaches[:, -1] = np.hypot(reaches[:, -1], reaches[:, i] / len(tables))
    return reaches[0], reaches[1]


def over_seeds_interval(values: np.ndarray, bounds: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float, float]:
    """Mean over seeds of one number a seed, and the ends of its 95% interval (Student's t).

    Three seeds have ten resamples, none beyond the best and the worst seed: a bootstrap would be too narrow, and t is exact
    for normal seeds. The ends are missing with one seed, and where all seeds agree: no spread is known then.

    Args:
        values: [seeds].
        bounds: of the quantity; the interval ends there.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2 or np.ptp(values) < 1e-9:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return mean, max(mean - half, bounds[0]), min(mean + half, bounds[1])


def _resampled(tables: list[np.ndarray]) -> np.ndarray:
    """[RESAMPLES, benchmarks]: the mean of each benchmark in each resample."""
    generator = np.random.default_rng(seed_of("report", "bootstrap"))
    seeds = _weights(len(tables[0]), generator)
    return np.stack([((seeds @ table) * _weights(table.shape[1], generator)).sum(axis=1) for table in tables], axis=1)


def _weights(count: int, generator: np.random.Generator) -> np.ndarray:
    """[RESAMPLES, count]: share of each unit among count - 1 draws with replacement (one unit: always itself)."""
    draws = max(count - 1, 1)
    picked = generator.integers(count, size=(RESAMPLES, draws)) + count * np.arange(RESAMPLES)[:, None]
    return np.bincount(picked.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count) / draws


def _means(tables: list[np.ndarray]) -> np.ndarray:
    """[benchmarks + 1]."""
    means = np.array([table.mean() for table in tables])
    return np.append(means, means.mean())


def _spread(tables: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """[benchmarks + 1] twice: standard deviation of the resampled means, and its degrees of freedom; NaN where unknown."""
    resampled = _resampled(tables)
    by_seed = np.stack([table.mean(axis=1) for table in tables])
    columns = [(by_seed[i], [table]) for i, table in enumerate(tables)] + [(by_seed.mean(axis=0), tables)]
    freedom = []
    for seed_means, parts in columns:
        counts = np.array([part.shape[1] for part in parts])
        if counts.min() < 2:
            freedom.append(np.nan)
            continue
        of_problems = np.array([part.mean(axis=0).var(ddof=1) for part in parts]) / counts
        of_seeds = seed_means.var(ddof=1) / len(seed_means) * len(parts) ** 2 if len(seed_means) > 1 else 0.0
        freedom.append(_freedom(of_problems, counts, of_seeds, len(seed_means)))
    return np.column_stack([resampled, resampled.mean(axis=1)]).std(axis=0, ddof=1), np.array(freedom)


def _freedom(of_problems: np.ndarray, counts: np.ndarray, of_seeds: float, seeds: int) -> float:
    """Satterthwaite's degrees of freedom of a sum of benchmarks' means.

    Its variance is the sum of a part from seeds (seeds - 1 degrees of freedom) and one from the problems of each benchmark
    (problems - 1).

    Args:
        of_problems: [benchmarks], variance of each benchmark's mean over its problems.
        counts: [benchmarks], problems of each, two or more.
        of_seeds: variance of the sum over seeds; without meaning for one seed.
    """
    variances, degrees = of_problems, counts - 1
    if seeds > 1:
        variances, degrees = np.append(variances, of_seeds), np.append(degrees, seeds - 1)
    weight = np.sum(variances**2 / degrees)
    return float(variances.sum() ** 2 / weight) if weight else np.inf
