import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from eval.report.statistics.comparisons import holm, paired_gain, paired_p_value, pooled_over_models


def table(values, seeds=None):
    values = np.asarray(values, float)
    return pd.DataFrame(values, index=pd.Index(range(len(values)) if seeds is None else seeds, name="seed"))


BASE = pd.Index([pd.NA], dtype="Int64")


def test_paired_gain_cancels_what_arms_share():
    generator = np.random.default_rng(0)
    shared = generator.random((3, 200))  # hard and easy problems, good and bad seeds
    gains = np.tile([0.0, 0.2], (3, 100))  # the same in every seed
    gain = paired_gain({"sums": table(shared + gains)}, {"sums": table(shared)}).loc["sums"]
    assert gain["mean"] == pytest.approx(0.1)
    # Standard error over 200 problems: 0.1 / sqrt(199) = 0.00709; t(199) = 1.97196.
    assert (gain["high"] - gain["low"]) / 2 == pytest.approx(1.97196 * 0.1 / math.sqrt(199), rel=1e-4)


def test_paired_gain_is_antisymmetric():
    generator = np.random.default_rng(1)
    a, b = ({"sums": table(generator.random((3, 40)))} for _ in range(2))
    forth, back = paired_gain(a, b), paired_gain(b, a)
    np.testing.assert_allclose(forth["mean"], -back["mean"])
    np.testing.assert_allclose(forth["low"], -back["high"])


def test_base_is_paired_with_every_seed():
    base = {"sums": table([[0.0, 1.0, 0.5]], seeds=pd.Index([pd.NA], dtype="Int64"))}
    arm = {"sums": table([[0.5, 1.0, 1.0], [0.0, 1.0, 0.5]])}
    # differences: seed 0: 0.5, 0, 0.5; seed 1: all 0. Their mean is 1/6.
    assert paired_gain(arm, base).loc["sums", "mean"] == pytest.approx(1 / 6)
    assert paired_gain(arm, base).loc["sums", "n_seeds"] == 2
    assert paired_gain(base, arm).loc["sums", "mean"] == pytest.approx(-1 / 6)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match=r"sums: seeds \[0, 1\] cannot be paired with \[0, 2\]"):
        paired_gain({"sums": table(np.ones((2, 3)))}, {"sums": table(np.ones((2, 3)), seeds=[0, 2])})
    with pytest.raises(ValueError, match="sums: the two arms were not scored on the same problems"):
        paired_gain({"sums": table(np.ones((2, 3)))}, {"sums": table(np.ones((2, 4)))})
    with pytest.raises(ValueError, match="different benchmarks"):
        paired_gain({"sums": table(np.ones((2, 3)))}, {"chains": table(np.ones((2, 3)))})


def test_one_seed_has_no_interval_of_a_gain_but_over_the_base():
    generator = np.random.default_rng(0)
    one, other = ({"sums": table(generator.random((1, 40)))} for _ in range(2))
    base = {"sums": table(generator.random((1, 40)), seeds=BASE)}
    assert paired_gain(one, other)[["low", "high"]].isna().all(axis=None) and paired_p_value(one, other).isna().all()
    assert paired_gain(one, other).loc["sums", "mean"] == pytest.approx((one["sums"] - other["sums"]).to_numpy().mean())
    assert paired_gain(one, base)["low"].notna().all() and paired_p_value(one, base).notna().all()


def against_nothing(values):
    """The two arms of which the first is better by ``values``."""
    return values, {name: 0.0 * differences for name, differences in values.items()}


def over_base(values):
    """A trained arm of one seed, and the base without a right answer."""
    return values, {name: table(0.0 * one.to_numpy(), seeds=BASE) for name, one in values.items()}


def test_p_value_where_problems_agree_by_hand():
    # Better by 0.1 on each of 30 problems: the interval reaches down to 0 where 1.1 * (1 - p^(1/30)) = 0.1, so p = (10/11)^30.
    assert paired_p_value(*over_base({"sums": table(np.full((1, 30), 0.1))}))["sums"] == pytest.approx(
        (10 / 11) ** 30
    )  # 0.0573
    assert paired_p_value(*against_nothing({"sums": table(np.full((3, 30), 0.2))}))["sums"] == pytest.approx((5 / 6) ** 30)


def test_p_value_over_the_base_is_that_of_students_test():
    differences = np.random.default_rng(0).normal(0.05, 0.3, (1, 200))
    p_value = paired_p_value(*over_base({"sums": table(differences)}))["sums"]
    assert p_value == pytest.approx(stats.ttest_1samp(differences[0], 0).pvalue)


def test_p_value_is_never_below_students_over_the_seeds_averages():
    generator = np.random.default_rng(3)
    for _ in range(50):
        values = {name: table(generator.normal(0.02, 0.1, (3, 1)) + generator.normal(0, 0.2, (3, 30))) for name in ("a", "b")}
        p_values = paired_p_value(*against_nothing(values))
        for column, averages in {
            "a": values["a"].mean(axis=1),
            "average": (values["a"] + values["b"].to_numpy()).mean(axis=1),
        }.items():
            assert p_values[column] >= stats.ttest_1samp(averages, 0).pvalue - 1e-12


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("end, sign", [("low", -1), ("high", 1)])
@pytest.mark.parametrize("agreeing", [False, True])
def test_p_is_below_5_percent_exactly_where_the_interval_excludes_zero(seeds, end, sign, agreeing):
    generator = np.random.default_rng(seeds)
    values = {"sums": table(generator.normal(0.02, 0.2, (seeds, 40))), "chains": table(generator.normal(0, 0.1, (seeds, 25)))}
    if agreeing:
        values["stories"] = table(np.zeros((seeds, 30)))
    gains = paired_gain(*against_nothing(values))
    for column in ("sums", "average"):
        # Moved by as much as brings this end of the interval to zero, and a hair beyond or short of it.
        to_zero = -gains.loc[column, end] * (len(values) if column == "average" else 1)
        for hair in (-1e-6, 1e-6):
            moved = against_nothing({**values, "sums": values["sums"] + to_zero + hair})
            gain, p_value = paired_gain(*moved).loc[column], paired_p_value(*moved)[column]
            assert p_value == pytest.approx(0.05, abs=1e-4)
            assert (p_value < 0.05) == (gain["low"] > 0 or gain["high"] < 0) == (sign * hair < 0)


def test_p_values_without_a_gain_or_an_interval():
    p_values = paired_p_value(*against_nothing({"sums": table(np.zeros((2, 30))), "chains": table([[1.0], [0.5]])}))
    assert p_values["sums"] == 1 and p_values[["chains", "average"]].isna().all()
    assert list(p_values.index) == ["sums", "chains", "average"]


def test_p_value_does_not_depend_on_which_arm_comes_first():
    generator = np.random.default_rng(1)
    a, b = ({"sums": table(generator.random((3, 40)))} for _ in range(2))
    np.testing.assert_allclose(paired_p_value(a, b), paired_p_value(b, a))


def test_a_gain_beyond_doubt_has_a_p_value():
    # 399 of 400 problems are better by 1: 399 standard errors, which t(399) exceeds with a chance of less than 1e-100.
    assert paired_p_value(*over_base({"sums": table([[1.0] * 399 + [0.0]])}))["sums"] == 1e-100


@pytest.mark.parametrize(
    "p_values, corrected",
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 * 0.01, 2 * 0.03; 1 * 0.04 may not fall below the 0.06 before it
        ([0.02, math.nan, 0.03], [0.04, math.nan, 0.04]),  # two were tested
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, corrected):
    np.testing.assert_allclose(holm(np.array(p_values)), corrected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_none_and_bonferroni(p_values):
    corrected = holm(np.array(p_values))
    assert np.all(corrected >= p_values) and np.all(corrected <= np.minimum(np.array(p_values) * len(p_values), 1) + 1e-12)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(corrected[order]) >= 0)


def test_holm_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(np.array([0.2, 1.2]))


def test_pooled_over_models_by_hand():
    gains = [{"sums": table([[0.1, 0.3], [0.3, 0.5]])}, {"sums": table([[0.0, 0.2]])}]  # two seeds of one model, one of another
    pooled = pooled_over_models(gains)["sums"]
    np.testing.assert_allclose(pooled, [[0.2, 0.4], [0.0, 0.2]])


def null_suite(generator, seeds, spread, benchmarks=6, problems=100, samples=4):
    """Two arms that are equally good, scores [seeds, problems] of each benchmark. ``spread``: sd over seeds, in points."""
    logits = spread / 100 / 0.18  # a logit is 18 points here, on average over problems
    shift = generator.normal(0, logits, (2, seeds, 1))
    arms = ({}, {})
    for benchmark in range(benchmarks):
        difficulty = generator.normal(0.3, 1.5, problems)
        for arm in range(2):
            of_arm, of_run = generator.normal(0, 0.3, (1, problems)), generator.normal(0, 0.3, (seeds, problems))
            of_benchmark = generator.normal(0, logits / 2, (seeds, 1))
            chance = 1 / (1 + np.exp(-(difficulty + shift[arm] + of_benchmark + of_arm + of_run)))
            arms[arm][str(benchmark)] = table(generator.binomial(samples, chance) / samples)
    return arms


def test_equal_arms_are_rarely_told_apart():
    """A short form of the slow test: 3 seeds that differ by 3 points."""
    generator = np.random.default_rng(0)
    p_values = np.array([paired_p_value(*null_suite(generator, 3, 3.0, 3, 60))["average"] for _ in range(300)])
    assert np.mean(p_values < 0.05) <= 0.06 + 2 * 0.0137  # two standard errors of 300 trials
    assert np.mean(p_values < 0.01) <= 0.012 + 2 * 0.0063


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_error_of_the_first_kind(seeds, spread):
    """At most 6% below 5%, at most 1.2% below 1%, whatever the seeds' spread; and the intervals hold the truth."""
    generator = np.random.default_rng(100 * seeds + int(spread))
    trials = 1000
    p_values = np.array([paired_p_value(*null_suite(generator, seeds, spread)) for _ in range(trials)])
    average, smallest = p_values[:, -1], p_values[:, :-1].min(axis=1)
    # Two standard errors: 0.015 at 6%, 0.0069 at 1.2%.
    assert np.mean(average < 0.05) <= 0.06 + 0.015
    assert np.mean(average < 0.01) <= 0.012 + 0.0069
    assert np.mean(6 * smallest < 0.05) <= 0.06 + 0.015  # Holm: any of six columns


@pytest.mark.slow
def test_pooled_gains_err_as_rarely_with_one_seed_each():
    generator = np.random.default_rng(7)
    found = []
    for _ in range(600):
        suites = [null_suite(generator, 1, 2.0, 2, 60) for _ in range(5)]
        pooled = pooled_over_models([{name: a[name] - b[name] for name in a} for a, b in suites])
        found.append(paired_p_value(*against_nothing(pooled))["average"])
    assert np.mean(np.array(found) < 0.05) <= 0.06 + 2 * 0.0097
