"""Extragradient-GRPO: a predictor update, then a corrector: the update computed at the predicted point, applied at the start
point.

Korpelevich (1976): theta' = theta - eta g(theta); theta+ = theta - eta g(theta').

Departures from it: an update is what ``policy.descend`` does, a pass in mini-batches with clipping and an adaptive optimizer,
so the corrector is the displacement of a pass started at theta', applied at theta. With SGD and one mini-batch this equals
Korpelevich's step; with AdamW, weight decay acts at theta' instead of theta.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfpo.algorithms.update_rules.base import (
    Passes,
    Policy,
    StepReport,
    UpdateRule,
    check_fast_steps,
    check_optimizer_state,
)
from sfpo.algorithms.weights import displacement_, move_, optimizer_snapshot, restore_optimizer_, snapshot
from sfpo.types import TrainBatch


@dataclass
class Extragradient(UpdateRule[Policy]):
    """Predictor and corrector.

    Args:
        num_fast_steps: number of updates of the predictor; 1 is the original extragradient method.
        optimizer_state: "keep" the moments of the predictor, or "restore" those of the start before the corrector.

    Raises:
        ValueError: a setting is impossible.
    """

    num_fast_steps: int = 1
    optimizer_state: str = "keep"

    def __post_init__(self) -> None:
        check_fast_steps(self.num_fast_steps)
        check_optimizer_state(self.optimizer_state)

    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
        start = snapshot(policy.parameters())
        moments = optimizer_snapshot(policy) if self.optimizer_state == "restore" else None
        passes = Passes(policy, batch)
        for _ in range(self.num_fast_steps):  # predictor: theta'
            passes.descend()
        prediction = displacement_(policy.parameters(), start)  # theta' - theta
        if moments is not None:
            restore_optimizer_(policy, moments)
        passes.descend()  # corrector: update at theta'
        move_(policy.parameters(), prediction, -1.0)  # applied at theta
        return StepReport(passes.updates, passes.old)

    def weight_copies(self, on_gpu: bool) -> int:
        return 1 + 2 * (self.optimizer_state == "restore")
