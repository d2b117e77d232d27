"""What the trainer and the evaluation ask of a rollout engine, whichever library samples."""

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
    """From sfpo.seeding: the completion depends on it and on the prompt, not on its neighbours in the batch (float32)."""


Finished = Callable[[int, Completion], None]
"""Called with a completion, and the place of its request, as soon as it is there."""


class EngineFailure(RuntimeError):
    """The engine raised while it sampled."""


class RolloutEngine(Protocol):
    """Holds the policy's weights and samples from them."""

    tokenizer: PreTrainedTokenizerBase
    max_prompt_tokens: int
    max_completion_tokens: int

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: bool = False, finished: Finished | None = None
    ) -> list[Completion]:
        """Sample one completion for each request, in order.

        The log-probs are those of softmax(logits / temperature); with top_p < 1 they are renormalized over the nucleus.

        Args:
            progress: show a progress bar.
            finished: gets each completion while others are still sampled, as far as the library can: from this thread.

        Raises:
            EngineFailure: the library raised; ``restart`` makes a fresh engine.
        """

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights in one pass, and forget what the old ones had cached.

        Args:
            weights: all that the published checkpoint stores, persistent buffers too, under its names and in its layout, tied
                ones once, one at a time.
        """

    def load_checkpoint(self, checkpoint: str | Path) -> None:
        """``load_weights`` of a folder: another checkpoint of the architecture and tokenizer that the engine was made for."""

    def restart(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace a failed engine by a fresh one with these weights; for a process alone, since it may end process groups."""

    def sleep(self) -> None:
        """Give the GPU's memory to the trainer; weights and cache are dropped. On a CPU: nothing to do."""

    def wake(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take the memory back with new weights; the reverse of ``sleep``, and a plain weight sync on a CPU."""


def stop_token_ids(checkpoint: str | Path) -> list[int]:
    """Tokens that end a completion, from the checkpoint's generation_config.json.

    Raises:
        ValueError: the checkpoint names none, so that every completion would run to the limit.
    """
    path = Path(checkpoint) / "generation_config.json"
    eos = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
    if eos is None:
        raise ValueError(f"{path}: names no eos_token_id; no completion could end")
    return eos if isinstance(eos, list) else [eos]
