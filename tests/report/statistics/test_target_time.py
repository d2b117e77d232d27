import math

import numpy as np
import pytest

from eval.report.statistics.target_time import Curves, cost_to, isotonic, mean_cost, ratio_of_costs


def curves(*accuracy, price=100.0):
    """Seeds' accuracies at validations 0, 1, 2 ...; a validation costs 100."""
    accuracy = np.array(accuracy, float)
    return Curves(accuracy, {"rollouts": price * np.tile(np.arange(accuracy.shape[1]), (len(accuracy), 1))})


def fixed(level):
    return lambda first: level


def test_the_mean_curve_is_made_monotone():
    # Means 0.2, 0.6, 0.4, 0.8: the middle two are pooled.
    np.testing.assert_allclose(isotonic(curves([0.1, 0.5, 0.4, 0.8], [0.3, 0.7, 0.4, 0.8])), [0.2, 0.5, 0.5, 0.8])


@pytest.mark.parametrize(
    "level, cost",
    [
        (0.5, 100.0),  # where the flat part begins
        (0.35, 50.0),  # half way up to it
        (0.65, 250.0),
        (0.8, 300.0),
        (0.81, math.nan),
        (0.1, 100.0),  # below the start: the first validation after it
        (0.2, 100.0),
    ],
)
def test_the_crossing_is_between_validations(level, cost):
    assert cost_to(curves([0.2, 0.6, 0.4, 0.8]), level, "rollouts") == pytest.approx(cost, nan_ok=True)


def test_costs_are_means_over_seeds():
    pair = Curves(np.array([[0.0, 0.4], [0.0, 0.4]]), {"seconds": np.array([[0.0, 10.0], [0.0, 30.0]])})
    assert cost_to(pair, 0.2, "seconds") == pytest.approx(10)


def test_one_lucky_validation_is_not_an_arrival():
    """A first crossing would be at the second validation; the isotonic one is where the curve stays."""
    run = curves([0.2, 0.21, 0.5, 0.22, 0.24, 0.26, 0.5, 0.52])
    # 0.5, 0.22, 0.24, 0.26 are pooled to 0.305; 0.45 is reached at 5 + 0.145 / 0.195.
    assert cost_to(run, 0.45, "rollouts") == pytest.approx(100 * (5 + 0.145 / 0.195))


def test_a_ratio_without_spread_has_no_interval():
    same = ratio_of_costs(
        curves([0.0, 0.2, 0.4], [0.0, 0.2, 0.4]), curves([0.0, 0.4, 0.4], [0.0, 0.4, 0.4]), fixed(0.4), "rollouts"
    )
    assert same.value == pytest.approx(2) and math.isnan(same.low) and math.isnan(same.p)


def test_unknown_where_one_does_not_arrive():
    low, high = curves([0.0, 0.2, 0.3]), curves([0.0, 0.2, 0.4])
    for pair in ((low, high), (high, low)):
        found = ratio_of_costs(*pair, fixed(0.4), "rollouts")
        assert math.isnan(found.value) and math.isnan(found.low)


def test_no_interval_where_it_does_not_arrive_without_a_seed():
    high, mixed = curves([0.0, 0.4, 0.4], [0.0, 0.3, 0.4]), curves([0.0, 0.3, 0.3], [0.0, 0.3, 0.6])
    found = ratio_of_costs(high, mixed, fixed(0.4), "rollouts")  # mixed: 0.45 at the end; without seed 1 0.3
    assert found.value > 0 and math.isnan(found.low)


def test_the_level_is_found_again_without_each_seed():
    # Half of the last accuracy. All: 0.3 of means 0, 0.3, 0.6: at 100. Without seed 0: 0.4 of 0, 0.4, 0.8; without 1: 0.2 of
    # 0, 0.2, 0.4: at 100 each, so no spread; with a level that is fixed at 0.3 there is: at 75 and 150.
    one = curves([0.0, 0.2, 0.4], [0.0, 0.4, 0.8])
    assert math.isnan(mean_cost(one, lambda first: isotonic(first)[-1] / 2, "rollouts").low)
    found = mean_cost(one, fixed(0.3), "rollouts")
    # Jackknife: log 75 and log 150, standard deviation (of 2) log(2) / 2; error the same; t(1) = 12.7062.
    half = 12.7062 * math.log(2) / 2
    assert (found.value, found.low, found.high) == pytest.approx((100, 100 * math.exp(-half), 100 * math.exp(half)), rel=1e-3)


def test_seeds_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="2 and 1 seeds"):
        ratio_of_costs(curves([0, 1], [0, 1]), curves([0, 1]), fixed(0.5), "rollouts")


def suite(generator, speed, seeds, noise, spread=0.01):
    """Curves like the tiny suite's: 45% to 65%, a validation every 5 of 60 steps."""
    grown = 1 - np.exp(-np.arange(0, 61, 5) * speed / 25)
    shift = generator.normal(0, spread, (seeds, 1)) * grown
    return curves(*(0.45 + 0.2 * grown + shift + generator.normal(0, noise, (seeds, 13))))


def half_of_gain(first):
    curve = isotonic(first)
    return curve[0] + 0.5 * (curve[-1] - curve[0])


@pytest.mark.parametrize("speed", [1.0, 2.0])
@pytest.mark.parametrize("seeds, noise", [(3, 0.02), (5, 0.03)])
def test_a_true_ratio_is_reported_as_it_is(speed, seeds, noise):
    """A true 2.0x is 1.85x to 2.1x on average, and the interval holds it in 90% or more."""
    generator = np.random.default_rng(1)
    found = [
        ratio_of_costs(suite(generator, 1.0, seeds, noise), suite(generator, speed, seeds, noise), half_of_gain, "rollouts")
        for _ in range(200)
    ]
    mean = np.nanmean([one.value for one in found])
    assert 0.925 * speed <= mean <= 1.05 * speed
    # 200 trials leave a standard error of 0.021 at 90%.
    assert np.mean([one.low <= speed <= one.high for one in found if not math.isnan(one.low)]) >= 0.90 - 0.021
    assert np.mean([math.isnan(one.low) for one in found]) < 0.05
