"""Attention over packed groups: the completions of a group stand in one row with one copy of their prompt.

A completion sees its prompt and itself, nothing else. Which of these keys a query sees is the model's own mask function
(causal, sliding window, chunks), evaluated on positions within a sequence: transformers asks for a mask by the name of the
attention, and passes what it gets on to every layer. So the mask carries the layout of the row, and a model that builds its
masks by other means is refused here. Scores run group by group and completion by completion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

from sfpo.transformers_internals import AttentionMaskInterface, sdpa_mask

ATTENTION = "packed_groups"
"""Name under which transformers finds ``packed_attention`` and its mask."""

CHANGES_NOTHING = {"position_ids", "cache_position", "use_cache", "return_dict"} | {
    f"output_{what}" for what in ("attentions", "hidden_states", "router_logits")
}
"""Arguments that some models pass on to attention, and that no attention of transformers computes with."""


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
class GroupMask:
    """Stands where transformers passes an attention mask on: the layout of a row, and what its queries see."""

    groups: Sequence[PromptGroup]
    masks: list[list[Tensor | None]]
    """For each segment of each group: [queries, keys] bool, True where a query sees a key; None: causal, as many queries as
    keys. The keys of a completion are its prompt's and its own."""


_groups: ContextVar[Sequence[PromptGroup] | None] = ContextVar("groups", default=None)


@contextmanager
def packed(groups: Sequence[PromptGroup]) -> Iterator[None]:
    """While it is open, the model's forward pass takes a row of these groups."""
    token = _groups.set(groups)
    try:
        yield
    finally:
        _groups.reset(token)


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
    groups = _groups.get() or [PromptGroup(q_length, [0])]
    tokens = sum(sum(group.segments()) for group in groups)
    if (q_length, kv_length) != (tokens, tokens) or (attention_mask is not None and not attention_mask.all()):
        raise ValueError(f"packed attention takes {tokens} tokens and no padding, not {q_length} queries and {kv_length} keys")
    longest = max(group.prompt + max(group.completions) for group in groups)
    mask = sdpa_mask(
        1, longest, longest, mask_function=mask_function, allow_is_causal_skip=False, use_vmap=use_vmap, device=device
    )
    visible = cast(Tensor, mask)  # None only where it may be skipped
    if visible.shape[1] != 1:
        raise ValueError("packed attention has one mask for all heads, and this model has one for each")
    visible = visible[0, 0]
    is_causal = torch.equal(visible, torch.ones_like(visible).tril())
    return GroupMask(groups, [_masks(group, visible, is_causal) for group in groups])


def _masks(group: PromptGroup, visible: Tensor, is_causal: bool) -> list[Tensor | None]:
    first = group.segments()[0]
    of_first = None if is_causal else visible[:first, :first]
    if not group.shared:
        return [of_first]
    ends = [group.prompt + completion for completion in group.completions]
    return [of_first, *(visible[group.prompt : end, :end].contiguous() for end in ends)]


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: GroupMask,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: query [1, heads, t, d], key and value [1, key heads, t, d] -> [1, t, heads, d].

    Args:
        softcap: scores become softcap * tanh(scores / softcap) (Gemma 2, arXiv 2408.00118).
        s_aux: [heads], a learned score that takes part in the softmax and has no value (a sink, as in gpt-oss).
        sliding_window: not used: the mask has it.

    Raises:
        ValueError: an argument that changes attention and is not known here, or no mask of ``group_mask``.
    """
    unknown = sorted(name for name, given in others.items() if given is not None and name not in CHANGES_NOTHING)
    if unknown or dropout or is_causal is False:
        named = unknown or (["dropout"] if dropout else ["is_causal"])
        raise ValueError(f"packed attention does not know what {type(module).__name__} asks for by {', '.join(named)}")
    if not isinstance(attention_mask, GroupMask):
        raise ValueError(f"{type(module).__name__} does not pass on the mask that transformers made for packed attention")
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    sizes = [size for group in attention_mask.groups for size in group.segments()]
    # One split, not a slice for each segment: the gradient of a slice is as large as what it was cut from.
    segments = zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    outputs = []
    for masks in attention_mask.masks:
        own_query, prompt_key, prompt_value = next(segments)
        outputs.append(_attend(own_query, prompt_key, prompt_value, masks[0], scaling, softcap, s_aux))
        for mask in masks[1:]:
            own_query, own_key, own_value = next(segments)
            keys, values = torch.cat([prompt_key, own_key], 2), torch.cat([prompt_value, own_value], 2)
            outputs.append(_attend(own_query, keys, values, mask, scaling, softcap, s_aux))
    return torch.cat([output.transpose(1, 2) for output in outputs], 1), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention of one segment: [1, heads, queries, d]."""
    if softcap is None and sinks is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.float().masked_fill(~mask, -torch.inf)
    if sinks is not None:
        sinks = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], -1)
    shares = scores.softmax(-1)[..., : key.shape[2]]
    return shares.to(value.dtype) @ value


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, group_mask)
