"""What an update rule asks of a policy, and what it tells the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sfpo.types import TrainBatch

UpdateMetrics = dict[str, float]
OPTIMIZER_STATES = ("keep", "restore")
EXECUTION = "execution"
"""Key in the metadata of a rule's field that says how the rule is computed and decides no result."""


class Policy(Protocol):
    """Anything that holds weights and can take one update on a batch."""

    def parameters(self) -> Iterable[Tensor]:
        """The trainable weights, always in the same order."""

    def descend(self, batch: TrainBatch) -> UpdateMetrics:
        """One update: a whole pass over the batch in mini-batches, an optimizer step each."""


class OptimizerPolicy(Policy, Protocol):
    """A policy that shows its optimizer, for rules that put the optimizer's state back (``optimizer_state: restore``)."""

    optimizer: torch.optim.Optimizer


class GradientPolicy(Policy, Protocol):
    """A policy that shows its gradients, for rules that extrapolate them."""

    def mini_batches(self, batch: TrainBatch) -> Iterable[TrainBatch]:
        """The batch in the parts on which ``descend`` takes one optimizer step each."""

    def descend(self, batch: TrainBatch, observe: Callable[[], None] | None = None) -> UpdateMetrics:
        """As ``Policy.descend``; calls ``observe`` before each optimizer step, when every weight's ``grad`` is the loss's, and
        not clipped yet."""


@dataclass(frozen=True)
class StepReport:
    """What happened in one step of a rule."""

    updates: list[UpdateMetrics]
    """Metrics of each pass over the batch, in order."""
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


class UpdateRule(ABC):
    """Base of all rules: a dataclass whose fields are the settings, checked on construction."""

    @abstractmethod
    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
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

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (most rules have no state)
        """Continue from ``state``."""


def descend_times(policy: Policy, batch: TrainBatch, times: int) -> Iterator[UpdateMetrics]:
    """``times`` updates on one batch."""
    for _ in range(times):
        yield policy.descend(batch)


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
