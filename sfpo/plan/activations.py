"""What autograd keeps of a model's forward pass: the model itself runs on tensors that have a shape and no memory.

torch's FakeTensorMode runs every operation for its output's shape alone, so that a model of any size takes about a second.
Attention is replaced by a function that notes what it is asked for: what the policy's own keeps depends on the layout of a row
(sfpo/plan/memory.py). A model whose attention cannot be set is run as it is. What is kept is a polynomial of the row's length,
c_0 + c_1 t + c_2 t^2, found from three lengths: c_0 is of weights (their bfloat16 copies), c_2 of attention that writes its
scores out.
"""

from __future__ import annotations

import inspect
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

from sfpo.transformers_internals import AttentionMaskInterface, Conv1D, GradientCheckpointingLayer, no_init_weights

STAND_IN = "planned"
"""Name under which transformers finds the attention of this file."""
LENGTHS = (64, 128, 192)
"""Tokens of the rows that are run: equally spaced, and whole chunks of what is computed in chunks."""


@dataclass(frozen=True)
class Attention:
    """What a layer asks the attention function for."""

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
    """Bytes that autograd keeps of a part of the model, weights and copies of them left out."""

    per_token: float = 0.0
    per_pair: float = 0.0
    """Of each pair of tokens of a row, where the model writes its scores out itself."""
    attention: tuple[Attention, ...] = ()
    """Calls of the attention function; what it keeps is not in the numbers above."""
    active_experts: int = 0
    """Experts that a token goes to, where their products are grouped."""
    width: int = 0
    """Of what goes into the part; 0: it is not called."""


@dataclass(frozen=True)
class Trace:
    """What autograd keeps of a forward pass, part by part."""

    layers: tuple[Kept, ...]
    """In the order of ``layers_of``."""
    outside: Kept
    """Everything else up to the output layer's input; ``width`` is that of the output layer's input."""
    is_product: bool
    """Logits are what the output layer's matrix product gives, and nothing is done to them."""


def build(config: Mapping[str, Any]) -> PreTrainedModel:
    """The model of a config.json, with parameters that have no memory. To be called and used in ``FakeTensorMode``.

    Raises:
        Exception: whatever transformers raises on a configuration that it makes no model of.
    """
    settings = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32, attn_implementation="eager")
    model.tie_weights()  # which goes with the initialization
    return model.eval()


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """What is computed once more where activations are checkpointed, and sharded by itself (sfpo.trainer.scorer)."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


@lru_cache(maxsize=64)
def trace(config: str, dtype: str, adapters: bool) -> Trace:
    """Run the model of a config.json.

    Args:
        config: its content, as JSON.
        dtype: that the policy computes in; bfloat16 by autocast.
        adapters: matrices alone are trained: what a frozen weight's gradient would take is not kept. (The adapters' own inner
            products are not in the numbers.)

    Raises:
        Exception: whatever the model raises where its forward pass depends on values that these tensors do not have.
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
    """For each layer the place of the second that is made as it is, or its own: of many alike, two are run. (The first of all
    may keep what all of them use.)"""
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
    """Instead of a layer's forward pass: its input, if that is all that the layer like it, which was run before, changed."""
    return given[0] if alike in _observed[-1].of_hidden_states else compute(*given, **named)


def _fitted(low: Kept, middle: Kept, high: Kept) -> Kept:
    """The polynomial through what was kept at the three lengths (stored in ``per_token``), without its constant. What grows
    less and less (windows, a choice of keys) is taken as a line from the second to the third."""
    first, second, third = (kept.per_token for kept in (low, middle, high))
    step = LENGTHS[1] - LENGTHS[0]
    per_pair = max(0.0, (third - 2 * second + first) / (2 * step**2))
    per_token = (third - second) / step - per_pair * (LENGTHS[1] + LENGTHS[2])
    return replace(low, per_token=per_token, per_pair=per_pair)


def _run(model: PreTrainedModel, layers: list[nn.Module], dtype: str, length: int) -> Trace:
    """One forward pass: ``per_token`` of each part is what it keeps of the whole row."""
    head: Any = model.get_output_embeddings()
    observed = _Observed(length, {parameter.untyped_storage()._cdata for parameter in model.parameters()})
    hooks = []
    for place, layer in enumerate(layers):
        enter = partial(observed.enter, place)
        hooks += [layer.register_forward_pre_hook(enter, with_kwargs=True), layer.register_forward_hook(observed.leave)]
    if head is not None:
        hooks += [head.register_forward_pre_hook(observed.enter_head), head.register_forward_hook(observed.leave_head)]
    accepted = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    without_cache = {"use_cache": False} if takes_any or "use_cache" in accepted else {}
    try:
        with (
            torch.autograd.graph.saved_tensors_hooks(observed.keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"),
            _attending(observed),
        ):
            logits = model(input_ids=torch.zeros(1, length, dtype=torch.long), **without_cache)[0]
    finally:
        for hook in hooks:
            hook.remove()
    is_product = isinstance(head, nn.Linear) and getattr(head, "bias", None) is None and observed.logits is logits
    return Trace(tuple(observed.part(place) for place in range(len(layers))), observed.part(None), is_product)


class _Observed:
    """What is seen during a forward pass. Parts are places of layers; None: outside of all."""

    def __init__(self, length: int, weights: set[int]) -> None:
        self.length, self.weights = length, weights
        self.inside: list[int | None] = [None]
        self.bytes: dict[int, tuple[int | None, int]] = {}
        """Storage -> the part that keeps it first, bytes."""
        self.widths: dict[int | None, int] = {}
        self.attention: dict[int | None, list[Attention]] = {}
        self.expert_rows: dict[int | None, int] = {}
        self.of_hidden_states: set[nn.Module] = set()
        """Layers that give one tensor, of the shape of the first that they get."""
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
        self._alive.append(tensor)  # a freed one's storage would come again
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights and not self.after_body:
            self.bytes.setdefault(storage._cdata, (self.inside[-1], storage.nbytes()))
        return tensor

    def part(self, place: int | None) -> Kept:
        kept = sum(size for where, size in self.bytes.values() if where == place)
        active = self.expert_rows.get(place, 0) // self.length
        return Kept(kept, 0.0, tuple(self.attention.get(place, ())), active, self.widths.get(place, 0))


_observed: list[_Observed] = []
"""The pass that attention is called in."""


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
    """torch's grouped matrix product gives no shape for float32; transformers' own, which keeps the same, does."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") == "_grouped_mm":
            _observed[-1].expert_rows[_observed[-1].inside[-1]] = len(args[0])
            return torch.ops.transformers.grouped_mm_fallback(args[0], args[1], kwargs["offs"])
        return function(*args, **(kwargs or {}))


@contextmanager
def _without_values() -> Iterator[None]:
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.level
    log.setLevel(logging.CRITICAL)  # it prints a stack before the exception that is raised anyway
    try:
        with _GroupedProducts():
            yield
    finally:
        log.setLevel(before)
