import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.report.statistics.comparisons import GAIN_BOUNDS, paired_gain
from eval.report.statistics.intervals import interval, over_seeds_interval, over_seeds_p_value, wilson


def table(values, seeds=None):
    values = np.asarray(values, float)
    return pd.DataFrame(values, index=pd.Index(range(len(values)) if seeds is None else seeds, name="seed"))


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
    # 100 problems, half right: standard error sqrt(0.25 / 99) = 0.050252, t(99) = 1.98422: reach r = 0.099710. Wilson's h =
    # r^2 / 0.25 = 0.039768: half-width sqrt(r^2 + h^2 / 4) / (1 + h) = 0.097785.
    estimate = interval({"sums": table([[1, 0] * 50])}).loc["sums"]
    assert estimate["n_seeds"] == 1
    assert (estimate["low"], estimate["high"]) == pytest.approx((0.5 - 0.097785, 0.5 + 0.097785), abs=1e-6)


def test_wilson_is_the_textbook_one_where_samples_are_independent():
    # 2 of 50 right, z = 1.96: reach z * sqrt(0.04 * 0.96 / 50) = 0.054317. Wilson's: center (0.04 + z^2/100) / (1 + z^2/50),
    # half z sqrt(0.04 * 0.96 / 50 + z^2/10^4) / (1 + z^2/50): 0.07282 -+ 0.06182.
    below, above = wilson(np.array([0.04]), np.array([0.0543164]))
    assert (0.04 - below[0], 0.04 + above[0]) == pytest.approx((0.01100, 0.13460), abs=1e-4)


def test_wilson_keeps_the_reach_of_all_and_none():
    below, above = wilson(np.array([0.0, 1.0]), np.array([0.1, 0.2]))
    assert below.tolist() == above.tolist() == [0.1, 0.2]


def test_low_accuracies_reach_further_up_than_down():
    estimate = interval({"sums": table([[1] + [0] * 29])}).loc["sums"]
    assert estimate["high"] - estimate["mean"] > 2 * (estimate["mean"] - estimate["low"]) > 0


def test_seeds_alone_give_students_interval():
    # Problems all alike: the interval is that of three seed means 0.4, 0.5, 0.6: 0.5 +- t(2) * 0.1 / sqrt(3), t(2) = 4.30265.
    gain = interval({"sums": table(np.repeat([[0.4], [0.5], [0.6]], 50, axis=1))}, GAIN_BOUNDS).loc["sums"]
    assert gain["n_seeds"] == 3
    assert gain["high"] - 0.5 == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)


def test_seeds_and_problems_together_by_hand():
    # [[0, 2], [2, 8]]: mean 3; seeds' means 1, 5: MS over problems of a mean 8 / 2 = 4; problems' means 1, 5: 8 / 2 = 4; what
    # is left of each cell: 0 - 1 - 1 + 3 = 1, -1, -1, 1: MS 4, of the mean 4 / 4 = 1, in both of the others. Variance 4 + 4 -
    # 1 = 7; degrees of freedom 8^2 / (16 + 16) = 2. t(2) sqrt(7) = 11.384 is less than Student's of the seeds' means, t(1) *
    # 2 = 25.412, so that holds.
    wide = interval({"sums": table([[0, 2], [2, 8]])}, (-100.0, 100.0)).loc["sums"]
    assert wide["high"] - 3 == pytest.approx(25.412, abs=1e-3)


def test_the_variance_counts_what_is_left_of_a_cell_once():
    """Noise alone: its variance is that of all cells' mean, not three times as much."""
    generator = np.random.default_rng(5)
    noise = [generator.normal(0, 1, (10, 200)) for _ in range(200)]
    halves = [interval({"sums": table(values)}, (-9.0, 9.0)).loc["sums"] for values in noise]
    reach = np.mean([(one["high"] - one["low"]) / 2 for one in halves])
    assert reach == pytest.approx(
        stats.t.ppf(0.975, 9) / math.sqrt(2000), rel=0.15
    )  # Student's over ten averages, or a bit more


def test_seeds_are_drawn_once_for_all_benchmarks():
    # The same seed effect in both: the average keeps it whole. Drawn apart, it would shrink by sqrt(2).
    values = table(np.repeat([[0.4], [0.5], [0.6]], 50, axis=1))
    estimate = interval({"sums": values, "chains": values})
    assert estimate.loc["average", "high"] == pytest.approx(estimate.loc["sums", "high"])


def test_problems_are_each_benchmarks_own():
    # One seed, two benchmarks of the same spread: the average's half-width shrinks by sqrt(2), and t(198) is a bit less than
    # t(99).
    values = table([[1, 0] * 50])
    width = interval({"sums": values, "chains": values}, GAIN_BOUNDS).pipe(lambda one: one["high"] - one["low"])
    shrunk = math.sqrt(2) * stats.t.ppf(0.975, 99) / stats.t.ppf(0.975, 198)
    assert width["sums"] / width["average"] == pytest.approx(shrunk)


def test_interval_stays_within_bounds():
    estimate = interval({"sums": table([[1, 1, 1, 0], [1, 1, 1, 1]])}).loc["sums"]
    assert 0.0 <= estimate["low"] < 0.875 < estimate["high"] <= 1.0
    gain = interval({"sums": table([[0.9, -0.9], [0.9, 0.9]])}, GAIN_BOUNDS).loc["sums"]
    assert (gain["low"], gain["high"]) == (-1.0, 1.0)


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
    better, worse = table(np.tile([0.3, 0.1], (2, 15))), table(np.tile([0.2, 0.0], (2, 15)))
    gain = paired_gain({"sums": better}, {"sums": worse}).loc["sums"]
    assert gain["low"] == pytest.approx(0.1 - 0.09503 * 1.1, abs=1e-5)


def test_the_bound_holds_in_at_least_95_percent():
    # The worst truth for 30 problems all wrong: a share q of problems is always right. None is drawn with chance (1 - q)^30,
    # and only then is the bound at stake: for q above 0.09503 that is under 5%, for q below the bound holds.
    high = interval({"sums": table(np.zeros((1, 30)))}).loc["sums", "high"]
    assert (1 - high) ** 30 == pytest.approx(0.05)


def test_the_average_takes_over_the_bound():
    # One seed, gains. sums: half-width h; chains: 30 without a difference, 0.09503 either way.
    estimate = interval({"sums": table([[1, 0] * 50]), "chains": table(np.zeros((1, 30)))}, GAIN_BOUNDS)
    half = estimate.loc["sums", "high"] - 0.5
    average = estimate.loc["average"]
    reach = math.hypot(math.sqrt(0.25 / 99) / 2 * stats.t.ppf(0.975, 99), 0.09503 / 2)
    assert half == pytest.approx(1.98422 * math.sqrt(0.25 / 99), rel=1e-5)
    assert average["high"] - 0.25 == pytest.approx(reach, rel=1e-4) == 0.25 - average["low"]


def test_over_seeds_by_hand():
    # 0.4, 0.5, 0.6: standard deviation 0.1, t(2) = 4.3027: half-width 4.3027 * 0.1 / sqrt(3) = 0.24842.
    assert over_seeds_interval(np.array([0.4, 0.5, 0.6])) == pytest.approx((0.5, 0.25158, 0.74842), abs=1e-5)
    assert over_seeds_interval(np.array([0.0, 0.1, 0.2]))[1] == 0.0  # 0.1 - 0.248, cut at the bound
    assert over_seeds_interval(np.array([-0.1, 0.0, 0.1]), (-1.0, 1.0))[1] == pytest.approx(-0.24842, abs=1e-5)


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.4, 0.4]])
def test_seeds_without_spread_have_no_interval(values):
    mean, low, high = over_seeds_interval(np.array(values))
    assert mean == pytest.approx(0.4) and math.isnan(low) and math.isnan(high)


def test_p_value_over_seeds_by_hand():
    # 1, 2, 3: mean 2, error 1 / sqrt(3): t = 3.4641; p of t(2): 1 - t / sqrt(2 + t^2) = 0.07418.
    assert over_seeds_p_value(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.07418, abs=1e-5)
    assert math.isnan(over_seeds_p_value(np.array([1.0]))) and math.isnan(over_seeds_p_value(np.array([1.0, 1.0])))


def test_paper_sized_interval_takes_well_under_a_second():
    generator = np.random.default_rng(3)
    values = {str(n): table(generator.random((3, n))) for n in (500, 30, 31, 83, 272, 675)}
    start = time.process_time()
    interval(values)
    assert time.process_time() - start < 1.0
