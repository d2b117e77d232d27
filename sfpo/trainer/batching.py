"""From rollouts to tensors: a training batch out of groups, and padded micro-batches out of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfpo.types import RolloutGroup, TrainBatch


@dataclass(frozen=True)
class MicroBatch:
    """Some completions of a batch, ready for one forward pass. b rows, n completion tokens."""

    rows: list[int]
    """Indices of the completions in the batch."""
    input_ids: Tensor
    """[b, t]: prompt then completion, padded on the right. Under a causal mask no real token sees the padding."""
    positions: Tensor
    """[n]: indices into the flattened [b * t] positions whose output predicts a completion token."""
    targets: Tensor
    """[n]: those tokens."""
    tokens: Tensor
    """[n]: indices of those tokens among the N completion tokens of the batch."""


def rewards_of(groups: Sequence[RolloutGroup]) -> Tensor:
    """[groups, completions per group] float32."""
    return torch.tensor([group.rewards for group in groups])


def sequences_of(groups: Sequence[RolloutGroup]) -> tuple[list[list[int]], list[list[int]]]:
    """(prompt ids, completion ids) of every completion, group after group."""
    prompts = [group.prompt.token_ids for group in groups for _ in group.completions]
    completions = [completion.token_ids for group in groups for completion in group.completions]
    return prompts, completions


def micro_batches(
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    max_tokens: int,
    device: torch.device,
    rows: Sequence[int] | None = None,
) -> Iterator[MicroBatch]:
    """Cut sequences into micro-batches of at most ``max_tokens`` tokens, padding counted, shortest first.

    A sequence longer than ``max_tokens`` gets a micro-batch of its own.

    Args:
        rows: the completions to take; None: all.
    """
    lengths = [len(completion) for completion in completion_ids]
    first_token = [0]
    for length in lengths:
        first_token.append(first_token[-1] + length)
    totals = [len(prompt) + length for prompt, length in zip(prompt_ids, lengths, strict=True)]
    by_length = sorted(range(len(totals)) if rows is None else rows, key=totals.__getitem__)
    start = 0
    while start < len(by_length):
        stop = start + 1
        while stop < len(by_length) and totals[by_length[stop]] * (stop + 1 - start) <= max_tokens:
            stop += 1
        taken = by_length[start:stop]
        yield _collate(taken, prompt_ids, completion_ids, first_token, totals[taken[-1]], device)
        start = stop


def _collate(
    rows: list[int],
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    first_token: list[int],
    width: int,
    device: torch.device,
) -> MicroBatch:
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions, tokens = [], []
    for place, row in enumerate(rows):
        sequence = prompt_ids[row] + completion_ids[row]
        input_ids[place, : len(sequence)] = torch.tensor(sequence)
        # The output at a position predicts the token after it.
        first = place * width + len(prompt_ids[row]) - 1
        positions.append(torch.arange(first, first + len(completion_ids[row])))
        tokens.append(torch.arange(first_token[row], first_token[row + 1]))
    positions_of_all = torch.cat(positions)
    return MicroBatch(
        rows=rows,
        input_ids=input_ids.to(device),
        positions=positions_of_all.to(device),
        targets=input_ids.flatten()[positions_of_all + 1].to(device),
        tokens=torch.cat(tokens).to(device),
    )


def sampler_logprobs_of(groups: Sequence[RolloutGroup]) -> Tensor:
    """[N] float32: as the engine sampled the tokens, all completions end to end."""
    return torch.tensor([logprob for group in groups for completion in group.completions for logprob in completion.logprobs])


def train_batch(groups: Sequence[RolloutGroup], advantages: Tensor, old_logprobs: Tensor, entropy: float) -> TrainBatch:
    """The batch that an update rule consumes.

    Args:
        advantages: [groups, completions per group].
        old_logprobs: [N], of all completion tokens end to end.
        entropy: mean over the N tokens, nats.
    """
    prompt_ids, completion_ids = sequences_of(groups)
    return TrainBatch(
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        advantages=advantages.flatten(),
        old_logprobs=old_logprobs,
        entropy=entropy,
        group_size=advantages.shape[1],
        sampler_logprobs=sampler_logprobs_of(groups).to(old_logprobs.device),
    )
