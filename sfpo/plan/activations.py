"""Bytes that autograd saves in a model's forward pass, measured by running the model on fake tensors (a shape, no memory).

torch's FakeTensorMode computes only the shape of each operation's output, so a model of any size takes about a second.
Attention is replaced by a function that records its arguments, because what the policy's own attention saves depends on the
layout of the packed row (sfpo/plan/micro_batch.py). A model whose attention cannot be replaced runs with its own.

The saved bytes are a polynomial of the row's length, c_0 + c_1 t + c_2 t^2, fitted to three lengths: c_0 comes from weights
(their bfloat16 copies), c_2 from attention that stores its scores.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers import CONFIG_MAPPING, AttentionInterface, AutoModelForCausalLM, PreTrainedModel

from sfpo.transformers_internals import (
    AttentionMaskInterface,
    Conv1D,
    GradientCheckpointingLayer,
    no_init_weights,
    without_cache,
)

STAND_IN = "planned"
"""Name under which transformers finds the attention of this file."""
LENGTHS = (64, 128, 192)
"""Row lengths in tokens: equally spaced, and multiples of the chunk size of layers that compute in chunks."""


@dataclass(frozen=True)
class Attention:
    """Arguments of one call of the attention function."""

    heads: int
    key_heads: int
    key_dim: int
    """Width of a head's queries and keys."""
    value_dim: int
    window: int | None
    """Tokens that a query sees; None: all before it."""
    softcap: bool
    sinks: bool


@dataclass(frozen=True)
class Kept:
    """Bytes that autograd saves for a part of the model, without weights and copies of weights."""

    per_token: float = 0.0
    per_pair: float = 0.0
    """Bytes per pair of tokens of a row, if the model stores its attention scores."""
    attention: tuple[Attention, ...] = ()
    """Calls of the attention function; the bytes that it saves are not included above."""
    active_experts: int = 0
    """Number of experts per token, if their matrix products are grouped."""
    width: int = 0
    """Width of the part's input; 0 if the part is not called."""


@dataclass(frozen=True)
class Trace:
    """Bytes that autograd saves in a forward pass, by part."""

    layers: tuple[Kept, ...]
    """In the order of ``layers_of``."""
    outside: Kept
    """Everything else up to the output layer's input; ``width`` is that of the output layer's input."""
    is_product: bool
    """Whether the logits are the plain matrix product of the output layer."""


def build(config: Mapping[str, Any]) -> PreTrainedModel:
    """The model of a config.json, with parameters without memory. Call and use it in ``FakeTensorMode``.

    Raises:
        Exception: whatever transformers raises if it cannot build a model from the configuration.
    """
    settings = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32, attn_implementation="eager")
    model.tie_weights()  # which goes with the initialization
    return model.eval()


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that are recomputed with gradient checkpointing, and sharded one by one (sfpo.trainer.scorer)."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


@lru_cache(maxsize=64)
def trace(config: str, dtype: str, adapters: bool) -> Trace:
    """Run the model of a config.json on fake tensors.

    Args:
        config: its content, as JSON.
        dtype: compute data type of the policy; bfloat16 means autocast.
        adapters: only matrices are trained, so nothing is saved for gradients of other weights. (The adapters' own inner
            products are not included.)

    Raises:
        Exception: whatever the model raises if its forward pass depends on values, which fake tensors do not have.
    """
    with FakeTensorMode(), _without_values():
        model = build(json.loads(config))
        if model._can_set_attn_implementation():
            model.set_attn_implementation(STAND_IN)
        for module in model.modules():
            if isinstance(kinds := vars(module).get("rope_type"), str | dict):  # some ask how long the row is
                vars(module)["rope_type"] = "default" if isinstance(kinds, str) else dict.fromkeys(kinds, "default")
            is_matrix = isinstance(module, nn.Linear | Conv1D) and module is not model.get_output_embeddings()
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = not adapters or is_matrix or parameter.ndim == 3
        layers = list(layers_of(model).values())
        alike = _alike(layers)
        for place, same in enumerate(alike):
            if same != place:
                layers[place].forward = partial(_given_back, layers[same], layers[place].forward)
        low, middle, high = (_run(model, layers, dtype, length) for length in LENGTHS)
    parts = [_fitted(*part) for part in zip(low.layers, middle.layers, high.layers, strict=True)]
    outside = _fitted(low.outside, middle.outside, high.outside)
    return replace(low, layers=tuple(parts[same] for same in alike), outside=outside)


def _alike(layers: list[nn.Module]) -> list[int]:
    """For each layer, the index of the second layer with the same structure, or its own index: of many equal layers only two
    are run. (The first one may also save what all of them use.)"""
    places: dict[Any, list[int]] = {}
    for place, layer in enumerate(layers):
        made = [
            (
                path,
                type(module),
                [(name, weight.shape) for name, weight in module.named_parameters(recurse=False)],
                [
                    (name, value)
                    for name, value in vars(module).items()
                    if isinstance(value, int | float | str) and "idx" not in name
                ],
            )
            for path, module in layer.named_modules()
        ]
        places.setdefault(repr(made), []).append(place)
    second = {place: same[1] for same in places.values() for place in same[1:]}
    return [second.get(place, place) for place in range(len(layers))]


def _given_back(alike: nn.Module, compute: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Replaces a layer's forward pass: returns its input if the equal layer that ran before only changed its hidden states."""
    return given[0] if alike in _observed[-1].of_hidden_states else compute(*given, **named)


def _fitted(low: Kept, middle: Kept, high: Kept) -> Kept:
    """The polynomial through the bytes at the three lengths (stored in ``per_token``), without its constant. If growth slows
    down with length (windows, a selection of keys), a line through the second and third length is used."""
    first, second, third = (kept.per_token for kept in (low, middle, high))
    step = LENGTHS[1] - LENGTHS[0]
    per_pair = max(0.0, (third - 2 * second + first) / (2 * step**2))
    per_token = (third - second) / step - per_pair * (LENGTHS[1] + LENGTHS[2])
    return replace(low, per_token=per_token, per_pair=per_pair)


def _run(model: PreTrainedModel, layers: list[nn.Module], dtype: str, length: int) -> Trace:
    """One forward pass; ``per_token`` of each part is the total for the row."""
    head: Any = model.get_output_embeddings()
    observed = _Observed(length, {parameter.untyped_storage()._cdata for parameter in model.parameters()})
    hooks = []
    for place, layer in enumerate(layers):
        enter = partial(observed.enter, place)
        hooks += [layer.register_forward_pre_hook(enter, with_kwargs=True), layer.register_forward_hook(observed.leave)]
    if head is not None:
        hooks += [head.register_forward_pre_hook(observed.enter_head), head.register_forward_hook(observed.leave_head)]
    try:
        with (
            torch.autograd.graph.saved_tensors_hooks(observed.keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"),
            _attending(observed),
        ):
            logits = model(input_ids=torch.zeros(1, length, dtype=torch.long), **without_cache(model))[0]
    finally:
        for hook in hooks:
            hook.remove()
    is_product = isinstance(head, nn.Linear) and getattr(head, "bias", None) is None and observed.logits is logits
    return Trace(tuple(observed.part(place) for place in range(len(layers))), observed.part(None), is_product)


class _Observed:
    """Records a forward pass. A part is the index of a layer; None: outside of all layers."""

    def __init__(self, length: int, weights: set[int]) -> None:
        self.length, self.weights = length, weights
        self.inside: list[int | None] = [None]
        self.bytes: dict[int, tuple[int | None, int]] = {}
        """Storage -> (the first part that saves it, bytes)."""
        self.widths: dict[int | None, int] = {}
        self.attention: dict[int | None, list[Attention]] = {}
        self.expert_rows: dict[int | None, int] = {}
        self.of_hidden_states: set[nn.Module] = set()
        """Layers that return a single tensor with the shape of their first input."""
        self.logits: Any = None
        self.after_body = False
        self._alive: list[Tensor] = []

    def enter(self, place: int, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.inside.append(place)
        tensors = [value for value in (*given, *named.values()) if isinstance(value, Tensor) and value.is_floating_point()]
        self.widths.setdefault(place, tensors[0].shape[-1] if tensors else 0)

    def leave(self, layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        self.inside.pop()
        tensors = [one.shape for one in (output, *given[:1]) if isinstance(one, Tensor)]
        if len(tensors) == 2 and tensors[0] == tensors[1]:
            self.of_hidden_states.add(layer)

    def enter_head(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        self.widths[None], self.after_body = given[0].shape[-1], True

    def leave_head(self, _: nn.Module, __: Any, logits: Tensor) -> None:
        self.logits = logits

    def keep(self, tensor: Tensor) -> Tensor:
        self._alive.append(tensor)  # otherwise its storage could be freed and its address reused
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights and not self.after_body:
            self.bytes.setdefault(storage._cdata, (self.inside[-1], storage.nbytes()))
        return tensor

    def part(self, place: int | None) -> Kept:
        kept = sum(size for where, size in self.bytes.values() if where == place)
        active = self.expert_rows.get(place, 0) // self.length
        return Kept(kept, 0.0, tuple(self.attention.get(place, ())), active, self.widths.get(place, 0))


_observed: list[_Observed] = []
"""The forward pass that is being recorded, last."""


@contextmanager
def _attending(observed: _Observed) -> Iterator[None]:
    _observed.append(observed)
    try:
        yield
    finally:
        _observed.pop()


class _KeepsNothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: query [1, heads, t, d], key and value [1, key heads, t, d] -> [1, t, heads, d]."""
    asked = Attention(
        query.shape[1],
        key.shape[1],
        key.shape[3],
        value.shape[3],
        sliding_window,
        softcap is not None,
        s_aux is not None,
    )
    _observed[-1].attention.setdefault(_observed[-1].inside[-1], []).append(asked)
    return _KeepsNothing.apply(query, key, value), None


def _mask(batch_size: int, q_length: int, kv_length: int, *_: Any, **__: Any) -> Tensor:
    return torch.ones(batch_size, 1, q_length, kv_length, dtype=torch.bool)


AttentionInterface.register(STAND_IN, _attention)
AttentionMaskInterface.register(STAND_IN, _mask)


class _GroupedProducts(TorchFunctionMode):
    """Replaces torch's grouped matrix product, which has no fake version in float32, by transformers' own, which saves as
    much."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") == "_grouped_mm":
            _observed[-1].expert_rows[_observed[-1].inside[-1]] = len(args[0])
            return torch.ops.transformers.grouped_mm_fallback(args[0], args[1], kwargs["offs"])
        return function(*args, **(kwargs or {}))


@contextmanager
def _without_values() -> Iterator[None]:
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.level
    log.setLevel(logging.CRITICAL)  # it logs a stack trace before the exception, which is raised anyway
    try:
        with _GroupedProducts():
            yield
    finally:
        log.setLevel(before)
