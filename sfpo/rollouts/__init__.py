"""Sampling completions from the live policy: ``make_engine`` gives the engine that the settings name.

A library is imported when an engine of it is made, so that the others need not be installed.
"""

from __future__ import annotations

from pathlib import Path

from sfpo.config import Engine, ModelLimits
from sfpo.ranks import ALONE, Ranks
from sfpo.rollouts.engine import RolloutEngine

__all__ = ["make_engine"]


def make_engine(checkpoint: str | Path, limits: ModelLimits, settings: Engine, ranks: Ranks = ALONE) -> RolloutEngine:
    """The engine that ``settings.library`` names.

    Args:
        checkpoint: folder in Hugging Face format (safetensors, tokenizer).
        limits: token limits of the model; prompt + completion is the context that the KV cache must hold.
        settings: speed and memory.
        ranks: the processes of the job. ``tensor_parallel`` neighbours hold one engine, and must make the same calls; engines
            know nothing of each other.
    """
    if settings.library == "transformers":
        from sfpo.rollouts.transformers_engine import TransformersEngine

        return TransformersEngine(checkpoint, limits, settings)
    from sfpo.rollouts.vllm_engine import VLLMEngine

    return VLLMEngine(checkpoint, limits, settings, ranks)
