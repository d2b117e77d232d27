"""The proof that the engine samples from the policy that torch holds. (The sync itself is RolloutEngine.wake.)"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SamplerGap:
    """|log p_torch - log p_vLLM| over completion tokens, in nats."""

    mean: float
    max: float


def sampler_gap(policy_logprobs: Tensor, sampler_logprobs: Tensor) -> SamplerGap:
    """How far the sampler was from the policy: rounding (about 1e-6 in float32, 1e-2 in bfloat16), or stale weights
    (0.1 and up).

    Args:
        policy_logprobs: [N], torch's, of the completion tokens.
        sampler_logprobs: [N], vLLM's, of the same tokens.
    """
    gap = (policy_logprobs - sampler_logprobs.to(policy_logprobs.device)).abs()
    return SamplerGap(mean=gap.mean().item(), max=gap.max().item())
