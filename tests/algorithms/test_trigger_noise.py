"""What the trigger does on entropies that only fluctuate: facts that hold for any independent normal noise."""

import math

import numpy as np
import pytest
from scipy import stats

from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.seeding import seed_of

WINDOW, SERIES, STEPS = 30, 500, 60
NOISE = np.random.default_rng(seed_of("test", "trigger noise")).normal(size=(SERIES, STEPS))
NEVER = math.inf


def fired_at(entropies, form="released", threshold=1.0, window=WINDOW):
    trigger = EntropyTrigger(form=form, window=window, threshold=threshold)
    for entropy in entropies:
        trigger.observe(float(entropy))
    return NEVER if trigger.fired_at is None else trigger.fired_at


def steps_of(form, threshold=1.0, noise=NOISE):
    return np.array([fired_at(series, form, threshold) for series in noise])


RELEASED, PAPER = steps_of("released"), steps_of("paper")


def four_errors(chance):
    """Four standard errors of a share over the series: a right program misses by more in 1 of 16,000 draws."""
    return 4 * math.sqrt(chance * (1 - chance) / SERIES)


@pytest.mark.parametrize(
    "form, threshold, chance",
    [
        # For n normal values and z of one of them among all n (population deviation), t = z sqrt((n - 2) / (n - 1 - z^2)) has
        # Student's distribution with n - 2 degrees of freedom. n = 30, z = 1: t = sqrt(28 / 28) = 1, P(t28 >= 1) = 0.1629; two
        # sides 0.3259. z = 2: t = 2 sqrt(28 / 25) = 2.1166, P(t28 >= 2.1166) = 0.0217.
        ("released", 1.0, 0.1629),
        ("paper", 1.0, 0.3259),
        ("released", 2.0, 0.0217),
    ],
)
def test_chance_of_the_first_test(form, threshold, chance):
    t = threshold * math.sqrt((WINDOW - 2) / (WINDOW - 1 - threshold**2))
    assert stats.t.sf(t, WINDOW - 2) * (2 if form == "paper" else 1) == pytest.approx(chance, abs=1e-4)
    # The first test is after step 30; what fires there is in force from step 31.
    share = np.mean(steps_of(form, threshold) == WINDOW + 1)
    assert share == pytest.approx(chance, abs=four_errors(chance))


def test_no_series_fires_before_its_window_is_full():
    assert min(RELEASED) > WINDOW and min(PAPER) > WINDOW
    assert fired_at(NOISE[0, : WINDOW - 1], "paper") == NEVER


@pytest.mark.parametrize("steps, chance", [(RELEASED, 0.1629), (PAPER, 0.3259)])
def test_firing_by_a_test_lies_between_one_chance_and_their_sum(steps, chance):
    # By test m it has fired with at least the chance of one test and at most that of m (the union bound), whatever the tests,
    # which share their windows, have to do with one another.
    for tests in (1, 2, 3):
        share = np.mean(steps <= WINDOW + tests)
        assert chance - four_errors(chance) <= share <= tests * chance + four_errors(min(tests * chance, 0.5))


def test_at_threshold_one_the_trigger_is_close_to_a_timer():
    # Released: two tests fire at most 2 x 0.163 = 0.33 < 0.5, so the median step is at least 33. Were tests independent, four
    # would fire 1 - 0.837^4 = 0.51: a median of 34. The sample median of 500 is within a step of its own: the share that has
    # fired rises by some 0.1 a step there, four standard errors are 0.09.
    assert 33 <= np.median(RELEASED) <= 35
    assert 31 <= np.median(PAPER) <= 33  # independent tests: 1 - 0.674^2 = 0.55 by step 32
    # Noise alone: 30 tests, were they independent, leave 0.837^30 = 0.005 of series without a firing.
    assert np.mean(RELEASED <= STEPS + 1) >= 0.98


def test_two_sides_fire_no_later_than_one_and_low_thresholds_no_later_than_high():
    assert (PAPER <= RELEASED).all() and (PAPER < RELEASED).any()
    delay = steps_of("paper", 1.5) - PAPER
    assert delay.min() == 0 and delay.max() > 0


def test_only_the_shape_of_the_entropies_counts():
    # z keeps its value under any shift and positive scale; |z| also under a mirror.
    scaled = 0.8 + 0.05 * NOISE[:100]
    np.testing.assert_array_equal(steps_of("released", noise=scaled), RELEASED[:100])
    np.testing.assert_array_equal(steps_of("paper", noise=-scaled), PAPER[:100])
    assert (steps_of("released", noise=-scaled) != RELEASED[:100]).any()


@pytest.mark.parametrize("slope", [0.001, 0.1])
def test_a_steady_fall_fires_the_paper_form_at_once_and_the_released_one_never(slope):
    # On a line, the newest of n values lies (n - 1) / 2 steps from the mean, and their deviation is sqrt((n^2 - 1) / 12) steps:
    # n = 30: |z| = 14.5 / sqrt(899 / 12) = 1.675.
    fall = 2.0 - slope * np.arange(STEPS)
    assert fired_at(fall, "paper", 1.67) == WINDOW + 1 and fired_at(fall, "paper", 1.68) == NEVER
    assert fired_at(fall, "released") == NEVER
    assert fired_at(-fall, "released") == WINDOW + 1
