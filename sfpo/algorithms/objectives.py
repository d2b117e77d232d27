"""The policy loss of one batch: clipped importance ratios times advantages (paper, Section 3; GRPO, arXiv 2402.03300).

One function; DAPO, Dr.GRPO and GSPO are values of its settings. Completions come end to end without padding.

Departures from the paper: the KL and entropy terms have coefficient 0 by default, as in the authors' scripts for KL (their
verl snapshot carries an entropy bonus of 0.001; set ``entropy_coefficient`` for it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfpo.config import Objective


def token_weights(aggregation: str, lengths: Tensor, max_completion_tokens: int) -> Tensor:
    """[N] float64 weight of each token's loss; the weights of a mini-batch hold its whole denominator.

    They are fixed before the mini-batch is cut into micro-batches, so that any cut gives the same gradient.

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
    """Weighted sum of token losses: add over the micro-batches of a mini-batch for its loss.

    Args:
        logprobs: [N] under the current policy, with gradient.
        old_logprobs: [N] under the policy that made the rollouts.
        entropy: [N] of the current policy, nats.
        advantages: [B].
        lengths: [B] tokens of each completion; their sum is N.
        weights: [N] from ``token_weights``.
        sampler_logprobs: [N] as the sampler saw the tokens; needed for ``sampler_correction_cap`` alone.

    Returns:
        (loss, statistics): scalar loss to minimize, and detached [N] tensors ``ratio`` and ``clipped`` (bool: the clip binds).

    Raises:
        ValueError: ``sampler_correction_cap`` is set and the sampler's log-probs are not known.
    """
    log_ratio = logprobs - old_logprobs
    if objective.ratio == "sequence":
        log_ratio = _completion_mean(log_ratio, lengths)
    ratio = log_ratio.exp()
    advantage = advantages.repeat_interleave(lengths)
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
    """[N]: truncated importance weight of the policy against the engine that sampled for it, min(pi_old / pi_sampler, cap)
    (https://fengyao.notion.site/off-policy-rl; as in TRL's vllm_importance_sampling_correction, mode token_truncate)."""
    if sampler_logprobs is None:
        raise ValueError("sampler_correction_cap: the batch does not hold the sampler's log-probs; give them or set null")
    return (old_logprobs - sampler_logprobs).exp().clamp(max=cap)


def _completion_mean(values: Tensor, lengths: Tensor) -> Tensor:
    """[N] -> [N]: each token gets the mean over its completion."""
    owner = torch.arange(len(lengths), device=values.device).repeat_interleave(lengths)
    sums = torch.zeros(len(lengths), dtype=values.dtype, device=values.device).index_add(0, owner, values)
    return (sums / lengths)[owner]
