"""The trajectory of the weights in one step of a rule, and its projection onto a plane (paper, Figure 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sfpo.algorithms.update_rules import Policy, StepReport, Update, UpdateRule
from sfpo.algorithms.weights import displacement_, local, move_, snapshot
from sfpo.types import TrainBatch

Move = Literal["start", "pass", "reposition"]
"""How a point was reached: the start; a pass over the batch; a change of the weights without a pass."""
MIN_SHARE = 1e-9
"""A second principal direction with a smaller variance, relative to the first, is rounding error."""


@dataclass(frozen=True)
class Point:
    """One point of the trajectory."""

    move: Move
    weights: list[Tensor]
    """A copy of all weights (this rank's shards)."""


class Recorder:
    """Wraps a policy and records its weights before and after each pass.

    Args:
        policy: the policy that the rule updates.
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.points = [Point("start", snapshot(policy.parameters()))]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The policy's optimizer, for rules that restore its state."""
        return self._policy.optimizer

    def parameters(self) -> list[Tensor]:
        """As the policy's."""
        return self._policy.parameters()

    def mini_batches(self, batch: TrainBatch) -> Iterable[TrainBatch]:
        """As the policy's."""
        return self._policy.mini_batches(batch)

    def descend(self, batch: TrainBatch, observe: Callable[[], None] | None = None) -> Update:
        """As the policy's; a change of the weights since the last pass is recorded as a separate point."""
        self.look()
        update = self._policy.descend(batch, observe)
        self.points.append(Point("pass", snapshot(self._policy.parameters())))
        return update

    def look(self) -> None:
        """Record a point if the weights have changed since the last one."""
        now = snapshot(self._policy.parameters())
        if any(not torch.equal(ours, theirs) for ours, theirs in zip(now, self.points[-1].weights, strict=True)):
            self.points.append(Point("reposition", now))


def record_step(rule: UpdateRule, policy: Policy, batch: TrainBatch) -> tuple[list[Point], StepReport]:
    """Take one step of the rule; returns the trajectory, beginning with the start, and the report of the step."""
    recorder = Recorder(policy)
    report = rule.step(recorder, batch)
    recorder.look()
    return recorder.points, report


@dataclass(frozen=True)
class Plane:
    """The plane through ``origin`` spanned by the first two principal directions of the points' displacements from it (without
    centring, so that the origin is in the plane)."""

    origin: list[Tensor]
    axes: tuple[list[Tensor], list[Tensor]]
    """Two orthonormal directions (this rank's shards). Signs are such that the last point has a positive first coordinate, and
    the point farthest from the first axis a positive second one. If all points are on a line, the second direction is 0."""
    coordinates: Tensor
    """[points, 2] float64: coordinates of the projected points, in units of the weights (Euclidean)."""
    share: float
    """Fraction of the squared displacements that is in the plane; at most 1."""

    @classmethod
    def through(cls, origin: list[Tensor], points: list[list[Tensor]], sum_: Callable[[Tensor], Tensor]) -> Plane:
        """The plane of these points.

        Args:
            sum_: sums a tensor in place over the ranks that share the weights, and returns it.

        Raises:
            ValueError: all points are at the origin.
        """
        moved = [displacement_(point, [tensor.clone() for tensor in origin]) for point in points]
        gram = torch.zeros(len(moved), len(moved), dtype=torch.float64, device=origin[0].device)
        for i, one in enumerate(moved):
            for j, other in enumerate(moved[: i + 1]):
                gram[i, j] = gram[j, i] = sum(torch.sum(a.double() * b.double()) for a, b in zip(one, other, strict=True))
        squares, directions = torch.linalg.eigh(sum_(gram).cpu())  # ascending
        largest, vectors = squares[-2:].flip(0), directions[:, -2:].flip(1)
        if largest[0] <= 0:
            raise ValueError("all points are at the origin: the weights did not change")
        scales = torch.where(largest > MIN_SHARE * largest[0], largest, torch.inf)
        coordinates = vectors * torch.where(scales.isinf(), 0.0, largest).sqrt()
        farthest = coordinates[:, 1].abs().argmax()
        signs = torch.stack([coordinates[-1, 0].sign(), coordinates[farthest, 1].sign()])
        vectors, coordinates = vectors * signs, coordinates * signs
        axes = []
        for k in range(2):
            axis = [torch.zeros_like(tensor) for tensor in origin]
            for one, weight in zip(moved, vectors[:, k] / scales[k].sqrt(), strict=True):
                move_(axis, one, weight.item())
            axes.append(axis)
        return cls(origin, (axes[0], axes[1]), coordinates, (largest.sum() / squares.sum()).item())

    @torch.no_grad()
    def place_(self, parameters: Iterable[Tensor], x: float, y: float) -> None:
        """Set the weights to a point of the plane, in place."""
        weights = list(parameters)
        put_(weights, self.origin)
        move_(weights, self.axes[0], x)
        move_(weights, self.axes[1], y)


@torch.no_grad()
def put_(parameters: Iterable[Tensor], weights: list[Tensor]) -> None:
    """Copy ``weights`` (a ``snapshot``) into the parameters."""
    for parameter, copied in zip(parameters, weights, strict=True):
        local(parameter.detach()).copy_(copied)
