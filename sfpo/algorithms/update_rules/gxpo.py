"""GXPO (arXiv 2605.06755): two fast updates, an extrapolation to a virtual K-step point, a reposition, one correction.

For each mini-batch, weight by weight, with Opt one optimizer step:

    g0 = grad L(theta0), theta1 = Opt(theta0, g0);  g1 = grad L(theta1), theta2 = Opt(theta1, g1)
    r  = clip(g1 / g0, -2, 3)                     change of the gradient in one step; 1 where it is undefined
    q  = clip(S_K(r) / S_2(r), 1, K/2 + 1)        S_n(r) = 1 + r + ... + r^(n-1): K steps as a multiple of these two
    theta~ = theta0 + alpha q (theta2 - theta0);  theta+ = Opt(theta~, grad L(theta~))

Three backward passes for any K. If |Z|, the z-score of the correction's gradient norm relative to its running mean and
variance, reaches the threshold, the next mini-batch takes a single update (GRPO), whose gradient norm also updates the running
statistics.

Departures from the paper: constants that we could not confirm are settings (``fallback_threshold``, ``ema_decay``) or defined
below (``INACTIVE``); the fallback ends when |Z| is below the threshold again, it does not latch.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfpo.algorithms.update_rules.base import (
    GradientPolicy,
    StepReport,
    Update,
    UpdateMetrics,
    UpdateRule,
    check_alpha,
    check_fast_steps,
)
from sfpo.algorithms.weights import gradient_norm, gradients, local, snapshot
from sfpo.types import TrainBatch

INACTIVE = 1e-12
"""Gradients with at most this absolute value count as zero: their ratio is undefined."""
RATIO_RANGE = (-2.0, 3.0)
MIN_OBSERVED_NORMS = 10
"""Number of gradient norms in the running statistics before the fallback is possible."""


@dataclass
class GXPO(UpdateRule[GradientPolicy]):
    """Gradient extrapolation instead of K - 2 of the fast updates.

    Args:
        num_fast_steps: K, length of the virtual trajectory; at least 2.
        alpha: reposition factor in [0, 1].
        fallback_threshold: tau, on |Z| of the correction's gradient norm; None: no fallback.
        ema_decay: of the running mean and variance of that norm, in (0, 1).

    Raises:
        ValueError: a setting is impossible.
    """

    num_fast_steps: int = 3
    alpha: float = 0.8
    fallback_threshold: float | None = 3.0
    ema_decay: float = 0.9

    def __post_init__(self) -> None:
        check_fast_steps(self.num_fast_steps)
        if self.num_fast_steps < 2:
            raise ValueError(f"num_fast_steps = {self.num_fast_steps!r}: GXPO takes two fast steps, so K must be at least 2")
        check_alpha(self.alpha)
        if self.fallback_threshold is not None and not self.fallback_threshold > 0:
            raise ValueError(f"fallback_threshold = {self.fallback_threshold!r}: must be over 0, or null")
        if not 0.0 < self.ema_decay < 1.0:
            raise ValueError(f"ema_decay = {self.ema_decay!r}: must lie in (0, 1)")
        self._norms = {"mean": 0.0, "variance": 0.0, "count": 0, "zscore": 0.0}

    def step(self, policy: GradientPolicy, batch: TrainBatch) -> StepReport:
        passes = [self._step_mini_batch(policy, mini) for mini in policy.mini_batches(batch)]
        # Mini-batches in fallback took only the last of the three updates.
        updates = [_means([one[-place].metrics for one in passes if len(one) >= place]) for place in (3, 2, 1)]
        mean_passes = sum(len(one) for one in passes) / len(passes)
        old = batch.old or passes[0][0].old  # a batch without old log-probs is one mini-batch
        return StepReport([update for update in updates if update], old, self.alpha, passes=mean_passes)

    def _step_mini_batch(self, policy: GradientPolicy, mini: TrainBatch) -> list[Update]:
        parameters = list(policy.parameters())
        updates: list[Update] = []
        if not self._falls_back() and self.alpha > 0.0:
            start = snapshot(parameters)
            seen: list[list[Tensor]] = []
            for _ in range(2):
                updates.append(policy.descend(mini, lambda: seen.append(gradients(parameters))))
                mini = mini.with_old(updates[-1].old)
            for weight, at_start, first, second in zip(map(local, parameters), start, *seen, strict=True):
                factor = self.alpha * extrapolation(first, second, self.num_fast_steps)
                weight.data.copy_(at_start + factor * (weight.data - at_start))
            del start, seen
        updates.append(policy.descend(mini, lambda: self._observe(parameters)))
        return updates

    def weight_copies(self, on_gpu: bool) -> int:
        return 3 if self.alpha > 0.0 else 0  # the start, and the gradients of both fast updates

    def _falls_back(self) -> bool:
        if self.fallback_threshold is None or self._norms["count"] < MIN_OBSERVED_NORMS:
            return False
        return abs(self._norms["zscore"]) >= self.fallback_threshold

    def _observe(self, parameters: list[Tensor]) -> None:
        """Compute the z-score of the correction's gradient norm relative to earlier ones, then update their mean and
        variance."""
        norm = gradient_norm(parameters)
        mean, variance = self._norms["mean"], self._norms["variance"]
        decay = self.ema_decay if self._norms["count"] else 0.0
        self._norms = {
            "mean": decay * mean + (1.0 - decay) * norm,
            "variance": decay * (variance + (1.0 - decay) * (norm - mean) ** 2) if self._norms["count"] else 0.0,
            "count": self._norms["count"] + 1,
            "zscore": (norm - mean) / math.sqrt(variance) if variance > 0.0 else 0.0,
        }

    def state_dict(self) -> dict[str, Any]:
        return dict(self._norms)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._norms = dict(state)


@torch.no_grad()
def extrapolation(first: Tensor, second: Tensor, num_fast_steps: int) -> Tensor:
    """q for each weight: displacement of K steps as a multiple of that of the two steps taken.

    On a quadratic with a diagonal Hessian under SGD the gradient shrinks by the same r at each step, so that
    theta_K - theta0 = S_K(r)/S_2(r) (theta_2 - theta0) exactly, unless q is clipped.

    Args:
        first: gradient g0, any shape.
        second: gradient g1, the same shape.

    Returns:
        q in [1, K/2 + 1], of that shape.
    """
    ratio = second / first
    ratio = torch.where((first.abs() > INACTIVE) & ratio.isfinite(), ratio.clamp(*RATIO_RANGE), torch.ones_like(ratio))
    total = torch.ones_like(ratio)
    for _ in range(num_fast_steps - 1):
        total = 1.0 + ratio * total
    # At r = -1 the two steps cancel: S_2 is 0. An infinite quotient is clipped, 0/0 means no extrapolation.
    return (total / (1.0 + ratio)).nan_to_num(nan=1.0, posinf=torch.inf, neginf=-torch.inf).clamp(1.0, num_fast_steps / 2 + 1)


def _means(updates: list[UpdateMetrics]) -> UpdateMetrics:
    """Mean of each metric; for metrics that are maxima (``_max``), the maximum."""
    total: Counter[str] = Counter()
    for update in updates:
        total.update(update)
    means = {key: value / len(updates) for key, value in total.items()}
    return {key: max(update[key] for update in updates) if key.endswith("_max") else mean for key, mean in means.items()}
