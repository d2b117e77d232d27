"""GRPO (arXiv 2402.03300): one update on each batch of rollouts. Only stage III of SFPO.

With an arm's ``learning_rate_scale`` at 1 + alpha K it is a control with the same step length per rollout as SFPO.
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
