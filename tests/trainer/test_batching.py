"""Micro-batches hold every completion token once, with the position that predicts it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfpo.trainer.batching import micro_batches, rewards_of, train_batch
from sfpo.types import Completion, Prompt, RolloutGroup

CPU = torch.device("cpu")


def test_one_micro_batch_by_hand():
    # Rows: prompt 1 2 + completion 3 (length 3), prompt 4 + completion 5 6 7 (length 4); width 4.
    (micro,) = micro_batches([[1, 2], [4]], [[3], [5, 6, 7]], max_tokens=8, device=CPU)
    assert micro.input_ids.tolist() == [[1, 2, 3, 0], [4, 5, 6, 7]]
    # Token 3 is predicted at position 1 of row 0; 5, 6, 7 at positions 0, 1, 2 of row 1, flattened 4, 5, 6.
    assert micro.positions.tolist() == [1, 4, 5, 6]
    assert micro.targets.tolist() == [3, 5, 6, 7]
    assert micro.rows == [0, 1] and micro.tokens.tolist() == [0, 1, 2, 3]


def test_a_sequence_over_the_budget_gets_a_micro_batch_of_its_own():
    sizes = [len(m.rows) for m in micro_batches([[1]] * 3, [[2] * 9, [2], [2]], max_tokens=4, device=CPU)]
    assert sizes == [2, 1]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=12),
    max_tokens=st.integers(4, 64),
)
def test_every_token_is_scored_once_within_the_budget(lengths, max_tokens):
    token = iter(range(1, 10_000))
    prompts = [[next(token) for _ in range(length)] for length, _ in lengths]
    completions = [[next(token) for _ in range(length)] for _, length in lengths]
    flat = torch.tensor([value for completion in completions for value in completion])
    seen = torch.zeros(len(flat))
    for micro in micro_batches(prompts, completions, max_tokens, CPU):
        assert micro.input_ids.numel() <= max_tokens or len(micro.rows) == 1
        assert torch.equal(flat[micro.tokens], micro.targets)
        seen[micro.tokens] += 1
        # The token before each target stands at the position that predicts it.
        assert torch.equal(micro.input_ids.flatten()[micro.positions + 1], micro.targets)
    assert seen.eq(1).all()


def test_a_batch_lists_completions_group_after_group():
    def group(prompt: int, rewards: list[float]) -> RolloutGroup:
        completions = [Completion([10 * prompt + i], [-0.5], "x", False) for i in range(len(rewards))]
        return RolloutGroup(Prompt(str(prompt), "?", ("1",), [prompt]), completions, rewards, [r > 0 for r in rewards])

    groups = [group(1, [1.0, 0.0]), group(2, [0.0, 0.0])]
    assert rewards_of(groups).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    batch = train_batch(groups, torch.tensor([[0.7, -0.7], [0.0, 0.0]]), torch.zeros(4), entropy=1.5)
    assert batch.prompt_ids == [[1], [1], [2], [2]] and batch.completion_ids == [[10], [11], [20], [21]]
    assert batch.advantages.tolist() == pytest.approx([0.7, -0.7, 0.0, 0.0])
    assert (batch.group_size, batch.entropy, batch.lengths) == (2, 1.5, [1, 1, 1, 1])
