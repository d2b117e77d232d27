"""Slow-Fast Policy Optimization (arXiv 2510.04072, Algorithm 1).

Departures from the paper: none in the update. As in the authors' code, one update is a whole pass over the batch in
mini-batches, Adam's moments are not repositioned (``optimizer_state: restore`` resets them to those at the start),
and the learning rate changes once per step. The paper sets alpha to 0 when the trigger fires; the length of the linear decay in
its ablation is not given and is a setting here (``alpha_decay_steps``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.algorithms.update_rules.base import (
    EXECUTION,
    Passes,
    Policy,
    StepReport,
    UpdateRule,
    check_alpha,
    check_fast_steps,
    check_optimizer_state,
)
from sfpo.algorithms.weights import optimizer_snapshot, reposition_, restore_optimizer_, snapshot
from sfpo.types import TrainBatch


@dataclass
class SFPO(UpdateRule[Policy]):
    """K fast updates, a reposition toward the start, one slow correction.

    Args:
        num_fast_steps: K, updates of the fast trajectory; at least 1.
        alpha: reposition factor in [0, 1]. 0 skips stages I and II: the step is a GRPO step.
        entropy_trigger: settings of ``EntropyTrigger``, which permanently sets alpha to 0; None: no entropy control.
        reposition: False leaves out stage II (ablation).
        slow_correction: False leaves out stage III in steps with stage I (ablation).
        alpha_decay_steps: number of steps over which alpha decays linearly to 0, instead of at once, after the trigger has
            fired, or from the first step if there is no trigger (ablation).
        snapshot_on_host: keep theta^{s,0} in host memory: no extra device memory, but two transfers per step.
        optimizer_state: "keep" the moments of the fast updates, or "restore" those of the start at the reposition.

    Raises:
        ValueError: a setting is impossible.
    """

    num_fast_steps: int = 3
    alpha: float = 0.8
    entropy_trigger: Mapping[str, Any] | None = None
    reposition: bool = True
    slow_correction: bool = True
    alpha_decay_steps: int | None = None
    snapshot_on_host: bool = field(default=False, metadata={EXECUTION: True})
    optimizer_state: str = "keep"

    def __post_init__(self) -> None:
        check_fast_steps(self.num_fast_steps)
        check_alpha(self.alpha)
        check_optimizer_state(self.optimizer_state)
        for name in ("reposition", "slow_correction", "snapshot_on_host"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} = {getattr(self, name)!r}: allowed are true, false")
        if self.alpha_decay_steps is not None and not (isinstance(self.alpha_decay_steps, int) and self.alpha_decay_steps > 0):
            raise ValueError(f"alpha_decay_steps = {self.alpha_decay_steps!r}: must be a whole number of at least 1, or null")
        self._trigger = EntropyTrigger.from_settings(self.entropy_trigger)
        self.entropy_trigger = self._trigger.settings() if self._trigger else None
        self._decayed_steps = 0

    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
        fired = self._trigger is not None and self._trigger.fired
        alpha = self._alpha(fired)
        fast = alpha > 0.0
        passes = Passes(policy, batch)
        if fast:
            start = snapshot(policy.parameters(), self.snapshot_on_host)                # theta^{s,0}
            moments = optimizer_snapshot(policy) if self.optimizer_state == "restore" else None
            for _ in range(self.num_fast_steps):                                        # stage I    fast trajectory
                passes.descend()
            if self.reposition:
                reposition_(policy.parameters(), start, alpha)                          # stage II   reposition
            if moments is not None:
                restore_optimizer_(policy, moments)
        if self.slow_correction or not fast:
            passes.descend()                                                            # stage III  slow correction
        if self._trigger is not None:
            self._trigger.observe(passes.old.entropy)                                   # may end the slow-fast phase
        zscore = self._trigger.zscore if self._trigger else None
        return StepReport(passes.updates, passes.old, alpha, fast, fired, zscore)

    def _alpha(self, fired: bool) -> float:
        """Reposition factor of this step: alpha, and after the trigger has fired 0 or a linear decay to 0."""
        if self.alpha_decay_steps is None:
            return 0.0 if fired else self.alpha
        self._decayed_steps += fired or self._trigger is None
        return self.alpha * max(0.0, 1.0 - self._decayed_steps / self.alpha_decay_steps)

    def weight_copies(self, on_gpu: bool) -> int:
        if self.alpha == 0.0:
            return 0
        return int(not (on_gpu and self.snapshot_on_host)) + 2 * (self.optimizer_state == "restore")

    @property
    def trigger_fired_at(self) -> int | None:
        return self._trigger.fired_at if self._trigger else None

    def state_dict(self) -> dict[str, Any]:
        return {"trigger": self._trigger.state_dict() if self._trigger else None, "decayed_steps": self._decayed_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._decayed_steps = state["decayed_steps"]
        if self._trigger:
            self._trigger.load_state_dict(state["trigger"])
