"""The shape of a model: what its memory follows from, without its weights.

Known are decoders of one kind, of which Qwen2, Qwen3 and Llama are: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpo.config import HubModel, LocalModel, Model, PackageModel
from sfpo.schema import ConfigError

KINDS = ("llama", "qwen2", "qwen3")
"""Values of ``model_type`` in config.json."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder, under the names of config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    """Input and output embeddings are one matrix."""
    biases: int
    """Bias weights of one layer."""
    qk_norm: bool
    """Queries and keys are normalized, head by head (Qwen3)."""

    @property
    def attention_width(self) -> int:
        """Of all query heads side by side."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Of all key heads side by side; values are as wide."""
        return self.num_key_value_heads * self.head_dim

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Name of each of a layer's matrices -> width of what goes in, of what comes out."""
        width, inner, heads, keys = self.hidden_size, self.intermediate_size, self.attention_width, self.key_width
        attention = {"q_proj": (width, heads), "k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (heads, width)}
        return {**attention, "gate_proj": (width, inner), "up_proj": (width, inner), "down_proj": (inner, width)}

    @property
    def linear_parameters(self) -> int:
        """Of one layer's matrix products, biases included."""
        return sum(before * after for before, after in self.matrices.values()) + self.biases

    @property
    def layer_parameters(self) -> int:
        """Of one layer, its norms included."""
        return self.linear_parameters + 2 * self.hidden_size + self.qk_norm * 2 * self.head_dim

    @property
    def embedding_parameters(self) -> int:
        """Of one embedding matrix."""
        return self.vocab_size * self.hidden_size

    @property
    def root_parameters(self) -> int:
        """Outside the layers: input and output embeddings, last norm."""
        return self.embedding_parameters * (1 if self.tied else 2) + self.hidden_size

    @property
    def parameters(self) -> int:
        return self.num_hidden_layers * self.layer_parameters + self.root_parameters


# From litgpt's table (github.com/Lightning-AI/litgpt/blob/0006c973aa7d6ace293e2a5fedaf1f8f804f960c/litgpt/config.py), which
# names for each the config.json on the hub that it is from. That table does not say which embeddings are tied: the published
# numbers of weights do, which are these shapes' own to the last one (tests/plan/test_shapes.py).
_QWEN2_1_5B = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
_QWEN2_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
_QWEN3_4B = {
    "model_type": "qwen3",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-Math-1.5B": _QWEN2_1_5B,
    "Qwen/Qwen2.5-Math-7B": _QWEN2_7B,
    "Qwen/Qwen3-4B-Base": _QWEN3_4B,
    # Distilled from Qwen2.5-Math-1.5B and -7B (arXiv 2501.12948), the smaller one with an output layer of its own
    # (github.com/THUDM/slime/pull/170).
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {**_QWEN2_1_5B, "tie_word_embeddings": False},
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _QWEN2_7B,
}
"""Hub id -> what its config.json says of its shape: the paper's models, which can so be planned for without a download."""


def shape_of_checkpoint(folder: str | Path) -> Shape:
    """From the config.json of a model folder.

    Raises:
        ConfigError: there is none, or it is of a kind that is not known here.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; prepare the model first (python -m sfpo.models.prepare), or name its config.json"
        )
    return shape_of(json.loads(path.read_text()), str(path))


def shape_of_model(model: Model) -> Shape:
    """From an entry of params.yaml alone, where that is enough. A scratch model's vocabulary is taken at its upper bound.

    Raises:
        ConfigError: the shape stands in a file that is not here yet.
    """
    if isinstance(model, LocalModel):
        return shape_of_checkpoint(model.path)
    if isinstance(model, HubModel):
        if model.id not in PUBLISHED:
            raise ConfigError(f"id = '{model.id}': its shape is not known here before it is downloaded; give its config.json")
        return shape_of(PUBLISHED[model.id], model.id)
    if isinstance(model, PackageModel):
        raise ConfigError(f"file = '{model.file}': a GGUF file tells its shape once it is prepared; prepare the model first")
    sizes = model.model_dump(include={"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    config = {**sizes, "model_type": model.architecture, "vocab_size": model.vocabulary_size, "tie_word_embeddings": True}
    return shape_of(config, model.architecture)


def shape_of(config: Mapping[str, Any], where: str) -> Shape:
    """From the content of a config.json.

    Raises:
        ConfigError: a kind of model that is not known here; names ``where``.
    """
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ConfigError(f"{where}: model_type = {kind!r}: shapes are known of {', '.join(KINDS)} alone")
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    key_heads = config.get("num_key_value_heads") or heads
    queries_keys_values = (heads + 2 * key_heads) * head_dim
    biases = queries_keys_values if kind == "qwen2" else 0
    if config.get("attention_bias"):
        biases = queries_keys_values + hidden
    if config.get("mlp_bias"):
        biases += 2 * config["intermediate_size"] + hidden
    return Shape(
        hidden_size=hidden,
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=head_dim,
        vocab_size=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings")),
        biases=biases,
        qk_norm=kind == "qwen3",
    )
