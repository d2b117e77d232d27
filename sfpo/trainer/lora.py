"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: W x becomes W x + (alpha / rank) B A x, and A and B alone are trained.

B starts at 0, so that the policy starts as the checkpoint is, to the last bit. Readers of the policy's weights (the engine,
exports) see the merged ones, W + (alpha / rank) B A, put together one at a time.

Departures from the paper: adapters stand beside every matrix of each layer, unless the settings name some (the paper adapts
queries and values alone); A starts uniform, as in peft and the authors' code, not Gaussian. Where a model keeps the matrices of
a layer's experts in one tensor, each expert has an A and a B of its own.
"""

from __future__ import annotations

import inspect
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
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from sfpo.config import Lora
from sfpo.schema import ConfigError
from sfpo.seeding import seed_of
from sfpo.trainer.published_names import Entries

ADAPTER = "default"
"""peft's name of the only adapter."""
STATE_SPACE, REFUSED_BY_PEFT = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"), ("out_proj", "conv1d")
"""peft raises for these modules of these model types (tuners_utils.py, 0.19): fused kernels go past their adapters."""
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
    every = linear_layers(model), expert_tensors(model)
    linear, experts = (_chosen(names, settings.matrices) for names in every)
    found = {_last(name) for name in (*linear, *experts)}
    if unknown := sorted(set(settings.matrices or ()) - found):
        known = sorted({_last(name) for names in every for name in names})
        raise ConfigError(
            f"train.lora.matrices = {settings.matrices}: the layers of the model have no matrix called {unknown}; they have "
            f"{', '.join(known)} (no adapters: embeddings, the output layer, routers, convolutions, and matrices that several "
            "layers share or that are not called as layers)"
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
    """Names of the modules with a matrix that adapters can stand beside: all that compute a product and no more, without the
    output layer; without those whose weight the model uses without calling them (Jamba's steps), which would go past the
    adapter; and without those that hold one weight together (Zamba2's blocks), which would each add another's adapter."""
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
    accepted = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    without_cache = {"use_cache": False} if takes_any or "use_cache" in accepted else {}
    try:
        logits = model(input_ids=torch.arange(4, device=model.device)[None], **without_cache)[0]
    finally:
        for hook in hooks:
            hook.remove()
    return logits, calls


def expert_tensors(model: PreTrainedModel) -> list[str]:
    """Names of the parameters [experts, m, n] that hold the matrices of a layer's experts: of modules that are called with what
    they work on as their first argument, as peft's wrapper asks for. (Zamba's state-space layers have such parameters too.)"""
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
