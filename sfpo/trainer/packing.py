"""Micro-batches: which completions are computed together, and their layout.

``groups``: all tokens in one row without padding, and each prompt only once: prompt, its completions, the next prompt, ...
A completion attends to its prompt and itself (sfpo.trainer.masks), and its positions continue from the end of the prompt.
``padded``: one row per prompt + completion, padded on the right, which does not affect a causal model. ``sequences``: one
prompt + completion at a time. In all layouts, log-probs and gradients equal those of separate forward passes, provided that the
model computes the layout correctly, which sfpo/trainer/canary.py checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Literal

import torch
from torch import Tensor

from sfpo.trainer.masks import PromptGroup, Varlen, key_places

Layout = Literal["groups", "padded", "sequences"]


@dataclass(frozen=True)
class MicroBatch:
    """Completions for one forward pass: r rows of t tokens, with n completion tokens (0 for an empty micro-batch)."""

    rows: list[int]
    """Indices of the completions in the batch."""
    input_ids: Tensor
    """[r, t]"""
    position_ids: Tensor | None
    """[1, t]; None: the default, 0 to t - 1."""
    groups: list[PromptGroup] | None
    """Layout of the row; None: each row is one prompt + completion, with padding."""
    varlen: Varlen | None
    """The layout as arguments of the variable-length kernel (on a GPU)."""
    positions: Tensor
    """[n]: indices into the r * t positions whose output predicts a completion token."""
    targets: Tensor
    """[n]: the predicted completion tokens."""
    tokens: Tensor
    """[n]: indices of these tokens among the N completion tokens of the batch."""


def micro_batches(
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    max_tokens: int,
    device: torch.device,
    rows: Sequence[int] | None = None,
    rank: int = 0,
    ranks: int = 1,
    layout: Layout = "groups",
    alone_from: int | None = None,
) -> Iterator[MicroBatch]:
    """Split completions into micro-batches of at most ``max_tokens`` tokens including padding; a longer prompt + completion
    gets its own. In layout ``groups`` the order is kept; otherwise completions are sorted by length, to reduce padding.

    All ranks get the same number of micro-batches, since they compute them together: ranks with fewer get empty ones (no rows,
    no targets) at the end.

    Args:
        rows: indices of the completions to use; None: all.
        rank: which of the ``ranks`` shares, balanced by tokens, to return; the completions of a prompt stay together.
        alone_from: a prompt + completion with more tokens than this gets its own micro-batch.
    """
    taken = range(len(completion_ids)) if rows is None else rows
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompt_ids, completion_ids, strict=True)]
    alone = [alone_from is not None and length > alone_from for length in lengths]
    cuts: list[list[list[int]]] = []
    for share in _shares(taken, prompt_ids, completion_ids, ranks):
        if layout == "groups":
            cuts.append(_cut_groups(share, prompt_ids, completion_ids, max_tokens, alone))
        else:
            cuts.append(_cut_rows(share, lengths, max_tokens if layout == "padded" else 0, alone))
    lay_out = _pack if layout == "groups" else _pad
    starts = _starts(completion_ids)
    for place in range(max(map(len, cuts))):
        yield lay_out(cuts[rank][place] if place < len(cuts[rank]) else [], prompt_ids, completion_ids, starts, device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device asynchronously: the host does not wait for the copy."""
    pinned = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if pinned else tensor.to(device)


def balanced_partition(tokens: Sequence[int], shares: int) -> list[list[int]]:
    """Split the indices of ``tokens`` into ``shares`` lists with similar sums (greedily: largest first, to the smallest
    list)."""
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
    return [[row for index in indices for row in groups[index]] for indices in balanced_partition(tokens, ranks)]


def _cut_groups(
    rows: Sequence[int],
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    max_tokens: int,
    alone: Sequence[bool],
) -> list[list[int]]:
    parts: list[list[int]] = []
    total = 0
    for row in rows:
        last = parts[-1][-1] if parts else None
        shares = last is not None and prompt_ids[row] == prompt_ids[last]
        cost = len(completion_ids[row]) + (0 if shares else len(prompt_ids[row]))
        if last is None or total + cost > max_tokens or alone[row] or alone[last]:
            parts.append([])
            total, cost = 0, len(prompt_ids[row]) + len(completion_ids[row])
        parts[-1].append(row)
        total += cost
    return parts


def _cut_rows(rows: Sequence[int], lengths: Sequence[int], max_tokens: int, alone: Sequence[bool]) -> list[list[int]]:
    parts: list[list[int]] = []
    for row in sorted(rows, key=lambda row: -lengths[row]):
        first = parts[-1][0] if parts else None  # rows are sorted: the first is the longest
        if first is None or alone[first] or (len(parts[-1]) + 1) * lengths[first] > max_tokens:
            parts.append([])
        parts[-1].append(row)
    return parts


def _pack(
    rows: list[int],
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    starts: list[int],
    device: torch.device,
) -> MicroBatch:
    input_ids: list[int] = []
    position_ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    tokens: list[int] = []
    groups: list[PromptGroup] = []
    prompt: list[int] = []
    prompt_end = 0
    if not rows:  # an empty micro-batch still needs an input token
        input_ids, position_ids, groups = [0], [0], [PromptGroup(1, [0])]
    for place, row in enumerate(rows):
        completion = completion_ids[row]
        if place == 0 or prompt_ids[row] != prompt:
            prompt = prompt_ids[row]
            input_ids += prompt
            position_ids += range(len(prompt))
            prompt_end = len(input_ids)
            groups.append(PromptGroup(len(prompt), []))
        groups[-1].completions.append(len(completion))
        # The last prompt position predicts the first token of every completion; every other token predicts the next one.
        positions += [prompt_end - 1, *range(len(input_ids), len(input_ids) + len(completion) - 1)][: len(completion)]
        input_ids += completion
        position_ids += range(len(prompt), len(prompt) + len(completion))
        targets += completion
        tokens += range(starts[row], starts[row] + len(completion))
    ids, places, *others = _integers(device, input_ids, position_ids, positions, targets, tokens)
    return MicroBatch(rows, ids[None], places[None], groups, varlen(groups, device) if device.type == "cuda" else None, *others)


def varlen(groups: Sequence[PromptGroup], device: torch.device) -> Varlen:
    """Arguments of the variable-length kernel for a row of these groups."""
    queries, keys = [size for group in groups for size in group.segments()], key_places(groups)
    sizes = [len(places) for places in keys]
    ends = ([0, *accumulate(of_segments)] for of_segments in (queries, sizes))
    places, cu_seq_q, cu_seq_k = _integers(device, list(chain.from_iterable(keys)), *ends)
    return Varlen(places, cu_seq_q.to(torch.int32), cu_seq_k.to(torch.int32), max(queries), max(sizes))


def _pad(
    rows: list[int],
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    starts: list[int],
    device: torch.device,
) -> MicroBatch:
    sequences = [prompt_ids[row] + completion_ids[row] for row in rows] or [[0]]
    width = max(map(len, sequences))
    positions: list[int] = []
    targets: list[int] = []
    tokens: list[int] = []
    for place, row in enumerate(rows):
        start = place * width + len(prompt_ids[row]) - 1
        positions += range(start, start + len(completion_ids[row]))
        targets += completion_ids[row]
        tokens += range(starts[row], starts[row] + len(completion_ids[row]))
    input_ids = chain.from_iterable(sequence + [0] * (width - len(sequence)) for sequence in sequences)
    ids, *others = _integers(device, list(input_ids), positions, targets, tokens)
    return MicroBatch(rows, ids.view(-1, width), None, None, None, *others)


def _integers(device: torch.device, *lists: list[int]) -> Sequence[Tensor]:
    """Convert lists to tensors, with a single copy to the device."""
    together = torch.tensor(list(chain.from_iterable(lists)), dtype=torch.long)
    return to_device(together, device).split([len(one) for one in lists])


def _starts(completion_ids: Sequence[list[int]]) -> list[int]:
    starts, total = [], 0
    for completion in completion_ids:
        starts.append(total)
        total += len(completion)
    return starts
