from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.data.sampler import prompt_order


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**40), st.data())
def test_every_epoch_holds_every_prompt_once(num_prompts, per_step, seed, data):
    """Steps laid end to end, cut into pieces of num_prompts: each piece is a permutation."""
    steps = data.draw(st.integers(1, 30))
    stream = [index for step in range(steps) for index in prompt_order(num_prompts, per_step, step, seed)]
    assert len(stream) == steps * per_step
    for start in range(0, len(stream) - num_prompts + 1, num_prompts):
        assert sorted(stream[start : start + num_prompts]) == list(range(num_prompts))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**40))
def test_no_prompt_repeats_within_a_step(num_prompts, per_step, step, seed):
    most = max(Counter(prompt_order(num_prompts, per_step, step, seed)).values())
    if num_prompts >= per_step:
        assert most == 1
    else:
        # A step of P prompts touches at most ceil(P / N) + 1 epochs.
        assert most <= -(-per_step // num_prompts) + 1


def test_a_step_is_a_function_of_seed_and_step_alone():
    first = [prompt_order(10, 4, step, 7) for step in range(6)]
    assert [prompt_order(10, 4, step, 7) for step in reversed(range(6))] == first[::-1]
    assert [prompt_order(10, 4, step, 8) for step in range(6)] != first


def test_epochs_are_shuffled_anew():
    assert prompt_order(50, 50, 0, 0) != prompt_order(50, 50, 1, 0) != list(range(50))


def test_the_order_never_changes():
    """Golden: a run resumed with a later version must meet the same prompts. Step 2 spans two epochs (8, 9 | 10, 11)."""
    assert [prompt_order(10, 4, step, 0) for step in range(3)] == [[1, 6, 2, 8], [4, 9, 5, 7], [3, 0, 8, 5]]


@pytest.mark.parametrize(("num_prompts", "per_step", "step"), [(0, 4, 0), (4, 0, 0), (4, 4, -1)])
def test_what_cannot_be_ordered(num_prompts, per_step, step):
    with pytest.raises(ValueError, match=f"num_prompts = {num_prompts}, prompts_per_step = {per_step}, step = {step}: must be"):
        prompt_order(num_prompts, per_step, step, 0)
