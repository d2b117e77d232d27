"""Attention over packed groups (sfpo/trainer/masks.py): each completion in a row attends to its prompt and itself.

On a GPU, a layer is one call of torch's variable-length attention (FlashAttention), without masks in memory, if that kernel
supports what the model needs: causal attention or a sliding window, in a 16-bit data type. Everything else is computed per
segment of each group.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.attention.varlen
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from sfpo.trainer.masks import GroupMask, Varlen, group_mask
from sfpo.transformers_internals import AttentionMaskInterface

ATTENTION = "packed_groups"
"""Name under which ``packed_attention`` and its mask function are registered with transformers."""

CHANGES_NOTHING = {"position_ids", "cache_position", "use_cache", "return_dict"} | {
    f"output_{what}" for what in ("attentions", "hidden_states", "router_logits")
}
"""Arguments that some models pass to attention functions, but that no attention function of transformers uses."""


WIDEST_HEAD = 192
"""Largest head dimension for the variable-length kernel, whose backward pass supports larger ones only on some GPUs."""


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
    """Attention function for transformers: query [1, heads, t, d], key and value [1, key heads, t, d] -> [1, t, heads, d].

    Args:
        softcap: scores become softcap * tanh(scores / softcap) (Gemma 2, arXiv 2408.00118).
        s_aux: [heads], learned attention sinks: scores that enter the softmax but have no value (gpt-oss).
        sliding_window: ignored, since the mask contains it.

    Raises:
        ValueError: the model passes an argument that is not supported here, or a mask that is not from ``group_mask``.
    """
    unknown = sorted(name for name, given in others.items() if given is not None and name not in CHANGES_NOTHING)
    if unknown or dropout or is_causal is False:
        named = unknown or (["dropout"] if dropout else ["is_causal"])
        raise ValueError(f"packed attention does not support the arguments {', '.join(named)} of {type(module).__name__}")
    if not isinstance(attention_mask, GroupMask):
        raise ValueError(f"{type(module).__name__} does not pass on the mask that transformers made for packed attention")
    if fits_varlen(query, value, attention_mask, softcap, s_aux):
        return varlen_attention(query, key, value, attention_mask, scaling, _compute_type(value)), None
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    sizes = [size for group in attention_mask.groups for size in group.segments()]
    # One split instead of one slice per segment, because the gradient of a slice is as large as the whole tensor.
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


def fits_varlen(query: Tensor, value: Tensor, mask: GroupMask, softcap: float | None, sinks: Tensor | None) -> bool:
    """Whether the variable-length kernel of this torch version and GPU supports these arguments."""
    if not query.is_cuda or mask.varlen is None or mask.window is None or softcap is not None or sinks is not None:
        return False
    width, takes = query.shape[-1], inspect.signature(torch.nn.attention.varlen.varlen_attn).parameters
    return (
        _compute_type(value) in (torch.bfloat16, torch.float16)
        and width == value.shape[-1] <= WIDEST_HEAD
        and width % 8 == 0
        and {"scale", "window_size", "enable_gqa"} <= takes.keys()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _compute_type(value: Tensor) -> torch.dtype:
    kind = value.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: GroupMask,
    scaling: float | None,
    compute: torch.dtype,
    kernel: Callable[..., Any] = torch.nn.attention.varlen.varlen_attn,
) -> Tensor:
    """Attention of all segments of a row in one kernel call; shapes as for ``packed_attention``.

    Args:
        compute: data type of the matrix products.
        kernel: function with the signature of ``torch.nn.attention.varlen.varlen_attn``.
    """
    row, window = cast(Varlen, mask.varlen), cast(int, mask.window)
    of_queries, of_keys, of_values = (one.squeeze(0).transpose(0, 1) for one in (query, key, value))
    # A prompt's keys are repeated for each of its completions; their gradients are accumulated in at least float32.
    keys, values = (
        one.to(torch.promote_types(one.dtype, torch.float32)).index_select(0, row.keys).to(compute)
        for one in (of_keys, of_values)
    )
    queries, ends = of_queries.to(compute).contiguous(), (row.cu_seq_q, row.cu_seq_k, row.max_q, row.max_k)
    window_size = (-1, 0) if window >= row.max_k else (window - 1, 0)  # keys before a query's own, and after
    shared = query.shape[1] != key.shape[1]
    return kernel(queries, keys, values, *ends, scale=scaling, window_size=window_size, enable_gqa=shared).unsqueeze(0)


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
