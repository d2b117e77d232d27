"""A mini-batch on the device: cut into micro-batches once, for all passes over it.

The K + 1 passes of a step take the same completions in the same order. All that depends on them alone is made and moved to the
device before the first pass; after that, a pass gives the device work without waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfpo.algorithms.objectives import token_weights
from sfpo.config import Objective
from sfpo.ranks import Ranks
from sfpo.trainer.packing import MicroBatch, to_device
from sfpo.types import TrainBatch

Cut = Callable[[list[list[int]], list[list[int]], list[int]], Iterable[MicroBatch]]
"""(prompt ids, completion ids, rows) -> this rank's micro-batches of these rows."""


@dataclass(frozen=True)
class LossInputs:
    """A micro-batch of b completions with n tokens, and what its loss takes beside log-probs and entropies."""

    micro: MicroBatch
    advantages: Tensor
    """[b]"""
    lengths: Tensor
    """[b]"""
    weights: Tensor
    """[n], from ``token_weights`` of the whole mini-batch."""
    sampler_logprobs: Tensor | None
    """[n], where the objective asks for them."""


@dataclass(frozen=True)
class MiniBatch:
    """The completions of one optimizer step."""

    batch: TrainBatch
    """Where it comes from; its old log-probs are not used, since passes differ in them."""
    place: slice
    """Its tokens among those of the batch that it is a part of."""
    rows: list[int]
    """The completions with a gradient."""
    tokens: int
    """Of these, on all ranks."""
    parts: list[LossInputs]
    """This rank's share of them."""


def on_device(
    parts: Iterable[TrainBatch],
    objective: Objective,
    max_completion_tokens: int,
    cut: Cut,
    device: torch.device,
    dtype: torch.dtype,
) -> list[MiniBatch]:
    """The mini-batches of a batch.

    Args:
        parts: the mini-batches, in the batch's order.
        max_completion_tokens: as of ``token_weights``.
        dtype: of the loss weights.
    """
    made, start = [], 0
    for part in parts:
        lengths, rows = torch.tensor(part.lengths), rows_with_gradient(objective, part)
        weights = to_device(token_weights(objective.aggregation, lengths, max_completion_tokens).to(dtype), device)
        advantages, sampler = part.advantages, None
        if objective.sampler_correction_cap is not None and part.sampler_logprobs is not None:
            sampler = to_device(part.sampler_logprobs, device)
        inputs = [
            LossInputs(
                micro,
                to_device(advantages[micro.rows], device),
                to_device(lengths[micro.rows], device),
                weights[micro.tokens],
                None if sampler is None else sampler[micro.tokens],
            )
            for micro in cut(part.prompt_ids, part.completion_ids, rows)
        ]
        stop = start + sum(part.lengths)
        made.append(MiniBatch(part, slice(start, stop), rows, sum(part.lengths[row] for row in rows), inputs))
        start = stop
    return made


def rows_with_gradient(objective: Objective, batch: TrainBatch) -> list[int]:
    """Where the advantage is 0 the clipped loss has no gradient, and it takes a KL or entropy term to give one. Leaving the
    others out changes no gradient: the denominators stay the mini-batch's."""
    if objective.kl_coefficient or objective.entropy_coefficient:
        return list(range(len(batch)))
    return batch.advantages.nonzero().flatten().tolist()


class FirstPass:
    """Old log-probs and entropies as a mini-batch's own forward pass finds them, before anything has moved."""

    def __init__(self, mini: MiniBatch, device: torch.device) -> None:
        with_gradient = set(mini.rows)
        self.other_rows = [row for row in range(len(mini.batch)) if row not in with_gradient]
        """Left for a pass without gradient."""
        self.logprobs, self.entropy = (torch.zeros(sum(mini.batch.lengths), device=device) for _ in range(2))

    def take(self, micro: MicroBatch, logprobs: Tensor, entropy: Tensor) -> None:
        """Keep the numbers of one micro-batch."""
        self.logprobs[micro.tokens] = logprobs.detach().to(self.logprobs.dtype)
        self.entropy[micro.tokens] = entropy.detach().to(self.entropy.dtype)

    def share(self, ranks: Ranks) -> Tensor:
        """Once every completion has been taken: let every rank have all numbers. Returns the mean entropy."""
        ranks.sum_(self.logprobs)
        return ranks.sum_(self.entropy).mean()
