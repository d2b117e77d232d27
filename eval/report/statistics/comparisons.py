"""Gains of one arm over another: paired intervals, p-values, correction for multiple comparisons, and pooling over models.

With one training seed, a difference between two trained arms may come from the seed and not the method, so gains between them
have no interval and no p-value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize

from eval.report.statistics.intervals import (
    ALIKE,
    LEVEL,
    agreeing,
    columns_of,
    interval,
    means_of,
    reaches,
    spread_of,
)
from eval.report.statistics.scores import Values

GAIN_BOUNDS = (-1.0, 1.0)
LEAST_P = 1e-100
"""Lower bound of reported p-values."""


def paired_gain(values: Values, reference: Values) -> pd.DataFrame:
    """``interval`` of values - reference, paired by seed and problem, which removes the variance that both arms share.

    The untrained model has no seed and is paired with every seed of the other arm. low and high are missing if both arms were
    trained with a single seed.

    Raises:
        ValueError: the two were not scored on the same benchmarks, problems and seeds.
    """
    gain = interval(differences(values, reference), GAIN_BOUNDS)
    return gain if tells_methods_apart(values, reference) else gain.assign(low=np.nan, high=np.nan)


def tells_methods_apart(values: Values, reference: Values) -> bool:
    """Whether the gain can be tested: False for two trained arms with one seed each, whose difference may come from the
    seed."""
    one, other = next(iter(values.values())).index, next(iter(reference.values())).index
    return len(one) > 1 or len(other) > 1 or bool(one.isna().all() or other.isna().all())


def paired_p_value(values: Values, reference: Values) -> pd.Series:
    """Two-sided p-value of each benchmark's gain, and of the average gain, against zero.

    It is the inverse of ``paired_gain``: the error (1 - confidence) at which the interval just touches zero. So it is below
    0.05 exactly where the 95% interval excludes zero, and never below the p-value of Student's t test over the seeds' averages.

    Returns:
        [benchmarks + 1], indexed like the rows of ``paired_gain``; missing where the interval is.

    Raises:
        ValueError: see ``paired_gain``.
    """
    tables = [table.to_numpy(float) for table in differences(values, reference).values()]
    found = _p_values(tables) if tells_methods_apart(values, reference) else np.nan
    return pd.Series(found, columns_of(values), name="p_value")


def _p_values(tables: list[np.ndarray]) -> np.ndarray:
    mean, spread = means_of(tables), spread_of(tables)
    found, alike = spread.p_value(mean), agreeing(tables)

    def beyond_zero(log_error: float) -> float:
        below, above = reaches(tables, spread, GAIN_BOUNDS, float(np.exp(log_error)))
        return float((below if mean[-1] > 0 else above)[-1] - abs(mean[-1]))

    for place in alike:  # (1 - p^(1/n)) (1 + |mean|) = |mean|
        found[place] = (1 + abs(mean[place])) ** -tables[place].shape[1]
    if alike and not np.isnan(spread.error[-1]):
        found[-1] = np.exp(optimize.bisect(beyond_zero, np.log(LEAST_P), 0.0)) if beyond_zero(np.log(LEAST_P)) > 0 else LEAST_P
    found = np.where(np.abs(mean) < ALIKE, 1.0, np.maximum(found, LEAST_P))
    return np.where(np.isnan(spread.error), np.nan, found)


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values with Holm's correction: if those below 5% are called significant, the family-wise error rate is at most 5%.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on; results are made non-decreasing and capped at
    1. Valid for any dependence between the comparisons (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    Args:
        p_values: [comparisons]; missing values (comparisons that were not tested) stay missing and do not count.

    Raises:
        ValueError: a value is not between 0 and 1.
    """
    values = np.asarray(p_values, float)
    if np.any((values < 0) | (values > 1)):
        raise ValueError(f"p-values must be between 0 and 1: {values}")
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # missing ones are sorted last
    corrected = np.full_like(values, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1.0)
    return corrected


def is_significant(p_holm: float) -> bool:
    """Whether a corrected p-value is below 5%; False if it is missing."""
    return bool(p_holm < 1 - LEVEL)


def pooled_over_models(gains: Sequence[Values]) -> Values:
    """The gains of one arm over another on several models as a table [models, problems] per benchmark, averaged over seeds.

    Passed to ``interval`` and ``paired_p_value``, models take the place of seeds: the variance between models includes that of
    their seeds, so the test generalizes over models like these, even with one seed each.

    Args:
        gains: for each model, benchmark -> differences [seeds, problems], all on the same problems.
    """
    return {
        name: pd.DataFrame([one[name].mean(axis=0) for one in gains], index=pd.RangeIndex(len(gains), name="seed"))
        for name in gains[0]
    }


def differences(values: Values, reference: Values) -> Values:
    """values - reference, benchmark -> [seeds, problems].

    Raises:
        ValueError: the two were not scored on the same benchmarks, problems and seeds.
    """
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
