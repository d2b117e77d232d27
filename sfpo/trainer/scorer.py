"""A causal language model with its output layer inside one forward pass, whatever the output layer is.

The model is two parts: its body, whose last hidden states are as wide as the model, and a head, which makes logits of them by
one matrix product or more (a bias, a soft cap, a scale). Both are the model's own code: the body's output is taken as it
passes by, and logits are made a slice at a time by the model's forward pass with a slice in the place of that output.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from sfpo.algorithms.logprobs import token_logprobs, token_logprobs_through
from sfpo.ranks import Ranks
from sfpo.trainer.attention import packed
from sfpo.trainer.packing import MicroBatch


@dataclass(frozen=True)
class Head:
    """What a model does with its last hidden states."""

    body: nn.Module
    """The part of the model whose output it reads."""
    wrapped: Callable[[Tensor], Any]
    """Makes an output of the body of last hidden states [1, n, width]."""
    vocabulary: int
    """Number of logits."""
    is_product: bool
    """Its logits are hidden @ weight.T, with the weight of the output embeddings, and nothing else in it is trained."""


class Scorer(nn.Module):
    """Log-probs and entropies of a micro-batch under the model, in evaluation mode: without dropout or jitter of any kind.

    Args:
        compute: data type of the model's forward pass.
        temperature: of the distribution that completions are drawn from.

    Raises:
        ValueError: the model does not make one row of logits for each position.
    """

    def __init__(self, model: PreTrainedModel, compute: torch.dtype, temperature: float) -> None:
        super().__init__()
        self.model, self.compute, self.temperature = model.eval(), compute, temperature
        accepted = inspect.signature(model.forward).parameters
        self.takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
        self.without_cache = {"use_cache": False} if self.takes_any or "use_cache" in accepted else {}
        self._stateful = [module for module in model.modules() if "dynamic" in _rope_types(module)]
        before = _states(model)
        self.head = self._find_head()
        self._states = [place for place, state in _states(model).items() if state is not before.get(place)]
        """(module, attribute): what a forward pass leaves there for the next (RecurrentGemma)."""

    def forward(self, micro: MicroBatch, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """(log-probs [n], entropy [n]): the output layer runs on the positions that predict completion tokens alone."""
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
        """Compute each layer again in the backward pass. (transformers' own way asks for training mode, and with it for
        dropout.)"""
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)

    def shard(self, ranks: Ranks, offload: bool) -> None:
        """Keep this rank's part of each weight; a layer is whole while it computes.

        Layers are gathered in the data type that they compute in. The embeddings stay float32, and with them the residual
        stream, as under autocast alone.
        """
        placed = CPUOffloadPolicy() if offload else OffloadPolicy()
        in_layers = MixedPrecisionPolicy(self.compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                fully_shard(module, mesh=ranks.mesh, mp_policy=in_layers, offload_policy=placed)
        fully_shard(self, mesh=ranks.mesh, offload_policy=placed)
        for module in self.modules():
            if isinstance(module, FSDPModule):  # token weights hold the whole denominator: gradients add up
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    def forget_lengths(self) -> None:
        """Let nothing depend on the sequences that came before: frequencies of rotary embeddings, states of layers."""
        for module, name in self._states:
            setattr(module, name, None)
        for module in self._stateful:
            for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
                setattr(module, name, 0)

    @property
    def alone_from(self) -> int | None:
        """A longer sequence has other rotary frequencies, and gives them to all that is computed with it; None: there are no
        such embeddings."""
        return min((length for module in self.model.modules() for length in _lengths_of_rope(module)), default=None)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.compute == torch.bfloat16)

    def _hidden(self, micro: MicroBatch) -> Tensor:
        """[r, t, width]: what the body makes of a micro-batch, called as the model calls it."""
        self.forget_lengths()
        given: dict[str, Any] = {"input_ids": micro.input_ids, **self.without_cache}
        if micro.groups is None:
            return self._last_hidden(given)
        # All positions are there: said outright, or transformers would cut the row where positions start anew.
        given |= {"position_ids": micro.position_ids, "attention_mask": torch.ones_like(micro.input_ids)}
        with packed(micro.groups):
            return self._last_hidden(given)

    def _last_hidden(self, given: dict[str, Any]) -> Tensor:
        found: list[Tensor] = []
        compute = self.head.body.forward

        def observed(*args: Any, **kwargs: Any) -> Any:
            output = compute(*args, **kwargs)
            found.append(_hidden_of(output))
            return self.head.wrapped(found[-1][:, :1])  # the head need not run on all of it

        with _forward(self.head.body, observed):
            self.model(**given)
        return found[0]

    def _logits(self, hidden: Tensor) -> Tensor:
        """[n, width] -> [n, vocabulary], by the model's forward pass with ``hidden`` in the place of the body's output."""
        with _forward(self.head.body, lambda *_, **__: self.head.wrapped(hidden[None])):
            tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            return self.model(input_ids=tokens, **self.without_cache)[0][0]

    def _find_head(self) -> Head:
        """By one pass over four tokens, and one of the head alone."""
        device = next(self.model.parameters()).device
        with torch.no_grad(), self._autocast(device):
            body, output = _body_of(self.model, torch.arange(4, device=device)[None], self.without_cache)
        width = _hidden_of(output).shape[-1]
        self.head = Head(body, _wrapper(output), vocabulary=0, is_product=False)
        generator = torch.Generator().manual_seed(0)
        scales = torch.tensor([0.0, 1.0, 30.0, 1000.0])[:, None]  # small ones are not capped, and large ones hide a bias
        hidden = (scales * torch.randn(4, width, generator=generator)).to(device).requires_grad_()
        logits = self._logits(hidden)
        if logits.dim() != 2 or len(logits) != len(hidden):
            shape = list(logits.shape)
            raise ValueError(f"{type(self.model).__name__} makes logits of shape {shape} for {len(hidden)} positions")
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


def _body_of(model: PreTrainedModel, tokens: Tensor, arguments: dict[str, Any]) -> tuple[nn.Module, Any]:
    """The part of the model that holds most of its modules, of those that the model's forward pass calls itself; and its
    output."""
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
    return max(called, key=lambda call: sum(1 for _ in call[0].modules()))


@contextlib.contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While it is open, the module computes this."""
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
    """A module's output may be a ModelOutput, a tuple, or a tensor."""
    return output if isinstance(output, Tensor) else output[0]


def _wrapper(output: Any) -> Callable[[Tensor], Any]:
    """Makes an output of that kind of last hidden states alone."""
    if isinstance(output, ModelOutput):
        kind, name = type(output), next(iter(output))
        return lambda hidden: kind(**{name: hidden})
    if isinstance(output, tuple):
        others = (None,) * (len(output) - 1)
        return lambda hidden: (hidden, *others)
    return lambda hidden: hidden


def _states(model: nn.Module) -> dict[tuple[nn.Module, str], Tensor]:
    """Tensors that modules hold as plain attributes, by module and name."""
    return {
        (module, name): value for module in model.modules() for name, value in vars(module).items() if isinstance(value, Tensor)
    }


def _rope_types(module: nn.Module) -> list[str]:
    kinds = getattr(module, "rope_type", None)
    return list(kinds.values()) if isinstance(kinds, dict) else [kinds] if isinstance(kinds, str) else []


def _lengths_of_rope(module: Any) -> Iterator[int]:
    """Lengths of pre-training beyond which transformers.modeling_rope_utils.dynamic_rope_update changes frequencies."""
    kinds = _rope_types(module)
    if any("dynamic" in kind for kind in kinds):
        yield module.original_max_seq_len
    if "longrope" in kinds:
        parameters = module.config.rope_parameters
        for of_layers in [parameters, *(value for value in parameters.values() if isinstance(value, dict))]:
            if "original_max_position_embeddings" in of_layers:
                yield of_layers["original_max_position_embeddings"]
