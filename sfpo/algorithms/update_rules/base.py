"""Interfaces of update rules: the policy that they update, and the report to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from sfpo.types import OldPolicy, TrainBatch

UpdateMetrics = dict[str, float]
OPTIMIZER_STATES = ("keep", "restore")
EXECUTION = "execution"
"""Metadata key of those fields of a rule that are execution settings, which do not affect its result."""


@dataclass(frozen=True)
class Update:
    """The result of one pass over a batch."""

    metrics: UpdateMetrics
    old: OldPolicy
    """``batch.old``; if the batch has none, computed by this pass before it changed the weights."""


class Policy(Protocol):
    """A policy that can be updated on a batch. ``optimizer_state: restore`` also requires an attribute ``optimizer``, a torch
    optimizer."""

    def parameters(self) -> Iterable[Tensor]:
        """The trainable weights, always in the same order."""

    def descend(self, batch: TrainBatch) -> Update:
        """One update: a pass over the whole batch in mini-batches, with one optimizer step each."""


class GradientPolicy(Policy, Protocol):
    """A policy that gives access to its gradients, for rules that extrapolate them."""

    def mini_batches(self, batch: TrainBatch) -> Iterable[TrainBatch]:
        """The mini-batches of the batch: ``descend`` takes one optimizer step on each."""

    def descend(self, batch: TrainBatch, observe: Callable[[], None] | None = None) -> Update:
        """As ``Policy.descend``; calls ``observe`` before each optimizer step, when the gradients are complete and not yet
        clipped."""


@dataclass(frozen=True)
class StepReport:
    """Report of one step of a rule."""

    updates: list[UpdateMetrics]
    """Metrics of each pass over the batch, in order."""
    old: OldPolicy
    """Old log-probs, the denominator of the ratios in all passes."""
    alpha: float | None = None
    """Reposition factor in force; None for rules without one."""
    slow_fast: bool = False
    """Whether this step had a fast trajectory (stage I)."""
    trigger_fired: bool = False
    """Whether the entropy trigger had fired before this step."""
    entropy_zscore: float | None = None
    passes: float | None = None
    """Mean number of passes over the mini-batches, if it differs between them; None: ``len(updates)``."""

    @property
    def backward_passes(self) -> float:
        return len(self.updates) if self.passes is None else self.passes


P = TypeVar("P", bound=Policy, contravariant=True)


@dataclass
class UpdateRule(ABC, Generic[P]):
    """Base class of rules for policies of type P: a dataclass whose fields are the settings, validated on construction."""

    @abstractmethod
    def step(self, policy: P, batch: TrainBatch) -> StepReport:
        """Update ``policy`` on one batch of rollouts."""

    def weight_copies(self, on_gpu: bool) -> int:
        """Number of copies of all weights that the rule keeps during an update, without the policy's weights, gradients and
        moments.

        Args:
            on_gpu: count only copies on the device; else those in host memory too.
        """
        return 0

    @property
    def trigger_fired_at(self) -> int | None:
        """First step (1-based) after the entropy trigger fired; None: not yet, or the rule has no trigger."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State to be saved between steps, as plain JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state``."""


class Passes:
    """The passes of one step, each an update on the same batch with the same old log-probs ``old``."""

    def __init__(self, policy: Policy, batch: TrainBatch) -> None:
        self._policy, self._batch = policy, batch
        self.updates: list[UpdateMetrics] = []

    def descend(self) -> None:
        """One more update. The first one computes ``old`` if the batch has none."""
        update = self._policy.descend(self._batch)
        self._batch = self._batch.with_old(update.old)
        self.updates.append(update.metrics)

    @property
    def old(self) -> OldPolicy:
        """Raises RuntimeError if the batch has none and there was no pass yet."""
        if self._batch.old is None:
            raise RuntimeError("no pass yet: the old log-probs of the batch are not known")
        return self._batch.old


def check_fast_steps(num_fast_steps: object) -> None:
    """Raises ValueError unless K is a whole number of at least 1."""
    if not isinstance(num_fast_steps, int) or isinstance(num_fast_steps, bool) or num_fast_steps < 1:
        raise ValueError(f"num_fast_steps = {num_fast_steps!r}: K must be a whole number of at least 1")


def check_alpha(alpha: float) -> None:
    """Raises ValueError unless alpha is in [0, 1]."""
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha = {alpha!r}: the reposition factor must lie in [0, 1]; 0 gives GRPO")


def check_optimizer_state(optimizer_state: str) -> None:
    """Raises ValueError unless it is "keep" or "restore"."""
    if optimizer_state not in OPTIMIZER_STATES:
        raise ValueError(f"optimizer_state = {optimizer_state!r}: allowed are {', '.join(OPTIMIZER_STATES)}")
