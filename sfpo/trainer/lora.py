"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: W x becomes W x + (alpha / rank) B A x, and A and B alone are trained.

B starts at 0, so that the policy starts as the checkpoint is, to the last bit. Readers of the policy's weights (the engine,
exports) see the merged ones, W + (alpha / rank) B A, put together one at a time.

Departures from the paper: adapters stand beside every matrix of each layer, unless the settings name some (the paper adapts
queries and values alone); A starts uniform, as in peft and the authors' code, not Gaussian. Where a model keeps the matrices of
a layer's experts in one tensor, each expert has an A and a B of its own.
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
"""peft's layers: of a module's matrix; of the tensor that holds the matrices of a layer's experts."""
BASE = ".base_layer"
"""What peft puts into the names of the weights that it wraps, once for each of a module's adapted tensors."""


def add_adapters(model: PreTrainedModel, settings: Lora, compute: torch.dtype, seed: int) -> None:
    """Freeze the model and put float32 adapters beside its layers' matrices, in place.

    Args:
        compute: data type that the layers compute in; the frozen matrices are kept in it, since nothing adds up in them.
        seed: A is drawn from it.

    Raises:
        ConfigError: a name in ``settings.matrices`` is none of a matrix of the model's layers.
    """
    linear, experts = (_chosen(names, settings.matrices) for names in (linear_layers(model), expert_tensors(model)))
    found = {_last(name) for name in (*linear, *experts)}
    if unknown := sorted(set(settings.matrices or ()) - found):
        known = sorted({_last(name) for name in (*linear_layers(model), *expert_tensors(model))})
        raise ConfigError(
            f"train.lora.matrices = {settings.matrices}: the layers of the model have no matrix called {unknown}; they have "
            f"{', '.join(known)} (embeddings, the output layer, routers and convolutions get no adapters)"
        )
    scaling: dict[str, Any] = {"r": settings.rank, "lora_alpha": settings.alpha}  # a float, which peft divides as it comes
    config = LoraConfig(**scaling, lora_dropout=0.0, target_modules=linear, target_parameters=experts)
    with torch.random.fork_rng(devices=[]):  # the weights are on the CPU still: no GPU's generator is touched
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
    """Names of the modules with a matrix that adapters can stand beside: all but the output layer."""
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head]


def expert_tensors(model: PreTrainedModel) -> list[str]:
    """Names of the parameters [experts, m, n] that hold the matrices of a layer's experts."""
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
    """Name of each tensor with an adapter, as it is without adapters -> peft's layer of it."""
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, Adapted))
    return {f"{name.replace(BASE, '')}.{getattr(layer, 'parameter_name', 'weight')}": layer for name, layer in layers}


def merged(model: PreTrainedModel, tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor]) -> Entries:
    """What makes each weight, by the name that it has without adapters: with its adapter added where it has one.

    Args:
        tensors: entries of the model's state dict; those of adapters may be among them.
        whole: puts a sharded tensor together.
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
