"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: W x becomes W x + (alpha / rank) B A x, and only A and B are trained.

B starts at 0, so the initial policy is bit-identical to the checkpoint. Readers of the policy's weights (engine, exports) get
the merged weights W + (alpha / rank) B A, computed one tensor at a time.

Departures from the paper: by default every matrix of each layer is adapted (the paper: only queries and values), and A is
initialized uniformly, as in peft and the authors' code (the paper: Gaussian). If a model stores the matrices of a layer's
experts in one tensor, each expert has its own A and B.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from sfpo.config import Lora
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.schema import ConfigError
from sfpo.seeding import seed_of
from sfpo.trainer.published_names import Entries
from sfpo.transformers_internals import Conv1D, GradientCheckpointingLayer, without_cache

ADAPTER = "default"
"""peft's name of the only adapter."""
STATE_SPACE, REFUSED_BY_PEFT = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"), ("out_proj", "conv1d")
"""peft raises for these modules of these model types (tuners_utils.py, 0.21): fused kernels go past their adapters."""
Adapted = lora.Linear | ParamWrapper
"""peft's wrappers of a module's matrix, and of a tensor with the matrices of a layer's experts."""
BASE = ".base_layer"
"""Inserted by peft into the names of wrapped weights, once per adapted tensor of the module."""


def add_adapters(
    model: PreTrainedModel, settings: Lora, compute: torch.dtype, seed: int, ranks: Ranks = SINGLE_PROCESS
) -> None:
    """Freeze the model, and add float32 adapters to its layers' matrices, in place.

    Args:
        compute: compute data type of the layers; the frozen matrices are stored in it, since they are not updated.
        seed: seed of the initialization of A.
        ranks: of these only the first needs weights; the others' model may be on the meta device.

    Raises:
        ConfigError: ``settings.matrices`` has a name that is not a matrix of the model's layers.
    """
    every = ranks.of_first(lambda: (linear_layers(model), expert_tensors(model)))
    linear, experts = (_chosen(names, settings.matrices) for names in every)
    found = {_last(name) for name in (*linear, *experts)}
    if unknown := sorted(set(settings.matrices or ()) - found):
        known = sorted({_last(name) for names in every for name in names})
        raise ConfigError(
            f"train.lora.matrices = {settings.matrices}: the layers of the model have no matrix called {unknown}; available: "
            f"{', '.join(known)} (embeddings, the output layer, routers, convolutions, and matrices that several layers share "
            "or that are not called as layers cannot have adapters)"
        )
    scaling: dict[str, Any] = {"r": settings.rank, "lora_alpha": settings.alpha}  # peft accepts a float alpha
    config = LoraConfig(**scaling, lora_dropout=0.0, target_modules=linear, target_parameters=experts)
    with torch.random.fork_rng(devices=[]):  # the weights are still on the CPU, so only its generator is used
        torch.default_generator.manual_seed(seed_of("lora", seed))
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for module in layer.modules():
                if isinstance(module, nn.Linear) and not any(weight.requires_grad for weight in module.parameters()):
                    module.to(compute)
    for adapted in adapted_tensors(model).values():
        if isinstance(adapted, ParamWrapper):
            tensor = adapted.get_param()
            tensor.data = tensor.data.to(compute)


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear modules that can have adapters. Excluded are the output layer; modules that compute more than a
    product; modules whose weight the model uses without calling them (Jamba's time steps), since that would skip the adapter;
    and modules that share one weight (Zamba2's blocks), since each would add its own adapter to it."""
    head = model.get_output_embeddings()
    holders = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    linear = {
        name: module
        for name, module in model.named_modules()
        if type(module).forward in (nn.Linear.forward, Conv1D.forward)
        and module is not head
        and holders[id(module.weight)] == 1
    }
    refused = REFUSED_BY_PEFT if model.config.get_text_config().model_type in STATE_SPACE else ()
    passed_by = _passed_by(model, linear)
    return [name for name in linear if name not in passed_by and _last(name) not in refused]


def _passed_by(model: PreTrainedModel, linear: Mapping[str, nn.Module]) -> set[str]:
    """Those that are not called in a forward pass over four tokens, and whose weights have a gradient all the same."""
    with torch.no_grad():
        called = {module for module, _ in _calls(model, linear.values())[1]}
    names = [name for name, module in linear.items() if module not in called]
    if not names:
        return set()
    logits, _ = _calls(model, [])
    weights = [linear[name].get_parameter("weight") for name in names]
    gradients = torch.autograd.grad(logits.float().sum(), weights, allow_unused=True)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


def _calls(model: PreTrainedModel, modules: Iterable[nn.Module]) -> tuple[Tensor, list[tuple[nn.Module, tuple[Any, ...]]]]:
    """A forward pass over four tokens: its logits, and each call of one of these modules with its positional arguments."""
    calls: list[tuple[nn.Module, tuple[Any, ...]]] = []
    hooks = [module.register_forward_hook(lambda module, given, _: calls.append((module, given))) for module in modules]
    try:
        logits = model(input_ids=torch.arange(4, device=model.device)[None], **without_cache(model))[0]
    finally:
        for hook in hooks:
            hook.remove()
    return logits, calls


def expert_tensors(model: PreTrainedModel) -> list[str]:
    """Names of the parameters [experts, m, n] with the matrices of a layer's experts. Their module must be called with its
    input as the first positional argument, as peft's wrapper requires. (Zamba's state-space layers have such parameters
    too.)"""
    holders = {
        name: module
        for name, module in model.named_modules()
        if any(parameter.ndim == 3 for parameter in module.parameters(recurse=False))
        and not isinstance(module, nn.modules.conv._ConvNd)
    }
    if not holders:
        return []
    with torch.no_grad():
        named_only = {module for module, given in _calls(model, holders.values())[1] if not given}
    return [
        f"{name}.{own}"
        for name, module in holders.items()
        if module not in named_only
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3
    ]


def _chosen(names: list[str], matrices: list[str] | None) -> list[str]:
    return names if matrices is None else [name for name in names if _last(name) in matrices]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def adapted_tensors(model: PreTrainedModel) -> dict[str, Adapted]:
    """Name of each adapted tensor (its name without adapters) -> peft's wrapper."""
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, Adapted))
    return {f"{name.replace(BASE, '')}.{getattr(layer, 'parameter_name', 'weight')}": layer for name, layer in layers}


def merged(model: PreTrainedModel, tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor]) -> Entries:
    """Name of each weight without adapters -> function that computes it, with its adapter merged if it has one.

    Args:
        tensors: entries of the model's state dict, possibly including those of adapters.
        whole: gathers a sharded tensor.
    """
    adapted = adapted_tensors(model)
    weights = {name.replace(BASE, ""): tensor for name, tensor in tensors.items() if not re.search(r"\.lora_[AB]\.", name)}
    return {name: partial(_with_adapter, tensor, adapted.get(name), whole) for name, tensor in weights.items()}


def _with_adapter(tensor: Tensor, layer: Adapted | None, whole: Callable[[Tensor], Tensor]) -> Tensor:
    tensor = whole(tensor)
    if layer is None:
        return tensor
    a, b = (whole(matrices.get_parameter(f"{ADAPTER}.weight")) for matrices in (layer.lora_A, layer.lora_B))
    scaling, tensor = layer.scaling[ADAPTER], tensor.to(a.dtype)
    if isinstance(layer, lora.Linear):  # [out, in], but [in, out] of a Conv1D
        return tensor.addmm(*((a.T, b.T) if layer.fan_in_fan_out else (b, a)), alpha=scaling)
    # peft's layout of the experts' adapters (ParamWrapper.get_delta_factors): A by expert, then rank; B by rank, then expert.
    experts = len(tensor)
    a = a.reshape(experts, -1, a.shape[-1])
    b = b.reshape(b.shape[0], -1, experts).permute(2, 0, 1)
    # [experts, out, in], or [experts, in, out]
    return tensor.baddbmm(*((b, a) if layer._did_swap_in_out_features else (a.mT, b.mT)), alpha=scaling)
