"""Computes log-probs and entropies of a causal language model in one forward pass, for any kind of output layer.

The model is split into its body, which returns the last hidden states, and its head, which turns them into logits (by one or
more matrix products, bias, soft cap, scale). Both are the model's own code: the body's output is captured during a forward
pass, and logits are computed slice by slice by calling the model's forward with a slice of hidden states in place of the body's
output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from sfpo.algorithms.logprobs import token_logprobs, token_logprobs_through
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.trainer.masks import packed
from sfpo.trainer.packing import MicroBatch
from sfpo.transformers_internals import GradientCheckpointingLayer, without_cache


@dataclass(frozen=True)
class Head:
    """The output layer: how a model computes logits from its last hidden states."""

    body: str
    """Name of the submodule that returns the last hidden states."""
    wrapped: Callable[[Tensor], Any]
    """Wraps hidden states [1, n, width] in the body's type of output."""
    vocabulary: int
    """Number of logits per position."""
    is_product: bool
    """Whether logits are just hidden @ weight.T, with the output embeddings as the only trained weight of the head."""


class Scorer(nn.Module):
    """Log-probs and entropies of a micro-batch under the model, in evaluation mode (no dropout or router jitter).

    Args:
        compute: data type of the model's forward pass.
        temperature: sampling temperature of the completions.
        ranks: the processes that share the model; until it is sharded, only the first has its weights.

    Raises:
        ValueError: the model does not return one row of logits per position.
    """

    def __init__(self, model: PreTrainedModel, compute: torch.dtype, temperature: float, ranks: Ranks = SINGLE_PROCESS) -> None:
        super().__init__()
        self.model, self.compute, self.temperature = model.eval(), compute, temperature
        self.without_cache = without_cache(model)
        self._stateful = [module for module in model.modules() if "dynamic" in _rope_types(module)]
        self.head, states = ranks.of_first(self._head_and_states)
        self._states = [(model.get_submodule(name), attribute) for name, attribute in states]
        """(module, attribute) of tensors that a forward pass leaves for the next one (RecurrentGemma)."""

    def forward(self, micro: MicroBatch, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """(log-probs [n], entropy [n]). The output layer is computed only at positions that predict completion tokens."""
        with self._autocast(micro.input_ids.device):
            hidden = self._hidden(micro).flatten(0, 1)[micro.positions]
        hidden = hidden.to(torch.bfloat16) if self.compute == torch.bfloat16 else hidden
        if self.head.is_product:
            weight = self.model.get_output_embeddings().weight
            return token_logprobs(hidden, weight, micro.targets, self.temperature, with_entropy)

        def head(hidden: Tensor) -> Tensor:
            with self._autocast(hidden.device):
                return self._logits(hidden)

        return token_logprobs_through(head, hidden, micro.targets, self.temperature, self.head.vocabulary)

    def checkpoint_layers(self) -> None:
        """Enable activation checkpointing per layer. (transformers' implementation requires training mode, which enables
        dropout.)"""
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)

    def shard(self, ranks: Ranks, offload: bool, prepare: Callable[[nn.Module], None] = lambda module: None) -> None:
        """Shard the weights over the ranks (FSDP2); a layer is gathered while it computes.

        Layers are gathered in their compute data type. The embeddings, and thus the residual stream, stay float32, as under
        autocast on a single rank.

        Args:
            prepare: called with each layer, and finally the model, before its weights are sharded.
        """
        placed = CPUOffloadPolicy() if offload else OffloadPolicy()
        in_layers = MixedPrecisionPolicy(self.compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                prepare(module)
                fully_shard(module, mesh=ranks.mesh, mp_policy=in_layers, offload_policy=placed)
        prepare(self.model)
        fully_shard(self, mesh=ranks.mesh, offload_policy=placed)
        for module in self.modules():
            if isinstance(module, FSDPModule):  # sum, not mean: token weights already contain the whole denominator
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    def forget_lengths(self) -> None:
        """Reset dynamic rotary embeddings and the states of layers, so that nothing depends on earlier sequences."""
        for module, name in self._states:
            setattr(module, name, None)
        for module in self._stateful:
            for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
                setattr(module, name, 0)

    @property
    def alone_from(self) -> int | None:
        """Length from which dynamic rotary embeddings change the frequencies of the whole forward pass, so that longer
        sequences must be computed separately; None if the model has no such embeddings."""
        return min((length for module in self.model.modules() for length in _lengths_of_rope(module)), default=None)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.compute == torch.bfloat16)

    def _hidden(self, micro: MicroBatch) -> Tensor:
        """Last hidden states [r, t, width] of a micro-batch, with the body called as the model itself calls it."""
        self.forget_lengths()
        given: dict[str, Any] = {"input_ids": micro.input_ids, **self.without_cache}
        if micro.groups is None:
            return self._last_hidden(given)
        # Pass an explicit mask; otherwise transformers would split the row where positions restart.
        given |= {"position_ids": micro.position_ids, "attention_mask": torch.ones_like(micro.input_ids)}
        with packed(micro.groups, micro.varlen):
            return self._last_hidden(given)

    def _last_hidden(self, given: dict[str, Any]) -> Tensor:
        found: list[Tensor] = []
        body = self.model.get_submodule(self.head.body)
        compute = body.forward

        def observed(*args: Any, **kwargs: Any) -> Any:
            output = compute(*args, **kwargs)
            found.append(_hidden_of(output))
            return self.head.wrapped(found[-1][:, :1])  # run the head on only one position

        with _forward(body, observed):
            self.model(**given)
        return found[0]

    def _logits(self, hidden: Tensor) -> Tensor:
        """[n, width] -> [n, vocabulary]: call the model's forward with ``hidden`` in place of the body's output."""
        with _forward(self.model.get_submodule(self.head.body), lambda *_, **__: self.head.wrapped(hidden[None])):
            tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            return self.model(input_ids=tokens, **self.without_cache)[0][0]

    def _head_and_states(self) -> tuple[Any, list[tuple[str, str]]]:
        """The output layer's computation, and the (module name, attribute) of each tensor that the forward pass left behind."""
        before = _states(self.model)
        head = self._find_head()
        return head, [place for place, state in _states(self.model).items() if state is not before.get(place)]

    def _find_head(self) -> Head:
        """Determine the head by a forward pass over four tokens, and one of only the head."""
        device = next(self.model.parameters()).device
        with torch.no_grad(), self._autocast(device):
            body, output = _body_of(self.model, torch.arange(4, device=device)[None], self.without_cache)
        width = _hidden_of(output).shape[-1]
        self.head = Head(body, _wrapper(output), vocabulary=0, is_product=False)
        generator = torch.Generator().manual_seed(0)
        scales = torch.tensor([0.0, 1.0, 30.0, 1000.0])[:, None]  # a soft cap shows at large scales, a bias at small ones
        hidden = (scales * torch.randn(4, width, generator=generator)).to(device).requires_grad_()
        logits = self._logits(hidden)
        if logits.dim() != 2 or len(logits) != len(hidden):
            shape = list(logits.shape)
            raise ValueError(f"{type(self.model).__name__} returns logits of shape {shape} for {len(hidden)} positions")
        return replace(self.head, vocabulary=logits.shape[-1], is_product=self._is_product(hidden, logits))

    def _is_product(self, hidden: Tensor, logits: Tensor) -> bool:
        weight = getattr(self.model.get_output_embeddings(), "weight", None)
        if weight is None or weight.shape != (logits.shape[-1], hidden.shape[-1]):
            return False
        product = hidden @ weight.T.to(hidden.dtype)
        rounding = 1e-5 * product.abs().amax(-1, keepdim=True) + 1e-6
        if ((logits - product).abs() > rounding).any():
            return False
        others = [parameter for parameter in self.model.parameters() if parameter.requires_grad and parameter is not weight]
        gradients = torch.autograd.grad(logits.sum(), others, allow_unused=True) if others else []
        return all(gradient is None for gradient in gradients)


def _body_of(model: PreTrainedModel, tokens: Tensor, arguments: dict[str, Any]) -> tuple[str, Any]:
    """(name of the body, its output): of the submodules that the model's forward calls directly, the one with the most
    modules."""
    called: list[tuple[nn.Module, Any]] = []
    inside: list[nn.Module] = []

    def before(module: nn.Module, _: Any) -> None:
        inside.append(module)

    def after(module: nn.Module, _: Any, output: Any) -> None:
        inside.pop()
        if not inside:
            called.append((module, output))

    parts = [module for module in model.modules() if module is not model]
    hooks = [part.register_forward_pre_hook(before) for part in parts] + [part.register_forward_hook(after) for part in parts]
    try:
        model(input_ids=tokens, **arguments)
    finally:
        for hook in hooks:
            hook.remove()
    body, output = max(called, key=lambda call: sum(1 for _ in call[0].modules()))
    return next(name for name, module in model.named_modules() if module is body), output


@contextlib.contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Context in which the module's forward is replaced."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _hidden_of(output: Any) -> Tensor:
    """The last hidden states in a module's output, which may be a ModelOutput, a tuple or a tensor."""
    return output if isinstance(output, Tensor) else output[0]


def _wrapper(output: Any) -> Callable[[Tensor], Any]:
    """A function that wraps last hidden states in the same type of output. (Module-level: ranks exchange it.)"""
    if isinstance(output, ModelOutput):
        return partial(_model_output, type(output), next(iter(output)))
    if isinstance(output, tuple):
        return partial(_tuple, len(output))
    return _itself


def _model_output(kind: type[ModelOutput], name: str, hidden: Tensor) -> ModelOutput:
    return kind(**{name: hidden})


def _tuple(length: int, hidden: Tensor) -> tuple[Tensor | None, ...]:
    return (hidden, *(None,) * (length - 1))


def _itself(hidden: Tensor) -> Tensor:
    return hidden


def _states(model: nn.Module) -> dict[tuple[str, str], Tensor]:
    """(module name, attribute) -> each tensor that a module holds as a plain attribute."""
    return {
        (name, attribute): value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
    }


def _rope_types(module: nn.Module) -> list[str]:
    kinds = getattr(module, "rope_type", None)
    return list(kinds.values()) if isinstance(kinds, dict) else [kinds] if isinstance(kinds, str) else []


def _lengths_of_rope(module: Any) -> Iterator[int]:
    """Pretraining lengths beyond which transformers.modeling_rope_utils.dynamic_rope_update changes the frequencies."""
    kinds = _rope_types(module)
    if any("dynamic" in kind for kind in kinds):
        yield module.original_max_seq_len
    if "longrope" in kinds:
        parameters = module.config.rope_parameters
        for of_layers in [parameters, *(value for value in parameters.values() if isinstance(value, dict))]:
            if "original_max_position_embeddings" in of_layers:
                yield of_layers["original_max_position_embeddings"]
