"""Checks that the engine samples from the current policy, before a run starts and in every step."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from sfpo.config import Sampler, Sampling, Train
from sfpo.rollouts.engine import Request, RolloutEngine
from sfpo.rollouts.sampler_gap import SamplerGap, sampler_gap
from sfpo.seeding import rng, seed_of
from sfpo.trainer.canary import moved
from sfpo.trainer.policy import Policy

TOKENS = 8
"""Number of tokens sampled per prompt."""


class SamplerGapTooLarge(RuntimeError):
    """The engine does not sample from the current policy, so training on its completions would be wrong."""


def allowed_gap(train: Train, sampler: Sampler) -> float | None:
    """Allowed mean difference in nats per token: ``train.max_sampler_gap``, or what rounding can cause; None: no limit."""
    if train.max_sampler_gap != "auto":
        return train.max_sampler_gap
    if train.sampling.top_p < 1.0:  # the engine's log-probs are renormalized over the nucleus, so they differ
        return None
    return 0.005 if sampler.dtype == train.policy_dtype == "float32" else 0.2


def require_gap(policy_logprobs: Tensor, sampler_logprobs: Tensor, allowed: float | None, when: str) -> SamplerGap:
    """The gap, if it is allowed. NaN is let through: it means that weights are NaN, which the update reports.

    Raises:
        SamplerGapTooLarge: it is larger than allowed; the message says what to do.
    """
    gap = sampler_gap(policy_logprobs, sampler_logprobs)
    if allowed is None or not gap.mean > allowed:
        return gap
    raise SamplerGapTooLarge(
        f"{when}: log-probs of engine and policy differ by {gap.mean:.3g} nats per token on average, at most {gap.max:.3g}; "
        f"the limit is {allowed} (train.max_sampler_gap; null disables the check). The engine may have stale weights, or "
        "compute this model differently: try sampler.library: transformers, or sampler.dtype: float32"
    )


def check_sampler(policy: Policy, engine: RolloutEngine, sampler: Sampler, seed: int) -> dict[str, Any]:
    """Test the weight sync: perturb the weights, sync, sample a few tokens, compare log-probs, and restore the weights. All
    ranks must call it.

    Returns:
        For summary.json: the gap in nats, and how much the perturbation changed the policy's log-probs.

    Raises:
        SamplerGapTooLarge: the engine does not sample from the perturbed policy.
    """
    started = time.perf_counter()
    train = policy.train
    sampling = Sampling(temperature=train.sampling.temperature)
    draw, vocabulary = rng("sampler check", seed), policy.scorer.head.vocabulary
    prompts = [[draw.randrange(3, min(vocabulary, len(engine.tokenizer))) for _ in range(5)] for _ in range(4)]
    requests = [Request(prompt, seed_of("sampler check", seed, place)) for place, prompt in enumerate(prompts)]
    most, engine.max_completion_tokens = engine.max_completion_tokens, min(TOKENS, engine.max_completion_tokens)
    try:
        with moved(policy.parameters()):
            engine.load_weights(policy.weights())
            own = engine.generate(requests, sampling)
            completions = [completion for part in policy.ranks.gather(own) for completion in part]
            sampled = (prompts * policy.ranks.size, [completion.token_ids for completion in completions])
            logprobs, _ = policy.score(*sampled)
    finally:
        engine.max_completion_tokens = most
    engine.load_weights(policy.weights())
    before, _ = policy.score(*sampled)
    theirs = logprobs.new_tensor([logprob for completion in completions for logprob in completion.logprobs])
    limit = allowed_gap(train.model_copy(update={"sampling": sampling}), sampler)
    gap = require_gap(logprobs, theirs, limit, "before the first step, with perturbed weights")
    return {
        "gap_mean": gap.mean,
        "gap_max": gap.max,
        "moved_by": sampler_gap(logprobs, before).mean,
        "seconds": round(time.perf_counter() - started, 3),
    }
