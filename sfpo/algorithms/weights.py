"""Operations on a policy's weights as a whole: what SFPO adds to a trainer.

Both act in place or on one extra copy, parameter by parameter through torch's foreach kernels, so that on sharded
parameters each rank touches its own shard alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def snapshot(parameters: Iterable[Tensor]) -> list[Tensor]:
    """A copy of the weights (theta^{s,0}); the one extra copy that SFPO needs."""
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def reposition_(parameters: Iterable[Tensor], start: list[Tensor], alpha: float) -> None:
    """theta <- start + alpha (theta - start), in place (paper, Algorithm 1, stage II).

    Exact at both ends: alpha 1 leaves every bit of theta, alpha 0 gives every bit of start.

    Raises:
        ValueError: ``start`` does not match the parameters in number or shape.
    """
    weights = [parameter.detach() for parameter in parameters]
    if [w.shape for w in weights] != [s.shape for s in start]:
        raise ValueError(f"the snapshot ({len(start)} tensors) does not match the parameters ({len(weights)} tensors) in shape")
    torch._foreach_lerp_(weights, start, 1.0 - alpha)
