"""A checkpoint's model on several ranks: the first one reads it, and the others get their shards from there.

Were each to read it, eight ranks on a machine would hold it eight times, in float32, before they cut it. transformers' own
loader makes the model on every rank, with the conversions and renamings of its family; on all but the first on the meta
device, where a tensor has a shape and no memory. While the model is cut layer by layer, each layer is sent to all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sfpo.ranks import Ranks


def load_model(checkpoint: str | Path, ranks: Ranks) -> PreTrainedModel:
    """The model in float32: with its weights on the first rank, on the CPU; on the others, on the meta device."""
    return AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        trust_remote_code=False,
        use_safetensors=True,
        device_map=None if ranks.first else "meta",
    )


def from_first(ranks: Ranks, device: torch.device) -> Callable[[nn.Module], None]:
    """A function that puts all weights and buffers of a module on ``device``, with the first rank's values, on every rank: one
    after the other, those that it has not met and that are not sharded. All ranks call it with the same modules.

    It raises a RuntimeError if ranks differ in what there is.
    """
    met: set[int] = set()

    @torch.no_grad()
    def receive(module: nn.Module) -> None:
        tensors = [one for one in weights_and_buffers(module) if id(one) not in met and not isinstance(one, DTensor)]
        shapes = [(tuple(one.shape), str(one.dtype)) for one in tensors]
        if any(others != shapes for others in ranks.gather(shapes)):
            raise RuntimeError(
                f"{type(module).__name__}: the first rank has read other weights or buffers than the others expect"
            )
        for tensor in tensors:
            if id(tensor) in met:  # tied, and listed twice
                continue
            met.add(id(tensor))
            if ranks.first:
                value = tensor.detach().to(device).contiguous()
            else:
                value = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            if value.numel():
                dist.broadcast(value.reshape(-1).view(torch.uint8), src=0)  # as bytes: not all backends know all types
            is_weight = isinstance(tensor, nn.Parameter)
            # The same object from now on, wherever the model holds it: tied weights stay tied.
            torch.utils.swap_tensors(tensor, nn.Parameter(value, tensor.requires_grad) if is_weight else value)

    return receive


def weights_and_buffers(module: nn.Module) -> Iterator[Tensor]:
    """Of all its parts, tied ones more than once."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            yield from [tensor for tensor in held.values() if tensor is not None]
