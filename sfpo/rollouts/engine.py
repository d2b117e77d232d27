"""The interface of rollout engines, which the trainer and the evaluation use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sfpo.config import Sampling
from sfpo.types import Completion

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Request:
    """One completion to sample."""

    prompt_ids: list[int]
    seed: int
    """From sfpo.seeding. In float32, the completion depends only on it and the prompt, not on the rest of the batch."""


Finished = Callable[[int, Completion], None]
"""Callback(index of the request, completion), called as soon as a completion is finished."""


class EngineFailure(RuntimeError):
    """The engine raised an error while sampling."""


class RolloutEngine(Protocol):
    """Holds a copy of the policy's weights and samples from it."""

    tokenizer: PreTrainedTokenizerBase
    max_prompt_tokens: int
    max_completion_tokens: int

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: bool = False, finished: Finished | None = None
    ) -> list[Completion]:
        """Sample one completion per request, returned in the order of the requests.

        The log-probs are those of softmax(logits / temperature); with top_p < 1 they are renormalized over the nucleus.

        Args:
            progress: show a progress bar.
            finished: called in this thread with each completion while others are still being sampled, if the library allows it.

        Raises:
            EngineFailure: the library raised an error; ``restart`` replaces the engine.
        """

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights in one pass, and reset the prefix cache.

        Args:
            weights: (name, tensor) of all weights and persistent buffers, with the names and layout of the published
                checkpoint; tied weights once. An iterable, so that only one tensor needs to exist at a time.
        """

    def load_checkpoint(self, checkpoint: str | Path) -> None:
        """``load_weights`` from a checkpoint folder with the same architecture and tokenizer as the current one."""

    def restart(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace a failed engine by a new one with these weights. Only for single-process jobs, since it may destroy process
        groups."""

    def sleep(self) -> None:
        """Free the GPU memory for training, by discarding weights and KV cache. Does nothing on a CPU."""

    def wake(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Reallocate the memory and load new weights, after ``sleep``. On a CPU, only a weight sync."""


def stop_token_ids(checkpoint: str | Path) -> list[int]:
    """Ids of the tokens that end a completion, from the checkpoint's generation_config.json.

    Raises:
        ValueError: it has no eos_token_id, so every completion would run to the token limit.
    """
    path = Path(checkpoint) / "generation_config.json"
    eos = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
    if eos is None:
        raise ValueError(f"{path}: has no eos_token_id, so no completion would end before the token limit")
    return eos if isinstance(eos, list) else [eos]
