"""The nouns of the project.

B = completions in a batch, N = completion tokens in a batch (completions end to end, no padding).
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    """With the stop token, where one was sampled."""
    logprobs: list[float]
    """Of each sampled token, as the sampler saw it (nats; temperature and top_p applied)."""
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
        """Rewards differ: without that the group has no advantage and teaches nothing."""
        return any(reward != self.rewards[0] for reward in self.rewards)


@dataclass(frozen=True)
class TrainBatch:
    """What an update rule consumes: B completions, group after group, fixed through all updates of a step."""

    prompt_ids: list[list[int]]
    """B prompts (each repeated for its group)."""
    completion_ids: list[list[int]]
    """B completions, N tokens together."""
    advantages: Tensor
    """[B] float32, one for each completion."""
    old_logprobs: Tensor | None
    """[N] float32: log-probs under the policy that made the rollouts (theta^{s,0}), by torch. None: to be taken from the first
    pass, which sees the same weights where the whole batch is one mini-batch; ``settle`` puts them in."""
    entropy: float | None
    """Mean entropy (nats a token) of that policy over the N tokens; None together with ``old_logprobs``."""
    group_size: int
    sampler_logprobs: Tensor | None = None
    """[N] float32: log-probs of the same tokens as the sampler saw them; None where they are not known."""
    lengths: list[int] = field(init=False)
    """[B] tokens of each completion."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", [len(ids) for ids in self.completion_ids])
        if not len(self.prompt_ids) == len(self.completion_ids) == len(self.advantages):
            raise ValueError(
                f"a batch needs as many prompts ({len(self.prompt_ids)}) and advantages ({len(self.advantages)}) "
                f"as completions ({len(self.completion_ids)})"
            )
        for what, logprobs in (("old", self.old_logprobs), ("sampler", self.sampler_logprobs)):
            if logprobs is not None and sum(self.lengths) != len(logprobs):
                raise ValueError(f"{len(logprobs)} {what} log-probs for {sum(self.lengths)} completion tokens")

    def __len__(self) -> int:
        return len(self.completion_ids)

    def settle(self, old_logprobs: Tensor, entropy: float) -> None:
        """Put in what the first pass found; later passes see it.

        Raises:
            ValueError: the batch has old log-probs already.
        """
        if self.old_logprobs is not None:
            raise ValueError("the batch has old log-probs already")
        object.__setattr__(self, "old_logprobs", old_logprobs)
        object.__setattr__(self, "entropy", entropy)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for inspection."""
        tensors = {name: getattr(self, name) for name in ("advantages", "old_logprobs", "sampler_logprobs")}
        return {
            "prompt_ids": self.prompt_ids,
            "completion_ids": self.completion_ids,
            "entropy": self.entropy,
            "group_size": self.group_size,
            **{name: None if tensor is None else tensor.tolist() for name, tensor in tensors.items()},
        }

    def mini_batches(self, prompts: int) -> Iterator[TrainBatch]:
        """Consecutive parts of ``prompts`` whole groups each, in batch order; the batch itself where that is one part."""
        rows = prompts * self.group_size
        if rows >= len(self):
            yield self
            return
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            first, last = sum(self.lengths[:start]), sum(self.lengths[:stop])
            yield TrainBatch(
                prompt_ids=self.prompt_ids[start:stop],
                completion_ids=self.completion_ids[start:stop],
                advantages=self.advantages[start:stop],
                old_logprobs=self.old_logprobs[first:last],
                sampler_logprobs=None if self.sampler_logprobs is None else self.sampler_logprobs[first:last],
                entropy=self.entropy,
                group_size=self.group_size,
            )
