"""Attention masks of packed rows, in which the completions of a group share one copy of their prompt.

A completion attends only to its prompt and itself. Which of these keys each query sees is determined by the model's own mask
function (causal, sliding window, chunks), evaluated on positions within the sequence. transformers requests a mask by the name
of the attention function, and passes the result to every layer; so the mask object carries the layout of the row. A model that
builds its masks in another way is rejected (sfpo/trainer/attention.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from sfpo.transformers_internals import sdpa_mask

ROWS = 1024
"""Number of rows of a mask that are inspected at a time to detect its window."""


@dataclass(frozen=True)
class PromptGroup:
    """A prompt followed by some of its completions, in a packed row."""

    prompt: int
    """Number of tokens of the prompt."""
    completions: list[int]
    """Number of tokens of each completion."""

    @property
    def shared(self) -> bool:
        """Whether several completions share the prompt. A prompt with a single completion is a plain sequence."""
        return len(self.completions) > 1

    def segments(self) -> list[int]:
        """Number of tokens of each segment, for which attention is computed separately."""
        return [self.prompt, *self.completions] if self.shared else [self.prompt + self.completions[0]]


@dataclass(frozen=True)
class Varlen:
    """Arguments of ``torch.nn.attention.varlen.varlen_attn`` for a row: its segments and the keys of each. A completion's keys
    are those of its prompt and its own."""

    keys: Tensor
    """[k] int64: index in the row of each key, segment by segment."""
    cu_seq_q: Tensor
    """[segments + 1] int32: cumulative number of queries."""
    cu_seq_k: Tensor
    """[segments + 1] int32: cumulative number of keys."""
    max_q: int
    """Largest number of queries of a segment."""
    max_k: int


def key_places(groups: Sequence[PromptGroup]) -> list[list[int]]:
    """For each segment, the indices of its keys in the row."""
    places, start = [], 0
    for group in groups:
        first, *others = group.segments()
        prompt = list(range(start, start + first))
        places.append(prompt)
        start += first
        for own in others:
            places.append(prompt + list(range(start, start + own)))
            start += own
    return places


@dataclass(frozen=True)
class GroupMask:
    """Passed through transformers in place of an attention mask: the layout of a row, and which keys its queries see."""

    groups: Sequence[PromptGroup]
    varlen: Varlen | None
    """The row's arguments for the variable-length kernel; None if not on a GPU."""
    window: int | None
    """Number of keys that a query sees: itself and those directly before it; None: another pattern, given by ``visible``."""
    visible: Tensor | None
    """[longest, longest] bool, by position: whether a query sees a key."""
    device: torch.device | str

    @cached_property
    def masks(self) -> list[list[Tensor | None]]:
        """A mask [queries, keys] bool for each segment of each group; None for a plain causal segment."""
        return [[self._mask(*segment) for segment in _segments(group)] for group in self.groups]

    def _mask(self, before: int, queries: int) -> Tensor | None:
        """
        Args:
            before: number of tokens of the sequence before the first query.
        """
        keys = before + queries
        if self.window is None:
            return cast(Tensor, self.visible)[before:keys, :keys].contiguous()
        if before == 0 and keys <= self.window:
            return None
        return _band(before, queries, keys, self.window, self.device)


def _segments(group: PromptGroup) -> list[tuple[int, int]]:
    first, *others = group.segments()
    return [(0, first), *((group.prompt, own) for own in others)]


def _band(start: int, queries: int, keys: int, window: int, device: torch.device | str) -> Tensor:
    """Sliding-window mask [queries, keys]; the queries are at positions from ``start``, the keys at positions from 0."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(start).triu(start - window + 1)


_row: ContextVar[tuple[Sequence[PromptGroup], Varlen | None] | None] = ContextVar("row", default=None)


@contextmanager
def packed(groups: Sequence[PromptGroup], varlen: Varlen | None = None) -> Iterator[None]:
    """Context in which the model's input is a packed row of these groups, without padding."""
    token = _row.set((groups, varlen))
    try:
        yield
    finally:
        _row.reset(token)


def group_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    local_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    config: PreTrainedConfig | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
) -> GroupMask:
    """Mask function for transformers, with the arguments of ``transformers.masking_utils.sdpa_mask``.

    Outside the context ``packed``, rows are plain sequences.

    Raises:
        ValueError: the input has other tokens than the row (padding, a KV cache), or the mask differs between heads.
    """
    row = _row.get()
    groups, varlen = row or ([PromptGroup(q_length, [0])], None)
    tokens = sum(sum(group.segments()) for group in groups)
    # Do not read the values of a packed row's mask here, since the host would wait for the device.
    padding = row is None and attention_mask is not None and not attention_mask.all()
    if (q_length, kv_length) != (tokens, tokens) or padding:
        raise ValueError(f"packed attention needs {tokens} tokens without padding, got {q_length} queries and {kv_length} keys")
    longest = max(group.prompt + max(group.completions) for group in groups)

    def visible(queries: int, keys: int, start: int) -> Tensor:
        """Mask [queries, keys] for queries at positions from ``start``."""
        made = sdpa_mask(
            1, queries, keys, start, mask_function=mask_function, allow_is_causal_skip=False, use_vmap=use_vmap, device=device
        )
        mask = cast(Tensor, made)  # None only if skipping is allowed
        if mask.shape[1] != 1:
            raise ValueError("packed attention supports only masks that are the same for all heads, unlike this model's")
        return mask[0, 0]

    window = _window_of(mask_function, longest, visible)
    return GroupMask(groups, varlen, window, visible(longest, longest, 0) if window is None else None, device)


_windows: dict[Hashable, tuple[int, int | None]] = {}
"""Cache: identity of a mask function -> (number of positions that were inspected, its window)."""


def _window_of(mask_function: Callable, longest: int, visible: Callable[[int, int, int], Tensor]) -> int | None:
    """Size of the sliding window at all positions below ``longest`` (at least ``longest`` if attention is causal); None if the
    mask has another pattern.

    This reads the mask's values, so the result is cached for all mask functions that compute the same.
    """
    computes = _computes(mask_function)
    known_to, window = _windows.get(computes, (0, None))
    if computes is None or known_to < longest:
        known_to = longest if computes is None else max(256, 1 << (longest - 1).bit_length())
        window = _find_window(known_to, visible)
        _windows[computes] = known_to, window
    return window


def _find_window(positions: int, visible: Callable[[int, int, int], Tensor]) -> int | None:
    window = int(visible(1, positions, positions - 1).sum())
    for start in range(0, positions, ROWS):
        rows = visible(min(ROWS, positions - start), positions, start)
        if not torch.equal(rows, _band(start, len(rows), positions, window, rows.device)):
            return None
    return window


def _computes(function: Any) -> Hashable | None:
    """Cache key of a mask function: its code and the numbers and functions in its closure; None if it depends on anything
    else."""
    if isinstance(function, bool | int | float | str | None):
        return (function,)
    if isinstance(function, tuple | list):
        parts = [_computes(one) for one in function]
    elif inspect.isfunction(function):
        parts = [(function.__code__,), *(_computes(cell.cell_contents) for cell in function.__closure__ or ())]
        parts += [_computes(one) for one in function.__defaults__ or ()]
    else:
        return None
    return None if None in parts else tuple(parts)
