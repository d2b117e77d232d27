"""Data types shared by all parts of the project.

B = completions in a batch, N = completion tokens in a batch (concatenated completions, no padding).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """One problem, rendered by the model's chat template."""

    id: str
    """Stable row id, for instance 'math/00012'."""
    problem: str
    answer: tuple[str, ...]
    """Gold answers. Several: all must be given, in any order."""
    token_ids: list[int]


@dataclass(frozen=True)
class Completion:
    """One sampled answer to a prompt."""

    token_ids: list[int]
    """Including the stop token, if one was sampled."""
    logprobs: list[float]
    """Log-prob of each sampled token under the sampler (nats; after temperature and top_p)."""
    text: str
    """Decoded without special tokens."""
    truncated: bool
    """Reached the token limit without a stop token."""


@dataclass(frozen=True)
class RolloutGroup:
    """All completions of one prompt in one step, with their rewards."""

    prompt: Prompt
    completions: list[Completion]
    rewards: list[float]
    correct: list[bool]
    """The grader's verdict on each completion. A reward may differ from it (shaping)."""

    @property
    def has_variance(self) -> bool:
        """Whether rewards differ: otherwise all advantages are 0 and the group has no gradient."""
        return any(reward != self.rewards[0] for reward in self.rewards)


@dataclass(frozen=True)
class OldPolicy:
    """Log-probs and entropy, computed in torch, of a batch's completion tokens under the policy that sampled them
    (theta^{s,0})."""

    logprobs: Tensor
    """[N] float32 (nats)."""
    entropy: float
    """Mean over the N tokens (nats per token)."""


@dataclass(frozen=True)
class TrainBatch:
    """The batch of an update rule: B completions, group by group, the same in all updates of a step."""

    prompt_ids: list[list[int]]
    """B prompts (each repeated for the completions of its group)."""
    completion_ids: list[list[int]]
    """B completions, N tokens together."""
    advantages: Tensor
    """[B] float32, one per completion."""
    old: OldPolicy | None
    """What ratios are measured against. None: the batch is one mini-batch, so that the first pass over it finds this out before
    anything moves, and returns it (see ``Update``)."""
    group_size: int
    sampler_logprobs: Tensor | None = None
    """[N] float32: log-probs of the same tokens under the sampler; None: not known."""

    def __post_init__(self) -> None:
        if not len(self.prompt_ids) == len(self.completion_ids) == len(self.advantages):
            raise ValueError(
                f"a batch needs as many prompts ({len(self.prompt_ids)}) and advantages ({len(self.advantages)}) "
                f"as completions ({len(self.completion_ids)})"
            )
        for what, logprobs in (("old", self.old.logprobs if self.old else None), ("sampler", self.sampler_logprobs)):
            if logprobs is not None and sum(self.lengths) != len(logprobs):
                raise ValueError(f"{len(logprobs)} {what} log-probs for {sum(self.lengths)} completion tokens")

    def __len__(self) -> int:
        return len(self.completion_ids)

    @cached_property
    def lengths(self) -> list[int]:
        """[B] tokens of each completion."""
        return [len(ids) for ids in self.completion_ids]

    def with_old(self, old: OldPolicy) -> TrainBatch:
        """This batch with ``old``; itself where it has it."""
        return self if self.old is old else replace(self, old=old)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for inspection."""
        return {
            "prompt_ids": self.prompt_ids,
            "completion_ids": self.completion_ids,
            "advantages": self.advantages.tolist(),
            "old_logprobs": self.old.logprobs.tolist() if self.old else None,
            "entropy": self.old.entropy if self.old else None,
            "group_size": self.group_size,
            "sampler_logprobs": None if self.sampler_logprobs is None else self.sampler_logprobs.tolist(),
        }

    def mini_batches(self, prompts: int) -> Iterator[TrainBatch]:
        """Consecutive parts of ``prompts`` whole groups each, in batch order; the batch itself where that is one part.

        Raises:
            ValueError: there are several parts, and no old log-probs: the update on the first moves the weights.
        """
        rows = prompts * self.group_size
        if rows >= len(self):
            yield self
            return
        if self.old is None:
            raise ValueError(f"{len(self)} completions in mini-batches of {rows}: such a batch needs its old log-probs")
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            first, last = sum(self.lengths[:start]), sum(self.lengths[:stop])
            yield TrainBatch(
                prompt_ids=self.prompt_ids[start:stop],
                completion_ids=self.completion_ids[start:stop],
                advantages=self.advantages[start:stop],
                old=OldPolicy(self.old.logprobs[first:last], self.old.entropy),
                sampler_logprobs=None if self.sampler_logprobs is None else self.sampler_logprobs[first:last],
                group_size=self.group_size,
            )
