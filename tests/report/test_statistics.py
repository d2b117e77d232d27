import math
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from eval.report.statistics import (
    avg_at_k,
    detectable_gain,
    holm,
    interval,
    over_seeds_interval,
    paired_gain,
    paired_p_value,
    pass_at_k,
    per_problem,
    planned_detectable_gain,
)


def table(values, seeds=None):
    values = np.asarray(values, float)
    return pd.DataFrame(values, index=pd.Index(range(len(values)) if seeds is None else seeds, name="seed"))


def scores(rows):
    return pd.DataFrame(rows, columns=["seed", "benchmark", "problem_id", "sample", "correct"])


def test_pass_at_k_by_hand():
    # 4 samples, 1 right, k=2: of the 6 pairs, 3 hold no right answer: 1 - 3/6. With 3 right every pair holds one.
    np.testing.assert_allclose(pass_at_k(np.array([0, 1, 3, 4]), np.array([4, 4, 4, 4]), k=2), [0, 0.5, 1, 1])


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="pass@4 needs at least 4 samples"):
        pass_at_k(np.array([1, 1]), np.array([4, 2]), k=4)


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(case):
    n, correct, k = case
    expected = 1 - math.comb(n - correct, k) / math.comb(n, k)
    assert pass_at_k(np.array([correct]), np.array([n]), k)[0] == pytest.approx(expected)


@given(st.integers(1, 30), st.data())
def test_pass_at_1_is_avg_at_k(n, data):
    correct = np.array([data.draw(st.integers(0, n))])
    assert pass_at_k(correct, np.array([n]), 1)[0] == pytest.approx(avg_at_k(correct, np.array([n]))[0])


def test_per_problem_by_hand():
    rows = [(seed, "sums", problem, k, right) for seed, problem, k, right in [
        (0, "b", 0, True), (0, "b", 1, False), (0, "a", 0, False), (0, "a", 1, False),
        (1, "a", 0, True), (1, "a", 1, True), (1, "b", 0, False), (1, "b", 1, True),
    ]]  # fmt: skip
    mean = per_problem(scores(rows))["sums"]
    assert list(mean.columns) == ["a", "b"] and list(mean.index) == [0, 1]
    np.testing.assert_allclose(mean, [[0, 0.5], [1, 0.5]])
    np.testing.assert_allclose(per_problem(scores(rows), partial(pass_at_k, k=2))["sums"], [[0, 1], [1, 1]])


def test_seeds_must_share_their_problems():
    with pytest.raises(ValueError, match="sums: the seeds were not scored on the same problems"):
        per_problem(scores([(0, "sums", "a", 0, True), (1, "sums", "b", 0, True)]))


def test_average_weighs_benchmarks_not_problems():
    # means 0.25 (four problems) and 1.0 (one problem): their average is 0.625, not 2/5.
    estimate = interval({"sums": table([[1, 0, 0, 0]]), "chains": table([[1.0]])})
    assert list(estimate.index) == ["sums", "chains", "average"]
    assert list(estimate["mean"]) == [0.25, 1.0, 0.625]
    assert list(estimate["problems"]) == [4, 1, 5]


def test_one_problem_gives_no_interval():
    estimate = interval({"sums": table([[1, 0, 0, 0]]), "chains": table([[1.0]])})
    assert not math.isnan(estimate.loc["sums", "low"])
    assert estimate.loc[["chains", "average"], ["low", "high"]].isna().all(axis=None)


def test_one_seed_is_over_problems_only():
    # 100 problems, half right: standard error sqrt(0.25 / 99), t(99) = 1.984; the bootstrap adds a little noise of its own.
    estimate = interval({"sums": table([[1, 0] * 50])}).loc["sums"]
    half = 1.984 * math.sqrt(0.25 / 99)
    assert estimate["n_seeds"] == 1
    assert estimate["high"] - 0.5 == pytest.approx(half, rel=0.05)
    assert 0.5 - estimate["low"] == pytest.approx(half, rel=0.05)


def test_seeds_alone_give_students_interval():
    # Problems all alike: the interval is that of three seed means 0.4, 0.5, 0.6: 0.5 +- t(2) * 0.1 / sqrt(3), t(2) = 4.303.
    estimate = interval({"sums": table(np.repeat([[0.4], [0.5], [0.6]], 50, axis=1))}).loc["sums"]
    assert estimate["n_seeds"] == 3
    assert estimate["high"] - 0.5 == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=0.05)


def test_seeds_are_drawn_once_for_all_benchmarks():
    # The same seed effect in both: the average keeps it whole. Drawn apart, it would shrink by sqrt(2).
    values = table(np.repeat([[0.4], [0.5], [0.6]], 50, axis=1))
    estimate = interval({"sums": values, "chains": values})
    assert estimate.loc["average", "high"] == pytest.approx(estimate.loc["sums", "high"])


def test_problems_are_drawn_apart_within_each_benchmark():
    # One seed, two benchmarks of the same spread: the average's half-width shrinks by sqrt(2).
    values = table([[1, 0] * 200])
    estimate = interval({"sums": values, "chains": values})
    width = estimate["high"] - estimate["low"]
    assert width["average"] == pytest.approx(width["sums"] / math.sqrt(2), rel=0.06)


def test_interval_stays_within_bounds():
    estimate = interval({"sums": table([[1, 1, 1, 0], [1, 1, 1, 1]])}).loc["sums"]
    assert estimate["high"] == 1.0 and estimate["low"] >= 0.0


def test_paired_gain_cancels_what_arms_share():
    generator = np.random.default_rng(0)
    shared = generator.random((3, 200))  # hard and easy problems, good and bad seeds
    gains = np.tile([0.0, 0.2], (3, 100))  # the same in every seed
    gain = paired_gain({"sums": table(shared + gains)}, {"sums": table(shared)}).loc["sums"]
    assert gain["mean"] == pytest.approx(0.1)
    # Standard error over 200 problems: 0.1 / sqrt(199) = 0.00709; t(199) = 1.972, bootstrap noise some percent of it.
    assert (gain["high"] - gain["low"]) / 2 == pytest.approx(1.972 * 0.00709, rel=0.08)


@pytest.mark.parametrize(
    "value, low, high",
    [
        # 30 problems that agree: 1 - 0.05^(1/30) = 1 - exp(-2.99573 / 30) = 0.09503 of all may differ (3/30 = 0.1, roughly).
        (0.0, 0.0, 0.09503),
        (1.0, 1 - 0.09503, 1.0),
        (0.5, 0.5 - 0.09503 * 0.5, 0.5 + 0.09503 * 0.5),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_problems_that_all_agree_have_an_interval(value, low, high, seeds):
    estimate = interval({"sums": table(np.full((seeds, 30), value))}).loc["sums"]
    assert estimate["mean"] == value
    assert (estimate["low"], estimate["high"]) == pytest.approx((low, high), abs=1e-5)


def test_no_difference_at_all_is_no_certainty():
    wrong = {"sums": table(np.zeros((3, 30)))}
    gain = paired_gain(wrong, wrong).loc["sums"]
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((0, -0.09503, 0.09503), abs=1e-5)


def test_scores_equal_up_to_rounding_agree():
    # 0.3 - 0.2 and 0.1 - 0.0 differ in the last bit.
    better, worse = table(np.tile([0.3, 0.1], (1, 15))), table(np.tile([0.2, 0.0], (1, 15)))
    gain = paired_gain({"sums": better}, {"sums": worse}).loc["sums"]
    assert gain["low"] == pytest.approx(0.1 - 0.09503 * 1.1, abs=1e-5)


def test_the_bound_holds_in_at_least_95_percent():
    # The worst truth for 30 problems all wrong: a share q of problems is always right. None is drawn with chance (1 - q)^30,
    # and only then is the bound at stake: for q above 0.09503 that is under 5%, for q below the bound holds.
    high = interval({"sums": table(np.zeros((1, 30)))}).loc["sums", "high"]
    assert (1 - high) ** 30 == pytest.approx(0.05)


def test_the_average_takes_over_the_bound():
    # One seed. sums: half of 100 right, half-width h; chains: 30 all wrong, reach 0.09503 upward, none downward.
    mixed, wrong = table([[1, 0] * 50]), table(np.zeros((1, 30)))
    estimate = interval({"sums": mixed, "chains": wrong})
    half = estimate.loc["sums", "high"] - 0.5
    average = estimate.loc["average"]
    assert average["high"] - 0.25 == pytest.approx(math.hypot(half, 0.09503) / 2, rel=1e-3)
    assert 0.25 - average["low"] == pytest.approx(half / 2, rel=1e-3)


def test_over_seeds_by_hand():
    # 0.4, 0.5, 0.6: standard deviation 0.1, t(2) = 4.3027: half-width 4.3027 * 0.1 / sqrt(3) = 0.24842.
    assert over_seeds_interval(np.array([0.4, 0.5, 0.6])) == pytest.approx((0.5, 0.25158, 0.74842), abs=1e-5)
    assert over_seeds_interval(np.array([0.0, 0.1, 0.2]))[1] == 0.0  # 0.1 - 0.248, cut at the bound
    assert over_seeds_interval(np.array([-0.1, 0.0, 0.1]), (-1.0, 1.0))[1] == pytest.approx(-0.24842, abs=1e-5)


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.4, 0.4]])
def test_seeds_without_spread_have_no_interval(values):
    mean, low, high = over_seeds_interval(np.array(values))
    assert mean == pytest.approx(0.4) and math.isnan(low) and math.isnan(high)


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


def test_equal_input_equal_interval():
    values = {"sums": table(np.random.default_rng(2).random((3, 50)))}
    pd.testing.assert_frame_equal(interval(values), interval(values))


def test_paper_sized_interval_takes_well_under_a_second():
    generator = np.random.default_rng(3)
    values = {str(n): table(generator.random((3, n))) for n in (500, 30, 31, 83, 272, 675)}
    start = time.process_time()
    interval(values)
    assert time.process_time() - start < 1.0


def against_nothing(values):
    """The two arms of which the first is better by ``values``."""
    return values, {name: 0.0 * differences for name, differences in values.items()}


def test_p_value_where_problems_agree_by_hand():
    # Better by 0.1 on each of 30 problems: the interval reaches down to 0 where 1.1 * (1 - p^(1/30)) = 0.1, so p = (10/11)^30.
    p_values = paired_p_value(*against_nothing({"sums": table(np.full((1, 30), 0.1))}))
    assert p_values["sums"] == pytest.approx((10 / 11) ** 30)  # 0.0573
    assert paired_p_value(*against_nothing({"sums": table(np.full((3, 30), 0.2))}))["sums"] == pytest.approx((5 / 6) ** 30)


def test_p_value_of_one_seed_is_about_that_of_students_test():
    differences = np.random.default_rng(0).normal(0.05, 0.3, (1, 200))
    p_value = paired_p_value(*against_nothing({"sums": table(differences)}))["sums"]
    assert p_value == pytest.approx(stats.ttest_1samp(differences[0], 0).pvalue, rel=0.25)  # its spread is resampled


@pytest.mark.parametrize("seeds", [1, 3])
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
    values = {"sums": table([[1.0] * 399 + [0.0]])}
    assert paired_p_value(*against_nothing(values))["sums"] == 1e-100


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
    with pytest.raises(ValueError, match="within 0 and 1"):
        holm(np.array([0.2, 1.2]))


@pytest.mark.parametrize("freedom, expected", [(2, 0.77), (3, 0.8), (5, 0.8), (29, 0.8)])
def test_detectable_gains_are_found_with_80_percent(freedom, expected):
    told_apart = stats.t.ppf(0.975, freedom)
    shift = told_apart + stats.t.ppf(0.8, freedom)
    power = stats.nct.sf(told_apart, freedom, shift) + stats.nct.cdf(-told_apart, freedom, shift)
    assert power == pytest.approx(expected, abs=0.02)


def test_one_point_of_aime_cannot_be_seen():
    # 30 problems, avg@4, one seed, both arms at 1/2: standard error sqrt(2 * 0.25 / (4 * 30)) = 0.064550; t(29) of 97.5% and
    # 80%: 2.04523 + 0.85419. At the accuracy of 1/6: sqrt(2 * (5/36) / 120) = 0.048113.
    assert planned_detectable_gain({"aime24": 30}, samples=4)["aime24"] == pytest.approx(0.18716, abs=1e-5)
    sixth = planned_detectable_gain({"aime24": 30}, samples=4, accuracies={"aime24": 1 / 6})["aime24"]
    assert sixth == pytest.approx(2.89942 * 0.048113, abs=1e-5) and sixth > 13 * 0.01
    # A thousand times the samples would do: 0.18716 / sqrt(1000) = 0.0059.
    assert planned_detectable_gain({"aime24": 30}, samples=4000)["aime24"] == pytest.approx(0.00592, abs=1e-5)


def test_planned_with_several_seeds_by_hand():
    # Noise 2 * 0.25 / (4 * 3 * 30), counted thrice: the same spread as with one seed. Freedom 4 / (1/29 + 1/2) = 7.483, of
    # which t is 2.3339 + 0.8932 (97.5% and 80%).
    planned = planned_detectable_gain({"aime24": 30}, samples=4, seeds=3)["aime24"]
    assert planned == pytest.approx(0.064550 * (2.3339 + 0.8932), rel=1e-3)


def test_the_papers_table_needs_four_points_on_average():
    # Qwen2.5-Math-1.5B with GRPO, Table 1. Noise of each, 2 p (1 - p) / 4n, in 1e-4: 1.763, 23.15, 17.18, 14.99, 3.993,
    # 1.769: sum 62.85; standard error of the average sqrt(62.85e-4) / 6 = 0.01321. Freedom 125.5: t 1.979 + 0.845. The reported
    # gain is 40.19 - 38.35 = 1.84 points, half of it.
    problems = {"math500": 500, "aime24": 30, "aime25": 30, "amc": 83, "minerva_math": 272, "olympiadbench": 675}
    accuracies = dict(zip(problems, [0.7715, 0.1667, 0.1167, 0.5331, 0.3189, 0.3942], strict=True))
    average = planned_detectable_gain(problems, samples=4, accuracies=accuracies)["average"]
    assert average == pytest.approx(0.0373, abs=1e-4)


def test_plans_need_something_to_measure():
    for problems, samples, seeds in (({"sums": 1}, 4, 1), ({"sums": 30}, 0, 1), ({"sums": 30}, 4, 0)):
        with pytest.raises(ValueError, match="at least two problems"):
            planned_detectable_gain(problems, samples, seeds)


def test_detectable_gain_by_hand():
    # Three seeds gain 0.4, 0.5, 0.6 on every problem: standard error 0.1 / sqrt(3), t(2) of 97.5% and 80%: 4.3027 + 1.0607.
    gains = table(np.repeat([[0.4], [0.5], [0.6]], 50, axis=1))
    found = detectable_gain(*against_nothing({"sums": gains}))
    assert found["sums"] == pytest.approx(5.3634 * 0.1 / math.sqrt(3), rel=0.05)
    # Where 30 problems agree, the bound of 9.503% stands; the average of both takes it over in quadrature.
    both = detectable_gain(*against_nothing({"sums": gains, "chains": table(np.zeros((3, 30)))}))
    assert both["chains"] == pytest.approx(0.09503, abs=1e-5)
    error = found["sums"] / 5.3634
    assert both["average"] == pytest.approx((math.hypot(4.3027 * error, 0.09503) + 1.0607 * error) / 2, rel=0.01)
    assert detectable_gain(*against_nothing({"sums": table([[1.0]])})).isna().all()


def sampled_arms(generator, seeds, problems, samples, gain):
    """Two arms, better by ``gain`` around one half, that differ by nothing but sampling noise."""
    return [
        {"sums": table(generator.binomial(samples, 0.5 + shift, (seeds, problems)) / samples)}
        for shift in (gain / 2, -gain / 2)
    ]


@pytest.mark.parametrize("seeds, low, high", [(1, 0.74, 0.86), (3, 0.78, 1.0)])
def test_power_of_the_planned_gain(seeds, low, high):
    """80% with one seed; no less with several, whose interval allows for seeds that differ."""
    generator = np.random.default_rng(4)
    planned = planned_detectable_gain({"sums": 60}, samples=4, seeds=seeds)["sums"]
    arms = [sampled_arms(generator, seeds, 60, 4, planned) for _ in range(400)]
    found = np.mean([paired_gain(*pair).loc["sums", "low"] > 0 for pair in arms])
    # 400 trials leave a standard error of 0.02.
    assert low <= found <= high
    measured = np.mean([detectable_gain(*pair)["sums"] for pair in arms[:100]])
    assert measured == pytest.approx(planned, rel=0.05)


def simulated_gain(generator, seeds, seed_spread, benchmarks=6, problems=100, samples=4):
    """The gain between two arms that are equally good: its true value is 0. Spreads are in logits."""
    shift = generator.normal(0, seed_spread, (2, seeds, 1))
    arms = [{}, {}]
    for benchmark in range(benchmarks):
        difficulty = generator.normal(0.3, 1.5, problems)
        for arm in range(2):
            of_arm, of_run = generator.normal(0, 0.3, (1, problems)), generator.normal(0, 0.3, (seeds, problems))
            chance = 1 / (1 + np.exp(-(difficulty + shift[arm] + of_arm + of_run)))
            arms[arm][str(benchmark)] = table(generator.binomial(samples, chance) / samples)
    return paired_gain(*arms).loc["average"]


@pytest.mark.slow
@pytest.mark.parametrize("seeds, seed_spread", [(1, 0.0), (3, 0.0), (3, 0.1), (3, 0.3), (10, 0.1)])
def test_coverage(seeds, seed_spread):
    """The 95% interval holds the truth in at least 90% of trials, also with few and very different seeds."""
    generator = np.random.default_rng(seeds)
    trials = 250
    gains = [simulated_gain(generator, seeds, seed_spread) for _ in range(trials)]
    covered = np.mean([gain["low"] <= 0 <= gain["high"] for gain in gains])
    # 250 trials leave a standard error of 0.02 at 90%.
    assert covered >= 0.90 - 0.02
