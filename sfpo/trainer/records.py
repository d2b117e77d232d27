"""Builds the lines of metrics.jsonl, validation.jsonl, and the files of completions for the browsing page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sfpo.algorithms.advantages import group_advantages, zero_variance
from sfpo.algorithms.update_rules import StepReport
from sfpo.rollouts.sampler_gap import sampler_gap
from sfpo.trainer.batching import rewards_of, sampler_logprobs_of
from sfpo.trainer.collector import Rollouts
from sfpo.trainer.metrics import peak_memory_mb
from sfpo.trainer.run_store import Progress
from sfpo.types import RolloutGroup

TEXT_LIMIT = 4000
"""Maximum number of characters kept of a completion: half from its start, half from its end."""


def step_record(
    progress: Progress, rollouts: Rollouts, report: StepReport, learning_rate: float, vocabulary: int
) -> dict[str, Any]:
    """The metrics of one step. Rewards, accuracy and lengths cover all sampled completions, also those that dynamic sampling
    discards; statistics of the updates cover only the training groups.

    Args:
        vocabulary: number of token ids of the tokenizer. The embeddings can have more rows; sampling one of those indicates an
            error, so it is counted.
    """
    gap = sampler_gap(report.old.logprobs, sampler_logprobs_of(rollouts.groups))
    rewards = rewards_of(rollouts.drawn)
    completions = [completion for group in rollouts.drawn for completion in group.completions]
    correct = [verdict for group in rollouts.drawn for verdict in group.correct]
    return {
        "step": progress.step,
        "reward": rewards.mean().item(),
        "accuracy": sum(correct) / len(correct),
        "zero_variance_groups": zero_variance(rewards).float().mean().item(),
        "zero_variance_groups_trained": zero_variance(rewards_of(rollouts.groups)).float().mean().item(),
        "response_length": sum(len(completion.token_ids) for completion in completions) / len(completions),
        "truncated": sum(completion.truncated for completion in completions) / len(completions),
        "tokens_without_text": sum(token >= vocabulary for completion in completions for token in completion.token_ids),
        "entropy": report.old.entropy,
        "entropy_zscore": report.entropy_zscore,
        "alpha": report.alpha,
        "slow_fast": report.slow_fast,
        "trigger_fired": report.trigger_fired,
        "updates": report.updates,
        "sampler_gap_mean": gap.mean,
        "sampler_gap_max": gap.max,
        "learning_rate": learning_rate,
        "rollouts": progress.rollouts,
        "tokens": progress.tokens,
        "backward_passes": progress.backward_passes,
        "seconds": progress.clock.report(),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def validation_record(progress: Progress, step: int, groups: list[RolloutGroup]) -> dict[str, Any]:
    """avg@k and pass@k over the groups of the held-out prompts."""
    verdicts = [verdict for group in groups for verdict in group.correct]
    return {
        "step": step,
        "accuracy": sum(verdicts) / len(verdicts),
        "pass_at_k": sum(any(group.correct) for group in groups) / len(groups),
        "rollouts": progress.rollouts,
        "backward_passes": progress.backward_passes,
        "seconds": round(progress.clock.total, 3),
    }


def diverged_record(progress: Progress, step: int) -> dict[str, Any]:
    """Validation of a run that diverged before ``step``: accuracy 0, at the cost that the run would have had with further steps
    like those before."""
    factor = step / progress.step
    return {
        "step": step,
        "accuracy": 0.0,
        "pass_at_k": 0.0,
        "rollouts": round(progress.rollouts * factor),
        "backward_passes": progress.backward_passes * factor,
        "seconds": round(progress.clock.total * factor, 3),
        "diverged": True,
    }


def completion_records(step: int, groups: list[RolloutGroup], prompts: int, scale_by_std: bool) -> Iterator[dict[str, Any]]:
    """The lines of completions.jsonl: the first ``prompts`` groups with all their completions, one line per group.

    Args:
        scale_by_std: as in the objective, to compute the advantages.
    """
    for group in groups[:prompts]:
        advantages = group_advantages(rewards_of([group]), scale_by_std)[0].tolist()
        rows = zip(group.completions, group.rewards, group.correct, advantages, strict=True)
        yield {
            "step": step,
            "prompt": group.prompt.id,
            "problem": shortened(group.prompt.problem),
            "answer": list(group.prompt.answer),
            "completions": [
                {
                    "text": shortened(completion.text),
                    "reward": reward,
                    "correct": correct,
                    "advantage": round(advantage, 4),
                    "tokens": len(completion.token_ids),
                    "truncated": completion.truncated,
                }
                for completion, reward, correct, advantage in rows
            ],
        }


def shortened(text: str) -> str:
    """Cut out the middle of a long text.

    >>> shortened("a" * 3000 + "b" * 3000)[1990:2050]
    'aaaaaaaaaa [... 2000 characters left out ...] bbbbbbbbbbbbbb'
    """
    left_out = len(text) - TEXT_LIMIT
    half = TEXT_LIMIT // 2
    return text if left_out <= 0 else f"{text[:half]} [... {left_out} characters left out ...] {text[-half:]}"
