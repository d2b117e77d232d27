"""A micro-batch as lengths, and the bytes that autograd saves for it. A test compares these with what autograd saves.

What the model itself saves comes from running it without values (activations.py); what the policy's attention saves depends on
the layout of the packed row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfpo.config import Lora

if TYPE_CHECKING:
    from sfpo.plan.activations import Attention, Kept
    from sfpo.plan.shapes import Part

FLOAT = 4
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Packed:
    """A micro-batch, described by lengths in tokens: (prompt, [completions]) per group."""

    groups: list[tuple[int, list[int]]]
    is_whole: bool
    """Whether it is the rank's whole mini-batch, so that there are no accumulated gradients when it starts."""

    @property
    def tokens(self) -> int:
        return sum(prompt + sum(completions) for prompt, completions in self.groups)

    @property
    def completion_tokens(self) -> int:
        return sum(sum(completions) for _, completions in self.groups)

    @property
    def shared(self) -> list[tuple[int, list[int]]]:
        """Groups of several completions with a shared prompt, for which attention is computed per segment
        (sfpo.trainer.packing)."""
        return [group for group in self.groups if len(group[1]) > 1]

    @property
    def masked_keys(self) -> int:
        """Number of keys that attention copies for them: for each completion, those of its prompt and its own."""
        return sum(prompt + length for prompt, completions in self.shared for length in completions)

    @property
    def completion_entries(self) -> int:
        """Queries x keys of these completions."""
        return sum(length * (prompt + length) for prompt, completions in self.shared for length in completions)

    @property
    def first_entries(self) -> int:
        """Queries x keys of all other segments: shared prompts, and prompts with their only completion."""
        return sum((prompt if len(completions) > 1 else prompt + completions[0]) ** 2 for prompt, completions in self.groups)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(prompt + max(completions) for prompt, completions in self.groups)

    @property
    def pairs(self) -> int:
        """Squares of the lengths of all sequences."""
        return sum((prompt + length) ** 2 for prompt, completions in self.groups for length in completions)


def kept_by(kept: Kept, part: Part, packed: Packed, dtype: str, lora: Lora | None) -> float:
    """Bytes that autograd saves in the forward pass of a part: by the model itself, by attention, and the inner product of each
    adapter."""
    size = BYTES[dtype]
    attention = sum(kept_by_attention(one, packed, dtype) for one in kept.attention)
    adapters = sum(matrix.experts is None for matrix in part.matrices) if lora and kept.width else 0
    inner = packed.tokens * lora.rank * size * adapters if lora else 0
    return packed.tokens * kept.per_token + packed.pairs * kept.per_pair + attention + inner


def kept_by_attention(asked: Attention, packed: Packed, dtype: str) -> float:
    """Bytes saved by the policy's own attention (sfpo.trainer.attention), without the input of the next matrix product.

    Queries, keys and values are saved at the width of all heads. torch's kernel also saves its output, one log-sum-exp per head
    and query, and additive masks: those of completions, and all if the window is shorter than a sequence. With a soft cap or
    sinks, the scores are saved instead: after the softmax in float32, after the cap, and in the data type of the product;
    masks are boolean then. Completions also save copies of the keys and values that they share.
    """
    size, heads = BYTES[dtype], asked.heads
    widths = 2 * asked.key_dim + asked.value_dim
    every = packed.completion_entries + packed.first_entries
    if asked.softcap or asked.sinks:
        of_scores = FLOAT + asked.softcap * size + (dtype == "bfloat16") * size
        kept = packed.tokens * heads * widths * size + heads * every * of_scores + every
    else:
        windowed = asked.window is not None and asked.window < packed.longest
        masked = every if windowed else packed.completion_entries
        kept = packed.tokens * heads * ((widths + asked.value_dim) * size + FLOAT) + masked * size
    copies = packed.masked_keys * (asked.key_dim + asked.value_dim)
    if dtype == "bfloat16":
        # Queries and keys are cast after the split, so saved segments do not keep the whole tensor alive.
        copies -= sum(sum(lengths) for _, lengths in packed.shared) * asked.key_dim
    return kept + copies * heads * size
