"""What an update rule asks of a policy, and what it tells the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sfpo.types import TrainBatch

UpdateMetrics = dict[str, float]


class Policy(Protocol):
    """Anything that holds weights and can take one update on a batch."""

    def parameters(self) -> Iterable[Tensor]:
        """The trainable weights, always in the same order."""

    def descend(self, batch: TrainBatch) -> UpdateMetrics:
        """One update: a whole pass over the batch in mini-batches, an optimizer step each."""


@dataclass(frozen=True)
class StepReport:
    """What happened in one step of a rule."""

    updates: list[UpdateMetrics]
    """Metrics of each pass over the batch, in order: their number is the step's backward passes."""
    alpha: float | None = None
    """Reposition factor in force; None for rules without one."""
    trigger_fired: bool = False
    """The slow-fast stages were skipped in this step."""
    entropy_zscore: float | None = None


class UpdateRule(ABC):
    """Base of all rules: a dataclass whose fields are the settings, checked on construction."""

    @abstractmethod
    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
        """Improve ``policy`` on one batch of rollouts."""

    @property
    def trigger_fired_at(self) -> int | None:
        """First step (1-based) without the slow-fast stages; None: not yet, or the rule has no trigger."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State that outlives a step, as plain JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (most rules have no state)
        """Continue from ``state``."""
