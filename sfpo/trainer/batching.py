"""Converts rollouts to tensors: to exchange them between ranks, and to make a training batch of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sfpo.ranks import Ranks
from sfpo.rewards.math_answer import Grade
from sfpo.types import Completion, OldPolicy, RolloutGroup, TrainBatch

Graded = tuple[Completion, Grade]


def gather_graded(ranks: Ranks, own: Mapping[int, Sequence[Graded]]) -> dict[int, list[Graded]]:
    """The graded completions of all ranks, by the place of their prompt, on every rank.

    They are sent as tensors, not as millions of Python's numbers.
    """
    if ranks.mesh is None:
        return {place: list(graded) for place, graded in own.items()}
    flat = [(place, completion, grade) for place, graded in own.items() for completion, grade in graded]
    texts = [completion.text.encode(errors="surrogatepass") for _, completion, _ in flat]
    facts = [
        (place, len(one.token_ids), len(text), one.truncated, grade.correct, grade.boxed, grade.timed_out)
        for (place, one, grade), text in zip(flat, texts, strict=True)
    ]
    of_ranks = ranks.gather_tensors(
        torch.tensor(facts, dtype=torch.int64).flatten(),
        _tensor(array("q", chain.from_iterable(one.token_ids for _, one, _ in flat)), torch.int64),
        _tensor(array("d", chain.from_iterable(one.logprobs for _, one, _ in flat)), torch.float64),
        _tensor(array("B", b"".join(texts)), torch.uint8),
    )
    gathered: dict[int, list[Graded]] = {}
    for place, graded in chain.from_iterable(_graded(*of_rank) for of_rank in of_ranks):
        gathered.setdefault(place, []).append(graded)
    return gathered


def _tensor(numbers: array[Any], dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)


def _graded(table: Tensor, tokens: Tensor, logprobs: Tensor, letters: Tensor) -> Iterator[tuple[int, Graded]]:
    rows = table.view(-1, 7).tolist()
    lengths, sizes = [row[1] for row in rows], [row[2] for row in rows]
    parts = zip(rows, tokens.split(lengths), logprobs.split(lengths), letters.split(sizes), strict=True)
    for (place, _, _, truncated, *verdict), ids, values, text in parts:
        yield place, (Completion(ids.tolist(), values.tolist(), _text(text), bool(truncated)), Grade(*map(bool, verdict)))


def _text(letters: Tensor) -> str:
    return letters.numpy().tobytes().decode(errors="surrogatepass")


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
