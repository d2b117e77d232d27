"""What an update rule asks of a policy, and what it tells the trainer."""

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
"""Key in the metadata of a rule's field that says how the rule is computed and decides no result."""


@dataclass(frozen=True)
class Update:
    """What one pass over a batch did."""

    metrics: UpdateMetrics
    old: OldPolicy
    """The batch's own; of a batch that has none, what this pass found before it moved a weight."""


class Policy(Protocol):
    """Anything that holds weights and can take one update on a batch. ``optimizer_state: restore`` asks for an attribute
    ``optimizer`` too, a torch optimizer."""

    def parameters(self) -> Iterable[Tensor]:
        """The trainable weights, always in the same order."""

    def descend(self, batch: TrainBatch) -> Update:
        """One update: a whole pass over the batch in mini-batches, an optimizer step each."""


class GradientPolicy(Policy, Protocol):
    """A policy that shows its gradients, for rules that extrapolate them."""

    def mini_batches(self, batch: TrainBatch) -> Iterable[TrainBatch]:
        """The batch in the parts on which ``descend`` takes one optimizer step each."""

    def descend(self, batch: TrainBatch, observe: Callable[[], None] | None = None) -> Update:
        """As ``Policy.descend``; calls ``observe`` before each optimizer step, when every weight's ``grad`` is the loss's, and
        not clipped yet."""


@dataclass(frozen=True)
class StepReport:
    """What happened in one step of a rule."""

    updates: list[UpdateMetrics]
    """Metrics of each pass over the batch, in order."""
    old: OldPolicy
    """What the ratios of all passes were measured against."""
    alpha: float | None = None
    """Reposition factor in force; None for rules without one."""
    slow_fast: bool = False
    """The fast trajectory (stage I) was taken in this step."""
    trigger_fired: bool = False
    """The entropy trigger had fired before this step."""
    entropy_zscore: float | None = None
    passes: float | None = None
    """Passes over the batch, where some mini-batches took fewer than others; None: as many as ``updates``."""

    @property
    def backward_passes(self) -> float:
        return len(self.updates) if self.passes is None else self.passes


P = TypeVar("P", bound=Policy, contravariant=True)


@dataclass
class UpdateRule(ABC, Generic[P]):
    """Base of all rules, each for policies that show what it asks for: a dataclass whose fields are the settings, checked on
    construction."""

    @abstractmethod
    def step(self, policy: P, batch: TrainBatch) -> StepReport:
        """Improve ``policy`` on one batch of rollouts."""

    def weight_copies(self, on_gpu: bool) -> int:
        """Copies of all weights that the rule keeps during an update, beside the policy's own, gradients and moments.

        Args:
            on_gpu: counts those on the device alone; else those in the host's memory too.
        """
        return 0

    @property
    def trigger_fired_at(self) -> int | None:
        """First step (1-based) after the entropy trigger fired; None: not yet, or the rule has no trigger."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State that outlives a step, as plain JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""


class Passes:
    """The passes of one step: each is an update on the batch, and ``old`` is what all measure their ratios against."""

    def __init__(self, policy: Policy, batch: TrainBatch) -> None:
        self._policy, self._batch = policy, batch
        self.updates: list[UpdateMetrics] = []

    def descend(self) -> None:
        """One more update. The first finds out ``old`` where the batch has none."""
        update = self._policy.descend(self._batch)
        self._batch = self._batch.with_old(update.old)
        self.updates.append(update.metrics)

    @property
    def old(self) -> OldPolicy:
        """Raises RuntimeError where the batch has none and there was no pass."""
        if self._batch.old is None:
            raise RuntimeError("no pass was taken: the old log-probs of the batch are not known")
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
