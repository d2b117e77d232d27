"""Check that the engine samples from the current policy. (The weight sync itself is RolloutEngine.wake.)"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SamplerGap:
    """|log p_policy - log p_engine| over completion tokens, in nats."""

    mean: float
    max: float


def sampler_gap(policy_logprobs: Tensor, sampler_logprobs: Tensor) -> SamplerGap:
    """Difference between the log-probs of policy and engine: about 1e-6 in float32 and 1e-2 in bfloat16 from rounding; 0.1 or
    more indicates stale weights.

    Args:
        policy_logprobs: [N], of the completion tokens, computed by torch.
        sampler_logprobs: [N], of the same tokens, reported by the engine.
    """
    gap = (policy_logprobs - sampler_logprobs.to(policy_logprobs.device)).abs()
    return SamplerGap(mean=gap.mean().item(), max=gap.max().item())
