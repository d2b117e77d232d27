"""The policy loss of one batch: clipped importance ratios times advantages (paper, Section 3; GRPO, arXiv 2402.03300).

One function; DAPO, Dr.GRPO and GSPO are combinations of its settings. Completions are concatenated without padding.

Departures from the paper: the KL and entropy terms have coefficient 0 by default, as in the authors' scripts for KL (their
verl snapshot carries an entropy bonus of 0.001; set ``entropy_coefficient`` for it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfpo.config import Objective


def token_weights(aggregation: str, lengths: Tensor, max_completion_tokens: int) -> Tensor:
    """[N] float64 weight of each token's loss, including the denominator of the whole mini-batch.

    They are computed before the mini-batch is split into micro-batches, so that every split gives the same gradient.

    Args:
        aggregation: sequence_mean 1/(B len_i), token_mean 1/N, constant 1/(B max_completion_tokens).
        lengths: [B] tokens of each completion of the mini-batch.
    """
    if aggregation == "sequence_mean":
        per_completion = 1.0 / (len(lengths) * lengths.double())
    elif aggregation == "token_mean":
        per_completion = torch.full_like(lengths, 1.0, dtype=torch.float64) / lengths.sum()
    elif aggregation == "constant":
        per_completion = torch.full_like(lengths, 1.0, dtype=torch.float64) / (len(lengths) * max_completion_tokens)
    else:
        raise ValueError(f"aggregation '{aggregation}' must be sequence_mean, token_mean or constant")
    return per_completion.repeat_interleave(lengths)


def policy_loss(
    objective: Objective,
    logprobs: Tensor,
    old_logprobs: Tensor,
    entropy: Tensor,
    advantages: Tensor,
    lengths: Tensor,
    weights: Tensor,
    sampler_logprobs: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of token losses. The loss of a mini-batch is the sum over its micro-batches.

    Args:
        logprobs: [N] under the current policy, with gradient.
        old_logprobs: [N] under the policy that sampled the rollouts.
        entropy: [N] of the current policy, nats.
        advantages: [B].
        lengths: [B] number of tokens of each completion; they sum to N.
        weights: [N] from ``token_weights``.
        sampler_logprobs: [N] under the sampler; only needed for ``sampler_correction_cap``.

    Returns:
        (loss, statistics): scalar loss to minimize, and detached [N] tensors ``ratio`` and ``clipped`` (bool: whether clipping
        changes the loss).

    Raises:
        ValueError: ``sampler_correction_cap`` is set and ``sampler_logprobs`` is None.
    """
    log_ratio = logprobs - old_logprobs
    if objective.ratio == "sequence":
        log_ratio = _completion_mean(log_ratio, lengths)
    ratio = log_ratio.exp()
    advantage = advantages.repeat_interleave(lengths, output_size=len(ratio))  # a size that is given is not waited for
    lower, upper = objective.clip
    unclipped = ratio * advantage
    clipped = ratio.clamp(1.0 - lower, 1.0 + upper) * advantage
    token_loss = -torch.minimum(unclipped, clipped)
    if objective.sampler_correction_cap is not None:
        token_loss = token_loss * _sampler_correction(old_logprobs, sampler_logprobs, objective.sampler_correction_cap)
    if objective.kl_coefficient:
        # k3 estimator toward the rollout policy (http://joschu.net/blog/kl-approx.html), as TRL's without bias correction.
        gap = old_logprobs - logprobs
        token_loss = token_loss + objective.kl_coefficient * (gap.exp() - gap - 1.0)
    if objective.entropy_coefficient:
        token_loss = token_loss - objective.entropy_coefficient * entropy
    statistics = {"ratio": ratio.detach(), "clipped": (clipped < unclipped).detach()}
    return (weights * token_loss).sum(), statistics


def _sampler_correction(old_logprobs: Tensor, sampler_logprobs: Tensor | None, cap: float) -> Tensor:
    """[N]: truncated importance weight of the policy relative to the sampler, min(pi_old / pi_sampler, cap)
    (https://fengyao.notion.site/off-policy-rl; as in TRL's vllm_importance_sampling_correction, mode token_truncate)."""
    if sampler_logprobs is None:
        raise ValueError("sampler_correction_cap: the batch has no sampler log-probs; provide them or set null")
    return (old_logprobs - sampler_logprobs).exp().clamp(max=cap)


def _completion_mean(values: Tensor, lengths: Tensor) -> Tensor:
    """[N] -> [N]: the mean over the completion of each token."""
    owner = torch.arange(len(lengths), device=values.device).repeat_interleave(lengths, output_size=len(values))
    sums = torch.zeros(len(lengths), dtype=values.dtype, device=values.device).index_add(0, owner, values)
    return (sums / lengths)[owner]
