"""From rollouts to tensors: a training batch out of groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfpo.types import OldPolicy, RolloutGroup, TrainBatch


def rewards_of(groups: Sequence[RolloutGroup]) -> Tensor:
    """[groups, completions per group] float32."""
    return torch.tensor([group.rewards for group in groups])


def sequences_of(groups: Sequence[RolloutGroup]) -> tuple[list[list[int]], list[list[int]]]:
    """(prompt ids, completion ids) of every completion, group after group."""
    prompts = [group.prompt.token_ids for group in groups for _ in group.completions]
    completions = [completion.token_ids for group in groups for completion in group.completions]
    return prompts, completions


def sampler_logprobs_of(groups: Sequence[RolloutGroup]) -> Tensor:
    """[N] float32: as the engine sampled the tokens, all completions end to end."""
    return torch.tensor([logprob for group in groups for completion in group.completions for logprob in completion.logprobs])


def train_batch(groups: Sequence[RolloutGroup], advantages: Tensor, old: OldPolicy | None) -> TrainBatch:
    """The batch that an update rule consumes.

    Args:
        advantages: [groups, completions per group].
        old: on all completion tokens end to end; None: the first pass finds it out.
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
