"""Rollout engines: sample completions from the current policy. ``make_engine`` creates the one that the settings name.

Each library is only imported when its engine is created, so the others need not be installed.
"""

from __future__ import annotations

from pathlib import Path

from sfpo.config import Engine, ModelLimits, Sampler
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.rollouts.engine import RolloutEngine

__all__ = ["make_engine"]


def make_engine(
    checkpoint: str | Path, limits: ModelLimits, sampler: Sampler, settings: Engine, ranks: Ranks = SINGLE_PROCESS
) -> RolloutEngine:
    """Create the engine of ``sampler.library``.

    Args:
        checkpoint: folder in Hugging Face format (safetensors, tokenizer).
        limits: token limits; prompt + completion is the context length that the KV cache must hold.
        sampler: library and data type.
        settings: memory and concurrency.
        ranks: the processes of the job. Groups of ``tensor_parallel`` consecutive ranks share one engine and must make the same
            calls; different engines are independent.
    """
    if sampler.library == "transformers":
        from sfpo.rollouts.transformers_engine import TransformersEngine

        return TransformersEngine(checkpoint, limits, sampler, settings)
    from sfpo.rollouts.vllm_engine import VLLMEngine

    return VLLMEngine(checkpoint, limits, sampler, settings, ranks)
