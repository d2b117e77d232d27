"""The numbers of an accuracy table: one row for the base, each arm and each gain, in percent or percentage points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from eval.report.collect import BASE
from eval.report.panels import panel_titles
from eval.report.statistics.comparisons import (
    differences,
    holm,
    is_significant,
    paired_gain,
    paired_p_value,
    pooled_over_models,
)
from eval.report.statistics.intervals import interval
from eval.report.statistics.power import Components, components, detectable_gain
from eval.report.statistics.scores import AVERAGE, Measure, Values, avg_at_k, per_problem, sample_variance
from sfpo.settings import ReportSettings

ALL_MODELS = "all models"
"""Value of column ``model`` in rows of gains pooled over all models of the table."""
Row = dict[str, Any]
"""Column -> value, one row of a frame."""
SOURCES = ("seed", "problem", "interaction", "sample")
"""Sources of the variance of a gain (``statistics.power``)."""


@dataclass(frozen=True)
class Group:
    """The scores of one model and data set."""

    model: str
    dataset: str
    values: dict[str, Values]
    """Base and each arm -> scores."""
    sampling: dict[str, Values]
    """Each arm -> variance of a single sample, per problem. Empty unless the measure is avg@k with several samples."""


def gain_pairs(settings: ReportSettings) -> list[tuple[str, str]]:
    """(arm, reference): each arm compared with the base, then each other arm compared with the first."""
    first, *others = settings.arms
    return [(arm, BASE) for arm in settings.arms] + [(arm, first) for arm in others]


def accuracy_frame(scores: pd.DataFrame, settings: ReportSettings, measure: Measure = avg_at_k) -> pd.DataFrame:
    """Accuracy of the base and of each arm on every benchmark, and the gains between them.

    Args:
        scores: model, dataset, arm, seed, benchmark, problem_id, correct; one row per sample.

    Returns:
        model, dataset, arm, kind (score | gain); for each benchmark and ``average`` the columns <name>, <name>_low, <name>_high
        (95% interval), missing if no problem was scored; the interval is also missing for gains between arms with one seed;
        n_seeds, problems; best_in (names of the columns in which the arm is best and its lead over the second has p below 5%
        after Holm's correction for all columns).

        For the average gains over the first arm, with several seeds: p (two-sided), p_holm (corrected for all gains of the
        table), detectable_low and detectable_high (points; range of the smallest gain that is detected with 80% power), and
        error_<source> (standard errors in points from seed, problem, interaction and sample). With several models there are
        also rows with model ``all models``, whose p and interval are over models.
    """
    groups = groups_of(scores, settings, measure)
    if not any(group.values[BASE] for group in groups):
        return _without_numbers(settings)
    rows = [row for group in groups for row in _group_rows(group, settings)] + _pooled_rows(groups, settings)
    first = next(iter(settings.arms))
    compared = [row for row in rows if row["arm"].endswith(f"-{first}") and row["kind"] == "gain"]
    for row, corrected in zip(compared, holm(np.array([row["p"] for row in compared])), strict=True):
        row["p_holm"] = corrected
    leads = _leads(groups, settings)
    return pd.DataFrame({**row, "best_in": " ".join(leads.get((row["model"], row["dataset"], row["arm"]), []))} for row in rows)


def groups_of(scores: pd.DataFrame, settings: ReportSettings, measure: Measure = avg_at_k) -> list[Group]:
    """The scores of each model and data set, as tables [seeds, problems]."""
    groups = []
    for model, dataset in panel_titles(settings):
        of_model = scores[scores["model"] == model]
        of_arm = {BASE: of_model[of_model["arm"] == BASE]}
        of_arm |= {arm: of_model[(of_model["dataset"] == dataset) & (of_model["arm"] == arm)] for arm in settings.arms}
        read = partial(_values, settings=settings)
        values = {arm: read(rows, measure=measure) for arm, rows in of_arm.items()}
        of_samples = measure is avg_at_k and min(settings.samples.values()) > 1
        sampling = {arm: read(of_arm[arm], measure=sample_variance) for arm in settings.arms} if of_samples else {}
        groups.append(Group(model, dataset, values, sampling))
    return groups


def _values(scores: pd.DataFrame, settings: ReportSettings, measure: Measure) -> Values:
    tables = per_problem(scores, measure)
    return {benchmark: tables[benchmark] for benchmark in settings.benchmarks if benchmark in tables}


def _without_numbers(settings: ReportSettings) -> pd.DataFrame:
    """Empty rows of the base and the arms, without gains, for the case that no problem of any benchmark was scored."""
    columns = ["mean", "low", "high", "n_seeds", "problems"]
    nothing = _row(pd.DataFrame({"n_seeds": 0, "problems": 0}, [AVERAGE], columns), settings)
    return pd.DataFrame(
        {"model": model, "dataset": dataset, "arm": arm, "kind": "score", **nothing, "best_in": ""}
        for model, dataset in panel_titles(settings)
        for arm in (BASE, *settings.arms)
    )


def _group_rows(group: Group, settings: ReportSettings) -> list[Row]:
    known = {"model": group.model, "dataset": group.dataset}
    rows = [{**known, "arm": arm, "kind": "score", **_row(interval(v), settings)} for arm, v in group.values.items()]
    for arm, reference in gain_pairs(settings):
        of_arm, of_reference = group.values[arm], group.values[reference]
        row = {**known, "arm": f"{arm}-{reference}", "kind": "gain", **_row(paired_gain(of_arm, of_reference), settings)}
        if reference != BASE:
            row |= _found(of_arm, of_reference)
            if group.sampling and len(settings.seeds) > 1:
                row |= _errors(group, arm, reference, settings)
        rows.append(row)
    return rows


def _found(values: Values, reference: Values) -> dict[str, float]:
    low, high = detectable_gain(values, reference)
    p = paired_p_value(values, reference)[AVERAGE]
    return {"p": p, "p_holm": np.nan, "detectable_low": 100 * low, "detectable_high": 100 * high}


def _errors(group: Group, arm: str, reference: str, settings: ReportSettings) -> dict[str, float]:
    if min(table.shape[1] for table in group.values[arm].values()) < 2:
        return {}
    found = arm_components(group, arm, reference, settings).errors()
    return {f"error_{source}": 100 * found[source] for source in SOURCES}


def arm_components(group: Group, arm: str, reference: str, settings: ReportSettings, seed: float | None = None) -> Components:
    """``power.components`` of the gain of ``arm`` over ``reference``."""
    sampling = (group.sampling[arm], group.sampling[reference])
    return components(group.values[arm], group.values[reference], sampling, settings.samples, seed)


def _pooled_rows(groups: list[Group], settings: ReportSettings) -> list[Row]:
    """The gain of each arm over the first, pooled over all models, for each data set."""
    first, *others = settings.arms
    rows = []
    for dataset in settings.datasets if len(settings.models) > 1 else []:
        trained = [group.values for group in groups if group.dataset == dataset]
        for arm in others:
            pooled = pooled_over_models([differences(values[arm], values[first]) for values in trained])
            nothing = {name: 0.0 * table for name, table in pooled.items()}
            row: Row = {"model": ALL_MODELS, "dataset": dataset, "arm": f"{arm}-{first}", "kind": "gain"}
            row |= {**_row(paired_gain(pooled, nothing), settings), "n_seeds": len(settings.seeds)}
            rows.append({**row, "p": paired_p_value(pooled, nothing)[AVERAGE], "p_holm": np.nan})
    return rows


def _row(estimate: pd.DataFrame, settings: ReportSettings) -> dict[str, float]:
    cells, shown = {}, estimate.reindex([*settings.benchmarks, AVERAGE])
    for column in shown.index:
        for suffix, part in (("", "mean"), ("_low", "low"), ("_high", "high")):
            cells[f"{column}{suffix}"] = 100 * shown.loc[column, part]
    average = estimate.loc[AVERAGE]
    return {**cells, "n_seeds": int(average["n_seeds"]), "problems": int(average["problems"])}


def _leads(groups: list[Group], settings: ReportSettings) -> dict[tuple[str, str, str], list[str]]:
    """(model, dataset, arm) -> columns in which it is significantly better than the second best; none with one seed."""
    if len(settings.seeds) == 1:
        return {}
    leaders, p_values = [], []
    for group in groups:
        means = pd.DataFrame({arm: interval(values)["mean"] for arm, values in group.values.items()})
        tested: dict[tuple[str, str], pd.Series] = {}
        for column, row in means.iterrows():
            best, second = row.sort_values(ascending=False, kind="stable").index[:2]
            if (best, second) not in tested:
                tested[best, second] = paired_p_value(group.values[best], group.values[second])
            leaders.append(((group.model, group.dataset, best), str(column)))
            p_values.append(tested[best, second][column])
    leads: dict[tuple[str, str, str], list[str]] = {}
    for (arm, column), p in zip(leaders, holm(np.array(p_values)), strict=True):
        if is_significant(p):
            leads.setdefault(arm, []).append(column)
    return leads
