"""Sampling completions from the live policy: ``make_engine`` gives the engine that the settings name.

A library is imported when an engine of it is made, so that the others need not be installed.
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
    """The engine that ``sampler.library`` names.

    Args:
        checkpoint: folder in Hugging Face format (safetensors, tokenizer).
        limits: token limits of the model; prompt + completion is the context that the KV cache must hold.
        sampler: library and data type.
        settings: speed and memory.
        ranks: the processes of the job. ``tensor_parallel`` neighbours hold one engine, and must make the same calls; engines
            know nothing of each other.
    """
    if sampler.library == "transformers":
        from sfpo.rollouts.transformers_engine import TransformersEngine

        return TransformersEngine(checkpoint, limits, sampler, settings)
    from sfpo.rollouts.vllm_engine import VLLMEngine

    return VLLMEngine(checkpoint, limits, sampler, settings, ranks)
