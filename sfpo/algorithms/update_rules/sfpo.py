"""Slow-Fast Policy Optimization (arXiv 2510.04072, Algorithm 1).

Departures from the paper: none in the update. As in the authors' code, one update is a whole pass over the batch in
mini-batches, Adam's moments are not repositioned, and the learning rate moves once a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.algorithms.update_rules.base import Policy, StepReport, UpdateRule
from sfpo.algorithms.weights import reposition_, snapshot
from sfpo.types import TrainBatch


@dataclass
class SFPO(UpdateRule):
    """K fast updates, a reposition toward the start, one slow correction.

    Args:
        num_fast_steps: K, updates of the fast trajectory; at least 1.
        alpha: reposition factor in [0, 1]. 0 skips stages I and II: the step is a GRPO step.
        entropy_trigger: settings of ``EntropyTrigger``, which sets alpha to 0 for good; None: no entropy control.

    Raises:
        ValueError: a setting is impossible.
    """

    num_fast_steps: int = 3
    alpha: float = 0.8
    entropy_trigger: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.num_fast_steps, int) or self.num_fast_steps < 1:
            raise ValueError(f"num_fast_steps = {self.num_fast_steps!r}: K must be a whole number of at least 1")
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha = {self.alpha!r}: the reposition factor must lie in [0, 1]; 0 gives GRPO")
        try:
            self._trigger = None if self.entropy_trigger is None else EntropyTrigger(**self.entropy_trigger)
        except TypeError:
            raise ValueError(f"entropy_trigger = {self.entropy_trigger!r}: keys are form, window, threshold") from None

    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
        fired = self._trigger is not None and self._trigger.fired
        alpha = 0.0 if fired else self.alpha
        updates = []
        if alpha > 0.0:
            start = snapshot(policy.parameters())                                       # theta^{s,0}
            for _ in range(self.num_fast_steps):                                        # stage I    fast trajectory
                updates.append(policy.descend(batch))
            reposition_(policy.parameters(), start, alpha)                              # stage II   reposition
        updates.append(policy.descend(batch))                                           # stage III  slow correction
        if self._trigger is not None:
            self._trigger.observe(batch.entropy)                                        # may end the slow-fast phase
        return StepReport(updates, alpha, fired, self._trigger.zscore if self._trigger else None)

    @property
    def trigger_fired_at(self) -> int | None:
        return self._trigger.fired_at if self._trigger else None

    def state_dict(self) -> dict[str, Any]:
        return {"trigger": self._trigger.state_dict()} if self._trigger else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._trigger:
            self._trigger.load_state_dict(state["trigger"])
