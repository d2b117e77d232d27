"""Lookahead-GRPO: K fast updates, then a slow step of size alpha from the start toward their end point. Stages I and II of
SFPO.

The rule of Lookahead Optimizer (Zhang et al. 2019, arXiv 1907.08610, Algorithm 1) on GRPO's updates.

Departures from it: all K fast updates use one batch of rollouts, as in SFPO; Lookahead uses a new batch for each.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfpo.algorithms.update_rules.base import (
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
class Lookahead(UpdateRule[Policy]):
    """K fast updates and a reposition, no correction.

    Args:
        num_fast_steps: K, at least 1.
        alpha: size of the slow step, in (0, 1]. At 0 the weights would never change.
        optimizer_state: "keep" the moments of the fast updates, or "restore" those of the start.

    Raises:
        ValueError: a setting is impossible.
    """

    num_fast_steps: int = 3
    alpha: float = 0.8
    optimizer_state: str = "keep"

    def __post_init__(self) -> None:
        check_fast_steps(self.num_fast_steps)
        check_alpha(self.alpha)
        if self.alpha == 0.0:
            raise ValueError("alpha = 0.0: the weights would never change; it must be in (0, 1]")
        check_optimizer_state(self.optimizer_state)

    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
        start = snapshot(policy.parameters())
        moments = optimizer_snapshot(policy) if self.optimizer_state == "restore" else None
        passes = Passes(policy, batch)
        for _ in range(self.num_fast_steps):
            passes.descend()
        reposition_(policy.parameters(), start, self.alpha)
        if moments is not None:
            restore_optimizer_(policy, moments)
        return StepReport(passes.updates, passes.old, self.alpha)

    def weight_copies(self, on_gpu: bool) -> int:
        return 1 + 2 * (self.optimizer_state == "restore")
