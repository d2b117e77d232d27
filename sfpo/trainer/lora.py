"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: W x becomes W x + (alpha / rank) B A x, and A and B alone are trained.

B starts at 0, so that the policy starts as the checkpoint is, to the last bit. Readers of the policy's weights (the engine,
exports) see the merged ones, W + (alpha / rank) B A, put together one at a time.

Departures from the paper: adapters stand beside every matrix of each layer, unless the settings name some (the paper adapts
queries and values alone); A starts uniform, as in peft and the authors' code, not Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from sfpo.config import Lora
from sfpo.schema import ConfigError
from sfpo.seeding import seed_of

ADAPTER = "default"
"""peft's name of the only adapter."""


def add_adapters(model: PreTrainedModel, settings: Lora, compute: torch.dtype, seed: int) -> None:
    """Freeze the model and put float32 adapters beside its layers' matrices, in place.

    Args:
        compute: data type that the layers compute in; the frozen matrices are kept in it, since nothing adds up in them.
        seed: A is drawn from it.

    Raises:
        ConfigError: a name in ``settings.matrices`` is none of a matrix of the model.
    """
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules=settings.matrices or "all-linear"
    )
    with torch.random.fork_rng(devices=[]):  # the weights are on the CPU still: no GPU's generator is touched
        torch.default_generator.manual_seed(seed_of("lora", seed))
        try:
            inject_adapter_in_model(config, model, adapter_name=ADAPTER)
        except ValueError as error:
            raise ConfigError(f"train.lora.matrices = {settings.matrices}: {error}") from None
    adapted = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if unknown := set(settings.matrices or ()) - adapted:  # peft passes over a name as long as another is found
        raise ConfigError(f"train.lora.matrices = {settings.matrices}: the model has no matrix called {sorted(unknown)}")
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for module in layer.modules():
                if isinstance(module, nn.Linear) and not any(weight.requires_grad for weight in module.parameters()):
                    module.to(compute)


def merged(
    model: PreTrainedModel, tensors: Iterable[tuple[str, Tensor]], whole: Callable[[Tensor], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names that they have without adapters, each with its adapter added where it has one.

    Args:
        tensors: entries of the model's state dict, or its named parameters; those of adapters may be among them.
        whole: puts a sharded tensor together.
    """
    adapted = {f"{name}.base_layer.weight": module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, tensor in tensors:
        if name in adapted:
            layer = adapted[name]
            a, b = (whole(matrix[ADAPTER].weight.detach()) for matrix in (layer.lora_A, layer.lora_B))
            tensor = whole(tensor).to(a.dtype).addmm(b, a, alpha=layer.scaling[ADAPTER])
            yield name.replace(".base_layer.", "."), tensor
        elif ".lora_A." not in name and ".lora_B." not in name:
            yield name.replace(".base_layer.", "."), whole(tensor)
