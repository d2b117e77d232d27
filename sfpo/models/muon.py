"""Muon (https://kellerjordan.github.io/posts/muon/) in float32, after torch/optim/_muon.py.

torch.optim.Muon runs its Newton-Schulz iteration in bfloat16, which on a CPU without bfloat16 instructions is 8 times as slow:
the warm-up of a 1M-parameter model took six minutes.

Departures from torch.optim.Muon: float32; only the step-size adjustment "match_rms_adamw".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum SGD with orthogonalized updates: the momentum matrix is replaced by the nearest (semi-)orthogonal matrix.

    Args:
        parameters: matrices.
        lr: on the scale of AdamW's: the root mean square of a step is 0.2 lr.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; returns the loss of ``closure``, which computes it and the gradients, as torch's optimizers do."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                average = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1.0 - momentum)
                direction = orthogonalized(matrix.grad.lerp(average, momentum))  # Nesterov's
                matrix.mul_(1.0 - rate * group["weight_decay"])
                matrix.add_(direction, alpha=-0.2 * rate * math.sqrt(max(matrix.shape)))
        return loss


def orthogonalized(matrix: Tensor) -> Tensor:
    """[m, n] -> [m, n] with the same singular vectors, and singular values between about 0.7 and 1.2 (Newton-Schulz)."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=EPS)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
