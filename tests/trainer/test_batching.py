"""Training batches list completions group after group."""

import pytest
import torch

from sfpo.trainer.batching import rewards_of, train_batch
from sfpo.types import Completion, OldPolicy, Prompt, RolloutGroup


def test_a_batch_lists_completions_group_after_group():
    def group(prompt: int, rewards: list[float]) -> RolloutGroup:
        completions = [Completion([10 * prompt + i], [-0.5], "x", False) for i in range(len(rewards))]
        return RolloutGroup(Prompt(str(prompt), "?", ("1",), [prompt]), completions, rewards, [r > 0 for r in rewards])

    groups = [group(1, [1.0, 0.0]), group(2, [0.0, 0.0])]
    assert rewards_of(groups).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    batch = train_batch(groups, torch.tensor([[0.7, -0.7], [0.0, 0.0]]), OldPolicy(torch.zeros(4), entropy=1.5))
    assert batch.prompt_ids == [[1], [1], [2], [2]] and batch.completion_ids == [[10], [11], [20], [21]]
    assert batch.advantages.tolist() == pytest.approx([0.7, -0.7, 0.0, 0.0])
    assert (batch.group_size, batch.old.entropy, batch.lengths) == (2, 1.5, [1, 1, 1, 1])
