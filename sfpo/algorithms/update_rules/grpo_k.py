"""GRPO-K: K + 1 updates on each batch of rollouts and no reposition. Stages I and III of SFPO; the usual way to reuse rollouts.

It has the same number of backward passes as SFPO with the same K, so comparing the two isolates the effect of the reposition.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfpo.algorithms.update_rules.base import Passes, Policy, StepReport, UpdateRule, check_fast_steps
from sfpo.types import TrainBatch


@dataclass
class GRPOK(UpdateRule[Policy]):
    """K + 1 updates.

    Args:
        num_fast_steps: K, as in SFPO; at least 1.

    Raises:
        ValueError: a setting is impossible.
    """

    num_fast_steps: int = 3

    def __post_init__(self) -> None:
        check_fast_steps(self.num_fast_steps)

    def step(self, policy: Policy, batch: TrainBatch) -> StepReport:
        passes = Passes(policy, batch)
        for _ in range(self.num_fast_steps + 1):
            passes.descend()
        return StepReport(passes.updates, passes.old)
