"""Does the engine sample from the policy? Tried before a run starts, and looked at in every step."""

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
"""Sampled of each prompt."""


class SamplerGapTooLarge(RuntimeError):
    """The engine does not sample from the policy: what it samples is not the policy's, and what is learned from it is wrong."""


def allowed_gap(train: Train, sampler: Sampler) -> float | None:
    """Nats a token, mean over a step: what rounding can do, or the recipe's number; None: there is no limit."""
    if train.max_sampler_gap != "auto":
        return train.max_sampler_gap
    if train.sampling.top_p < 1.0:  # the sampler's log-probs are those of the nucleus
        return None
    return 0.005 if sampler.dtype == train.policy_dtype == "float32" else 0.2


def require_gap(policy_logprobs: Tensor, sampler_logprobs: Tensor, allowed: float | None, when: str) -> SamplerGap:
    """The gap, if it is allowed. (One that is not a number is of weights that are none: the update sees to that.)

    Raises:
        SamplerGapTooLarge: it is not; the message says what to do.
    """
    gap = sampler_gap(policy_logprobs, sampler_logprobs)
    if allowed is None or not gap.mean > allowed:
        return gap
    raise SamplerGapTooLarge(
        f"{when}: log-probs of sampler and policy differ by {gap.mean:.3g} nats a token in the mean, {gap.max:.3g} at most; "
        f"rounding does at most {allowed} (train.max_sampler_gap; null: go on anyway). The engine may not take this "
        "model's weights as they are, or compute something else: try sampler.library: transformers, or sampler.dtype: float32"
    )


def prove_sampler(policy: Policy, engine: RolloutEngine, sampler: Sampler, seed: int) -> dict[str, Any]:
    """One weight sync with moved weights, a few sampled tokens, and back. All ranks call it together.

    Returns:
        For summary.json: the gap in nats, and how far the weights' move took the policy's log-probs.

    Raises:
        SamplerGapTooLarge: the engine does not sample from the moved policy.
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
    gap = require_gap(logprobs, theirs, limit, "before the first step, with weights moved")
    return {
        "gap_mean": gap.mean,
        "gap_max": gap.max,
        "moved_by": sampler_gap(logprobs, before).mean,
        "seconds": round(time.perf_counter() - started, 3),
    }
