"""The sizes of a model that determine its memory, read from the model itself, which is built without memory for its weights.

No model type is known by name: transformers builds the model from its config.json, and its modules and parameters are counted.
What autograd saves in a forward pass is measured by running it (sfpo/plan/activations.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfpo.config import HubModel, LocalModel, Model, PackageModel
from sfpo.schema import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from sfpo.plan.activations import Trace


@dataclass(frozen=True)
class Matrix:
    """A linear layer's matrix, or those of a layer's experts."""

    name: str
    """Last component of the module's name or, for experts, of the parameter's."""
    inputs: int
    outputs: int
    experts: int | None = None
    """Number of experts stored in one parameter; None for a linear layer."""


@dataclass(frozen=True)
class Part:
    """One layer, or everything outside of the layers."""

    parameters: int
    linear_parameters: int
    """Of linear layers, biases included."""
    expert_parameters: int
    matrices: tuple[Matrix, ...]
    """Without the output layer's."""

    def adapter_parameters(self, rank: int, matrices: list[str] | None) -> int:
        """Size of the adapters A [rank, inputs] and B [outputs, rank] of the named matrices (None: of all)."""
        chosen = [matrix for matrix in self.matrices if matrices is None or matrix.name in matrices]
        return rank * sum((matrix.experts or 1) * (matrix.inputs + matrix.outputs) for matrix in chosen)


@dataclass(frozen=True)
class Shape:
    """Sizes of a causal language model."""

    kind: str
    """Class of the model."""
    layers: tuple[Part, ...]
    """The layers, which are recomputed and sharded one by one."""
    root: Part
    """Everything else: embeddings, output layer, final norm."""
    vocab_size: int
    """Number of rows of the output layer."""
    embedding_parameters: int
    """Number of weights of the input embeddings."""
    head_parameters: int
    """Number of weights of the output layer, tied or not."""
    tied: bool
    """Whether input and output embeddings share one matrix."""
    config: str
    """The config.json, as JSON."""

    @property
    def parameters(self) -> int:
        return self.root.parameters + sum(layer.parameters for layer in self.layers)

    @property
    def active_parameters(self) -> int:
        """Number of weights that a token uses: only those experts of a layer that it is routed to."""
        active = self.parameters
        for layer, kept in zip(self.layers, self.trace("float32", adapters=False).layers, strict=True):
            experts = max((matrix.experts or 0 for matrix in layer.matrices), default=0)
            if experts and kept.active_experts:
                active -= layer.expert_parameters * (experts - kept.active_experts) // experts
        return active

    def trace(self, dtype: str, adapters: bool) -> Trace:
        """Bytes that autograd saves in its forward pass (see ``sfpo.plan.activations.trace``)."""
        from sfpo.plan.activations import trace

        return trace(self.config, dtype, adapters)


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
"""Hub id -> the part of its config.json that determines its shape: the paper's models, to plan for them without a download."""


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
            raise ConfigError(f"id = '{model.id}': its shape is unknown before the download; give its config.json")
        return shape_of(PUBLISHED[model.id], model.id)
    if isinstance(model, PackageModel):
        raise ConfigError(f"file = '{model.file}': a GGUF file has no config.json; prepare the model first")
    sizes = model.model_dump(include={"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    config = {**sizes, "num_key_value_heads": model.num_attention_heads, "tie_word_embeddings": True}
    return shape_of({**config, "model_type": model.architecture, "vocab_size": model.vocabulary_size}, model.architecture)


def shape_of(config: Mapping[str, Any], where: str) -> Shape:
    """From the content of a config.json.

    Raises:
        ConfigError: transformers makes no model of it, or its forward pass cannot be followed without values; names ``where``.
    """
    kind = config.get("model_type")
    try:
        return _shape(json.dumps(config, sort_keys=True))
    except Exception as fault:  # it is the model's own code, and may raise anything
        told = f"{type(fault).__name__}: {(str(fault).strip().splitlines() or [''])[0]}"
        raise ConfigError(
            f"{where}: model_type = {kind!r}: its memory is not planned, since transformers does not build it or does not "
            f"run it on tensors without values: {told}"
        ) from fault


@lru_cache(maxsize=64)
def _shape(config: str) -> Shape:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from sfpo.plan.activations import build, layers_of

    with FakeTensorMode():
        model = build(json.loads(config))
        embeddings, head = model.get_input_embeddings().get_parameter("weight"), model.get_output_embeddings()
        layers = list(layers_of(model).values())
        in_layers = {module for layer in layers for module in layer.modules()}
        outside = [named for named in model.named_modules() if named[1] not in in_layers]
        counted: set[int] = set()  # what several modules share is counted where it comes first
        root = _part(outside, head, counted)
        parts = tuple(_part(layer.named_modules(), head, counted) for layer in layers)
        weight = None if head is None else head.get_parameter("weight")
        shape = Shape(
            kind=type(model).__name__,
            layers=parts,
            root=root,
            vocab_size=model.config.get_text_config().vocab_size if weight is None else len(weight),
            embedding_parameters=embeddings.numel(),
            head_parameters=0 if weight is None else weight.numel(),
            tied=weight is embeddings,
            config=config,
        )
    shape.trace("float32", adapters=False)
    return shape


def _part(modules: Iterable[tuple[str, nn.Module]], head: nn.Module | None, counted: set[int]) -> Part:
    """What these modules hold themselves. ``counted``: ids of parameters that other parts hold; these are added to it."""
    from torch import nn

    from sfpo.transformers_internals import Conv1D

    matrices: list[Matrix] = []
    every = linear = experts = 0
    for path, module in modules:
        own = {name: weight for name, weight in module.named_parameters(recurse=False) if id(weight) not in counted}
        counted |= {id(weight) for weight in own.values()}
        size = sum(weight.numel() for weight in own.values())
        every += size
        if isinstance(module, nn.Linear | Conv1D) and module is not head and own:
            linear += size
            outputs, inputs = module.weight.shape if isinstance(module, nn.Linear) else module.weight.shape[::-1]
            matrices.append(Matrix(path.rpartition(".")[2], inputs, outputs))
        elif not isinstance(module, nn.modules.conv._ConvNd):
            of_experts = {name: weight for name, weight in own.items() if weight.ndim == 3}
            experts += sum(weight.numel() for weight in of_experts.values())
            matrices += [Matrix(name, weight.shape[1], weight.shape[2], len(weight)) for name, weight in of_experts.items()]
    return Part(every, linear, experts, tuple(matrices))
