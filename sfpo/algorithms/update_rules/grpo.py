"""GRPO (arXiv 2402.03300): one update on each batch of rollouts. Stage III of SFPO alone.

An arm's ``learning_rate_scale`` of 1 + alpha K makes it the control that moves as far per rollout as SFPO.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfpo.algorithms.update_rules.base import Passes, Policy, StepReport, UpdateRule
from sfpo.types import TrainBatch


@dataclass
class GRPO(UpdateRule[Policy]):
    """No settings."""

    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
        passes = Passes(policy, batch)
        passes.descend()
        return StepReport(passes.updates, passes.old)
