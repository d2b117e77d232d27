"""Converts rollout groups to the tensors of a training batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfpo.types import OldPolicy, RolloutGroup, TrainBatch


def rewards_of(groups: Sequence[RolloutGroup]) -> Tensor:
    """Rewards, [groups, completions per group] float32."""
    return torch.tensor([group.rewards for group in groups])


def sequences_of(groups: Sequence[RolloutGroup]) -> tuple[list[list[int]], list[list[int]]]:
    """(prompt token ids, completion token ids) of every completion, in the order of the groups."""
    prompts = [group.prompt.token_ids for group in groups for _ in group.completions]
    completions = [completion.token_ids for group in groups for completion in group.completions]
    return prompts, completions


def sampler_logprobs_of(groups: Sequence[RolloutGroup]) -> Tensor:
    """The engine's log-probs of the sampled tokens, [N] float32, all completions concatenated."""
    return torch.tensor([logprob for group in groups for completion in group.completions for logprob in completion.logprobs])


def train_batch(groups: Sequence[RolloutGroup], advantages: Tensor, old: OldPolicy | None) -> TrainBatch:
    """The batch that an update rule consumes.

    Args:
        advantages: [groups, completions per group].
        old: log-probs of the sampling policy for all N completion tokens; None if the first pass of the update computes them.
    """
    prompt_ids, completion_ids = sequences_of(groups)
    return TrainBatch(
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        advantages=advantages.flatten(),
        old=old,
        group_size=advantages.shape[1],
        sampler_logprobs=sampler_logprobs_of(groups),
    )
