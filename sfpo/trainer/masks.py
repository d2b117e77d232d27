"""What the queries of a packed row see: the completions of a group stand in one row with one copy of their prompt.

A completion sees its prompt and itself, nothing else. Which of these keys a query sees is the model's own mask function
(causal, sliding window, chunks), evaluated on positions within a sequence: transformers asks for a mask by the name of the
attention, and passes what it gets on to every layer. So the mask carries the layout of the row, and a model that builds its
masks by other means is refused (sfpo/trainer/attention.py).
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
"""Rows of a mask that are looked at together, to find out what it is."""


@dataclass(frozen=True)
class PromptGroup:
    """A prompt and some of its completions, one after the other in the row."""

    prompt: int
    """Tokens of the prompt."""
    completions: list[int]
    """Tokens of each completion."""

    @property
    def shared(self) -> bool:
        """Several completions share the prompt. A prompt with its only completion is one plain sequence."""
        return len(self.completions) > 1

    def segments(self) -> list[int]:
        """Tokens of what attention takes one by one."""
        return [self.prompt, *self.completions] if self.shared else [self.prompt + self.completions[0]]


@dataclass(frozen=True)
class Varlen:
    """A row as the arguments of ``torch.nn.attention.varlen.varlen_attn``: its segments, and the keys of each. The keys of a
    completion are its prompt's and its own."""

    keys: Tensor
    """[k] int64: the place in the row of each key of each segment."""
    cu_seq_q: Tensor
    """[segments + 1] int32: where the queries of each segment start, and where the last ones end."""
    cu_seq_k: Tensor
    """[segments + 1] int32: likewise of its keys, among the k."""
    max_q: int
    """Most queries of a segment."""
    max_k: int


def key_places(groups: Sequence[PromptGroup]) -> list[list[int]]:
    """The places of each segment's keys in the row."""
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
    """Stands where transformers passes an attention mask on: the layout of a row, and what its queries see."""

    groups: Sequence[PromptGroup]
    varlen: Varlen | None
    """The same row for the variable-length kernel; None: not on a GPU."""
    window: int | None
    """A query sees so many keys: its own and those just before; None: others, which are in ``visible``."""
    visible: Tensor | None
    """[longest, longest] bool, by position: True where a query sees a key."""
    device: torch.device | str

    @cached_property
    def masks(self) -> list[list[Tensor | None]]:
        """For each segment of each group: [queries, keys] bool; None: causal, as many queries as keys."""
        return [[self._mask(*segment) for segment in _segments(group)] for group in self.groups]

    def _mask(self, before: int, queries: int) -> Tensor | None:
        """
        Args:
            before: tokens of the sequence before the first query.
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
    """[queries, keys]: the queries are at positions from ``start`` on, the keys at those from 0 on."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(start).triu(start - window + 1)


_row: ContextVar[tuple[Sequence[PromptGroup], Varlen | None] | None] = ContextVar("row", default=None)


@contextmanager
def packed(groups: Sequence[PromptGroup], varlen: Varlen | None = None) -> Iterator[None]:
    """While it is open, the model's forward pass takes a row of these groups, all of it tokens, none of it padding."""
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
    """A mask function of transformers (the arguments are those of ``transformers.masking_utils.sdpa_mask``).

    Outside ``packed``, rows are plain sequences.

    Raises:
        ValueError: there are other tokens than those of the row (padding, a cache), or heads differ in what they see.
    """
    row = _row.get()
    groups, varlen = row or ([PromptGroup(q_length, [0])], None)
    tokens = sum(sum(group.segments()) for group in groups)
    # The mask of a packed row is not read: the host would wait for the device.
    padding = row is None and attention_mask is not None and not attention_mask.all()
    if (q_length, kv_length) != (tokens, tokens) or padding:
        raise ValueError(f"packed attention takes {tokens} tokens and no padding, not {q_length} queries and {kv_length} keys")
    longest = max(group.prompt + max(group.completions) for group in groups)

    def visible(queries: int, keys: int, start: int) -> Tensor:
        """[queries, keys]: the queries are at positions from ``start`` on."""
        made = sdpa_mask(
            1, queries, keys, start, mask_function=mask_function, allow_is_causal_skip=False, use_vmap=use_vmap, device=device
        )
        mask = cast(Tensor, made)  # None only where it may be skipped
        if mask.shape[1] != 1:
            raise ValueError("packed attention has one mask for all heads, and this model has one for each")
        return mask[0, 0]

    window = _window_of(mask_function, longest, visible)
    return GroupMask(groups, varlen, window, visible(longest, longest, 0) if window is None else None, device)


_windows: dict[Hashable, tuple[int, int | None]] = {}
"""By what a mask function computes: up to how many positions it has been looked at, and its window."""


def _window_of(mask_function: Callable, longest: int, visible: Callable[[int, int, int], Tensor]) -> int | None:
    """How many keys a query sees, its own and those just before, at all positions below ``longest``: a window, or at least
    ``longest`` if attention is causal. None: it sees others.

    The mask has to be read for this, so the answer is kept for all functions that compute the same.
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
    """The code of a mask function and the numbers and functions that it was made with; None: it depends on more (a tensor)."""
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
