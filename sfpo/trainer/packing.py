"""Micro-batches without padding, in which the completions of a group share one copy of their prompt.

All tokens of a micro-batch stand in one row: prompt, its completions, the next prompt, ... A completion sees its prompt and
itself, nothing else: ``packed_attention`` runs scaled dot-product attention piece by piece, and positions count on from the
prompt's end for each completion. Log-probs and gradients are those of one forward pass for each prompt + completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

ATTENTION = "packed_groups"
"""Name under which transformers finds ``packed_attention``."""


@dataclass(frozen=True)
class Family:
    """A prompt and some of its completions, one after the other in the row."""

    prompt: int
    """Tokens of the prompt."""
    completions: list[int]
    """Tokens of each completion."""
    masks: list[Tensor]
    """[completion, prompt + completion] bool for each, where there is more than one: True where a query sees a key."""

    def pieces(self) -> list[int]:
        """Tokens of what attention takes one by one: a prompt with its only completion is one causal sequence."""
        return [self.prompt, *self.completions] if self.masks else [self.prompt + self.completions[0]]


@dataclass(frozen=True)
class MicroBatch:
    """Some completions of a batch, ready for one forward pass. t tokens, n of them completion tokens (0: none of the batch)."""

    rows: list[int]
    """Indices of the completions in the batch."""
    input_ids: Tensor
    """[1, t]"""
    position_ids: Tensor
    """[1, t]"""
    families: list[Family]
    positions: Tensor
    """[n]: indices into the t positions whose output predicts a completion token."""
    targets: Tensor
    """[n]: those tokens."""
    tokens: Tensor
    """[n]: indices of those tokens among the N completion tokens of the batch."""


def micro_batches(
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    max_tokens: int,
    device: torch.device,
    rows: Sequence[int] | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[MicroBatch]:
    """Cut completions, in order, into micro-batches of at most ``max_tokens`` tokens; a prompt counts once for its completions.

    A prompt + completion longer than ``max_tokens`` gets a micro-batch of its own. Several ranks get the same number of
    micro-batches, since they compute them together: one that has fewer gets empty ones (no rows, no targets) at the end.

    Args:
        rows: the completions to take; None: all.
        rank: whose share it is, of ``ranks`` shares of about as many tokens; the completions of a prompt stay together.
    """
    taken = range(len(completion_ids)) if rows is None else rows
    cuts = [_cut(share, prompt_ids, completion_ids, max_tokens) for share in _shares(taken, prompt_ids, completion_ids, ranks)]
    for place in range(max(map(len, cuts))):
        yield _pack(cuts[rank][place] if place < len(cuts[rank]) else [], prompt_ids, completion_ids, device)


def deal(tokens: Sequence[int], shares: int) -> list[list[int]]:
    """Indices of ``tokens`` in ``shares`` lists of about the same sum: the longest first, each to the shortest list so far."""
    lists: list[list[int]] = [[] for _ in range(shares)]
    sums = [0] * shares
    for index in sorted(range(len(tokens)), key=lambda index: -tokens[index]):
        shortest = sums.index(min(sums))
        lists[shortest].append(index)
        sums[shortest] += tokens[index]
    return [sorted(indices) for indices in lists]


def _shares(
    rows: Sequence[int], prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]], ranks: int
) -> list[list[int]]:
    groups: list[list[int]] = []
    for row in rows:
        if groups and prompt_ids[row] == prompt_ids[groups[-1][-1]]:
            groups[-1].append(row)
        else:
            groups.append([row])
    tokens = [len(prompt_ids[group[0]]) + sum(len(completion_ids[row]) for row in group) for group in groups]
    return [[row for index in indices for row in groups[index]] for indices in deal(tokens, ranks)]


def _cut(
    rows: Sequence[int], prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]], max_tokens: int
) -> list[list[int]]:
    parts: list[list[int]] = []
    total = 0
    for row in rows:
        shares = bool(parts) and prompt_ids[row] == prompt_ids[parts[-1][-1]]
        cost = len(completion_ids[row]) + (0 if shares else len(prompt_ids[row]))
        if not parts or total + cost > max_tokens:
            parts.append([])
            total, cost = 0, len(prompt_ids[row]) + len(completion_ids[row])
        parts[-1].append(row)
        total += cost
    return parts


def _pack(
    rows: list[int], prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]], device: torch.device
) -> MicroBatch:
    first_token = _starts(completion_ids)
    input_ids: list[int] = []
    position_ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    tokens: list[int] = []
    shapes: list[tuple[int, list[int]]] = []
    prompt: list[int] = []
    prompt_end = 0
    if not rows:  # some token that predicts nothing
        input_ids, position_ids, shapes = [0], [0], [(1, [0])]
    for place, row in enumerate(rows):
        completion = completion_ids[row]
        if place == 0 or prompt_ids[row] != prompt:
            prompt = prompt_ids[row]
            input_ids += prompt
            position_ids += range(len(prompt))
            prompt_end = len(input_ids)
            shapes.append((len(prompt), []))
        shapes[-1][1].append(len(completion))
        # The prompt's last position predicts the first token of every completion, each further token its successor.
        positions += [prompt_end - 1, *range(len(input_ids), len(input_ids) + len(completion) - 1)][: len(completion)]
        input_ids += completion
        position_ids += range(len(prompt), len(prompt) + len(completion))
        targets += completion
        tokens += range(first_token[row], first_token[row] + len(completion))
    as_tensor = partial(torch.tensor, dtype=torch.long, device=device)
    return MicroBatch(
        rows=rows,
        input_ids=as_tensor([input_ids]),
        position_ids=as_tensor([position_ids]),
        families=[Family(prompt, completions, _masks(prompt, completions, device)) for prompt, completions in shapes],
        positions=as_tensor(positions),
        targets=as_tensor(targets),
        tokens=as_tensor(tokens),
    )


def _masks(prompt: int, completions: list[int], device: torch.device) -> list[Tensor]:
    if len(completions) == 1:
        return []
    return [torch.ones(length, prompt + length, dtype=torch.bool, device=device).tril(prompt) for length in completions]


def _starts(completion_ids: Sequence[list[int]]) -> list[int]:
    starts, total = [], 0
    for completion in completion_ids:
        starts.append(total)
        total += len(completion)
    return starts


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    families: Sequence[Family] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: query [1, heads, t, d], key and value [1, key heads, t, d] -> [1, t, heads, d].

    Without ``families`` it is plain causal attention.

    Raises:
        ValueError: the model's attention has a sliding window shorter than a sequence.
    """
    if families is None:
        families = [Family(query.shape[2], [0], [])]
    longest = max(family.prompt + max(family.completions) for family in families)
    if sliding_window is not None and sliding_window < longest:
        raise ValueError(f"sliding window attention ({sliding_window} tokens) under a sequence of {longest} is not supported")
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    sizes = [size for family in families for size in family.pieces()]
    # One split, not a slice for each piece: the gradient of a slice is as large as what it was cut from.
    pieces = zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    outputs = []
    for family in families:
        own_query, prompt_key, prompt_value = next(pieces)
        outputs.append(scaled_dot_product_attention(own_query, prompt_key, prompt_value, is_causal=True, scale=scaling))
        for mask in family.masks:
            own_query, own_key, own_value = next(pieces)
            keys, values = torch.cat([prompt_key, own_key], 2), torch.cat([prompt_value, own_value], 2)
            outputs.append(scaled_dot_product_attention(own_query, keys, values, attn_mask=mask, scale=scaling))
    return torch.cat(outputs, 2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)
