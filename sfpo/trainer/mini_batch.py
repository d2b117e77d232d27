"""Mini-batches on the device, split into micro-batches once for all passes over them.

The K + 1 passes of a step use the same completions in the same order. Everything that depends only on these is prepared and
copied to the device before the first pass; after that, the host submits work without waiting for the device.
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
    """A micro-batch of b completions with n tokens, and the inputs of its loss other than log-probs and entropies."""

    micro: MicroBatch
    advantages: Tensor
    """[b]"""
    lengths: Tensor
    """[b]"""
    weights: Tensor
    """[n], from ``token_weights`` of the whole mini-batch."""
    sampler_logprobs: Tensor | None
    """[n], if the objective uses them."""


@dataclass(frozen=True)
class MiniBatch:
    """The completions of one optimizer step."""

    batch: TrainBatch
    """Its completions. The old log-probs in it are not used, since they can differ between passes."""
    place: slice
    """Its tokens within the whole batch."""
    rows: list[int]
    """Indices of the completions with a gradient."""
    tokens: int
    """Number of tokens of these completions, over all ranks."""
    parts: list[LossInputs]
    """This rank's micro-batches of these completions."""


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
        max_completion_tokens: as for ``token_weights``.
        dtype: data type of the loss weights.
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
    """Indices of the completions that have a gradient: those with a nonzero advantage, or all with a KL or entropy term.
    Skipping the others does not change gradients, since the denominators are those of the whole mini-batch."""
    if objective.kl_coefficient or objective.entropy_coefficient:
        return list(range(len(batch)))
    return batch.advantages.nonzero().flatten().tolist()


class FirstPass:
    """Collects old log-probs and entropies in the first pass over a batch of one mini-batch, before the weights change."""

    def __init__(self, mini: MiniBatch, device: torch.device) -> None:
        with_gradient = set(mini.rows)
        self.other_rows = [row for row in range(len(mini.batch)) if row not in with_gradient]
        """Completions without a gradient, to be scored in a separate pass."""
        self.logprobs, self.entropy = (torch.zeros(sum(mini.batch.lengths), device=device) for _ in range(2))

    def take(self, micro: MicroBatch, logprobs: Tensor, entropy: Tensor) -> None:
        """Store the values of one micro-batch."""
        self.logprobs[micro.tokens] = logprobs.detach().to(self.logprobs.dtype)
        self.entropy[micro.tokens] = entropy.detach().to(self.entropy.dtype)

    def share(self, ranks: Ranks) -> Tensor:
        """Exchange the values between ranks when all completions have been stored. Returns the mean entropy."""
        ranks.sum_(self.logprobs)
        return ranks.sum_(self.entropy).mean()
