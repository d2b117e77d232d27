"""Operations on all weights of a policy: snapshot, reposition, gradient norms.

They act in place or on one extra copy, with torch's foreach kernels. Of sharded parameters (DTensor) each rank handles only its
own shard, without communication; only gradient norms are reduced over ranks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor, sharing its memory; any other tensor itself."""
    return tensor.to_local() if _sharded(tensor) else tensor


def _sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a DTensor. The class is not imported, since that imports sympy, which would slow every check of
    params.yaml."""
    return hasattr(tensor, "full_tensor")


@torch.no_grad()
def snapshot(parameters: Iterable[Tensor], on_host: bool = False) -> list[Tensor]:
    """A copy of the weights (theta^{s,0}); the one extra copy that SFPO needs.

    Args:
        on_host: keep it in host memory instead of on the device.
    """
    if on_host:
        return [local(parameter.detach()).to("cpu", copy=True) for parameter in parameters]
    return [local(parameter.detach()).clone() for parameter in parameters]


@torch.no_grad()
def reposition_(parameters: Iterable[Tensor], start: list[Tensor], alpha: float) -> None:
    """theta <- start + alpha (theta - start), in place (paper, Algorithm 1, stage II).

    Exact at both ends: alpha 1 leaves every bit of theta, alpha 0 gives every bit of start.

    Raises:
        ValueError: ``start`` does not match the parameters in number or shape.
    """
    weights = _matching(parameters, start)
    if all(weight.device == at_start.device for weight, at_start in zip(weights, start, strict=True)):
        torch._foreach_lerp_(weights, start, 1.0 - alpha)
    else:  # from the host, one tensor on the device at a time
        for weight, at_start in zip(weights, start, strict=True):
            weight.lerp_(at_start.to(weight.device), 1.0 - alpha)


@torch.no_grad()
def displacement_(parameters: Iterable[Tensor], start: list[Tensor]) -> list[Tensor]:
    """theta - start, written over ``start``, which is returned.

    Raises:
        ValueError: ``start`` does not match the parameters in number or shape.
    """
    weights = _matching(parameters, start)
    torch._foreach_neg_(start)
    torch._foreach_add_(start, weights)
    return start


@torch.no_grad()
def move_(parameters: Iterable[Tensor], displacement: list[Tensor], factor: float = 1.0) -> None:
    """theta <- theta + factor * displacement, in place.

    Raises:
        ValueError: ``displacement`` does not match the parameters in number or shape.
    """
    torch._foreach_add_(_matching(parameters, displacement), displacement, alpha=factor)


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """A copy of every gradient.

    Raises:
        ValueError: a weight has no gradient.
    """
    return [local(_gradient(parameter).detach()).clone() for parameter in parameters]


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """Global norm (L2) of all gradients, over all ranks.

    Raises:
        ValueError: a weight has no gradient.
    """
    return _whole(torch.nn.utils.get_total_norm([_gradient(parameter) for parameter in parameters])).item()


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise ValueError(f"a weight of shape {list(parameter.shape)} has no gradient: no part of the loss depends on it")
    return parameter.grad


def clip_gradients_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Clip the global norm (L2) of all gradients to ``max_norm``, in place; returns the norm before clipping, a tensor without
    dimensions, so that the host need not wait for it."""
    return _whole(torch.nn.utils.clip_grad_norm_(parameters, max_norm))


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if _sharded(norm) else norm


def optimizer_snapshot(policy: object) -> dict[str, Any]:
    """A copy of the state of ``policy.optimizer`` (for AdamW two more copies of the weights).

    Raises:
        TypeError: the policy has no attribute ``optimizer``.
    """
    return copy.deepcopy(_optimizer(policy).state_dict())


def restore_optimizer_(policy: object, state: dict[str, Any]) -> None:
    """Restore the optimizer's state from ``optimizer_snapshot``; the learning rate of the step is part of it and does not
    change."""
    _optimizer(policy).load_state_dict(state)


def _optimizer(policy: object) -> torch.optim.Optimizer:
    optimizer = getattr(policy, "optimizer", None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError("optimizer_state 'restore' needs a policy with an attribute `optimizer`, a torch optimizer")
    return optimizer


def _matching(parameters: Iterable[Tensor], others: list[Tensor]) -> list[Tensor]:
    weights = [local(parameter.detach()) for parameter in parameters]
    if [w.shape for w in weights] != [other.shape for other in others]:
        raise ValueError(
            f"the snapshot ({len(others)} tensors) does not match the parameters ({len(weights)} tensors) in shape"
        )
    return weights
