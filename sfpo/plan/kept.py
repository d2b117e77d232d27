"""What autograd keeps of a part of the model, in the layout of a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfpo.config import Lora
from sfpo.plan.shapes import Part

if TYPE_CHECKING:
    from sfpo.plan.activations import Attention, Kept

FLOAT = 4
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Packed:
    """A micro-batch, by its lengths: (prompt, its completions), ... in tokens."""

    groups: list[tuple[int, list[int]]]
    is_whole: bool
    """It is the whole mini-batch of its rank: when it starts there is no gradient yet."""

    @property
    def tokens(self) -> int:
        return sum(prompt + sum(completions) for prompt, completions in self.groups)

    @property
    def completion_tokens(self) -> int:
        return sum(sum(completions) for _, completions in self.groups)

    @property
    def shared(self) -> list[tuple[int, list[int]]]:
        """Groups of several completions: attention takes each by itself, with a mask (sfpo.trainer.packing)."""
        return [group for group in self.groups if len(group[1]) > 1]

    @property
    def masked_keys(self) -> int:
        """Keys that attention copies: of each such completion, its prompt's and its own."""
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
    """Bytes that autograd keeps of a part's forward pass: what the model itself keeps, attention, and each adapter's inner
    product."""
    size = BYTES[dtype]
    attention = sum(kept_by_attention(one, packed, dtype) for one in kept.attention)
    adapters = sum(matrix.experts is None for matrix in part.matrices) if lora and kept.width else 0
    inner = packed.tokens * lora.rank * size * adapters if lora else 0
    return packed.tokens * kept.per_token + packed.pairs * kept.per_pair + attention + inner


def kept_by_attention(asked: Attention, packed: Packed, dtype: str) -> float:
    """Of the policy's own attention (sfpo.trainer.attention), without the input of the product that follows.

    A token keeps queries, keys and values as wide as all heads. torch's kernel keeps its output and a logarithm a head and
    query too, and masks as what they add to the scores: those of completions and, where a window is shorter than a sequence,
    all. With a soft cap or sinks the scores themselves are kept: after the softmax in float32, after the cap, and as what they
    are multiplied with; and masks as they are. Completions keep copies of the keys and values that they share.
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
        # Queries and keys are cast after the split, so that no segment of them is kept with the whole.
        copies -= sum(sum(lengths) for _, lengths in packed.shared) * asked.key_dim
    return kept + copies * heads * size
