"""The trigger fires at the step worked out by hand, in both forms."""

import math

import pytest

from sfpo.algorithms.entropy_trigger import EntropyTrigger


def fire(trigger: EntropyTrigger, entropies: list[float]) -> int | None:
    for entropy in entropies:
        trigger.observe(entropy)
    return trigger.fired_at


def test_the_zscore_is_of_the_window_that_holds_the_value_itself():
    trigger = EntropyTrigger(window=4, threshold=9.0)
    fire(trigger, [5.0, 1.0, 1.0, 1.0, 3.0])
    # Last four: 1, 1, 1, 3: mean 1.5, population variance (3 x 0.25 + 2.25) / 4 = 0.75, z = 1.5 / sqrt(0.75) = sqrt(3).
    assert trigger.zscore == pytest.approx(math.sqrt(3))


def test_a_fall_of_entropy_fires_the_paper_form_alone():
    # Window 3, values 1.0, 1.0, 0.4: mean 0.8, std sqrt(0.08) = 0.2828, z = -1.414. Seen after step 3, in force from step 4.
    falling = [1.0, 1.0, 0.4]
    assert fire(EntropyTrigger(form="paper", window=3, threshold=1.0), falling) == 4
    assert fire(EntropyTrigger(form="released", window=3, threshold=1.0), falling) is None


def test_a_rise_of_entropy_fires_both_forms():
    rising = [1.0, 1.0, 1.6]
    assert fire(EntropyTrigger(form="paper", window=3, threshold=1.0), rising) == 4
    assert fire(EntropyTrigger(form="released", window=3, threshold=1.0), rising) == 4


def test_no_test_before_the_window_is_full():
    assert fire(EntropyTrigger(form="paper", window=30, threshold=1.0), [1.0, 9.0] * 14) is None


def test_flat_entropy_never_fires():
    # Equal values: the deviation from the mean is 0 (or rounding far below EPS), so z stays 0.
    assert fire(EntropyTrigger(form="paper", window=5, threshold=1.0), [0.7] * 100) is None


def test_the_latch_is_one_way():
    trigger = EntropyTrigger(window=3, threshold=1.0)
    assert fire(trigger, [1.0, 1.0, 1.6]) == 4
    assert fire(trigger, [1.0] * 10 + [2.0]) == 4


def test_nothing_is_tested_during_the_warm_up():
    # [1, 1, 1.6] has z = 1.41 at step 3. With 3 steps of warm-up the first test is at step 4: window 1, 1.6, 1.6, z = 0.71; at
    # step 5 the window 1.6, 1.6, 2.5 has z = 1.41 again.
    series = [1.0, 1.0, 1.6, 1.6, 2.5]
    assert fire(EntropyTrigger(window=3, threshold=1.0, warm_up=2), series) == 4
    assert fire(EntropyTrigger(window=3, threshold=1.0, warm_up=3), series) == 6


def test_settings_make_a_trigger_or_none():
    assert EntropyTrigger.from_settings(None) is None
    assert EntropyTrigger.from_settings({"window": 5}) == EntropyTrigger(window=5)
    with pytest.raises(ValueError, match=r"^entropy_trigger = 'on': allowed keys are form, window, threshold, warm_up"):
        EntropyTrigger.from_settings("on")
