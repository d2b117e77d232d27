"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: W x becomes W x + (alpha / rank) B A x, and only A and B are trained.

B starts at 0, so the initial policy is bit-identical to the checkpoint. Readers of the policy's weights (engine, exports) get
the merged weights W + (alpha / rank) B A, computed one tensor at a time.

Departures from the paper: by default every matrix of each layer is adapted (the paper: only queries and values), and A is
initialized uniformly, as in peft and the authors' code (the paper: Gaussian). If a model stores the matrices of a layer's
experts in one tensor, each expert has its own A and B.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from sfpo.config import Lora
from sfpo.schema import ConfigError
from sfpo.seeding import seed_of
from sfpo.trainer.published_names import Entries
from sfpo.transformers_internals import Conv1D, GradientCheckpointingLayer

ADAPTER = "default"
"""peft's name of the only adapter."""
Adapted = lora.Linear | ParamWrapper
"""peft's wrappers of a module's matrix, and of a tensor with the matrices of a layer's experts."""
BASE = ".base_layer"
"""Inserted by peft into the names of wrapped weights, once per adapted tensor of the module."""


def add_adapters(model: PreTrainedModel, settings: Lora, compute: torch.dtype, seed: int) -> None:
    """Freeze the model, and add float32 adapters to its layers' matrices, in place.

    Args:
        compute: compute data type of the layers; the frozen matrices are stored in it, since they are not updated.
        seed: seed of the initialization of A.

    Raises:
        ConfigError: ``settings.matrices`` has a name that is not a matrix of the model's layers.
    """
    linear, experts = (_chosen(names, settings.matrices) for names in (linear_layers(model), expert_tensors(model)))
    found = {_last(name) for name in (*linear, *experts)}
    if unknown := sorted(set(settings.matrices or ()) - found):
        known = sorted({_last(name) for name in (*linear_layers(model), *expert_tensors(model))})
        raise ConfigError(
            f"train.lora.matrices = {settings.matrices}: the layers of the model have no matrix called {unknown}; available: "
            f"{', '.join(known)} (embeddings, the output layer, routers and convolutions cannot have adapters)"
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
    """Names of the linear modules that can have adapters: all except the output layer."""
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head]


def expert_tensors(model: PreTrainedModel) -> list[str]:
    """Names of the parameters [experts, m, n] with the matrices of a layer's experts."""
    return [
        f"{name}.{own}"
        for name, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and not isinstance(module, nn.modules.conv._ConvNd)
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
