"""Starting policies: where they are from and how long their sequences may be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from sfpo.config.names import Count, Name, Share
from sfpo.schema import Schema


class ModelLimits(Schema):
    """What every model states, wherever it comes from."""

    max_prompt_tokens: Count
    """Training prompts over this are excluded and counted."""
    max_completion_tokens: Count
    """A completion that reaches this without a stop token is truncated."""


class WarmUp(Schema):
    """Supervised training on worked solutions, until the model sometimes solves the training problems."""

    dataset: Name
    """A key of ``datasets``: the problems that it is trained on."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Of the supervised training."""
    batch_size: Count
    """Worked solutions in one optimizer step."""
    max_batches: Count
    """Upper bound of the training."""
    check_every: Count
    """Batches between two measurements of the pass rate."""
    check_prompts: Count
    """Validation problems in one measurement, each sampled once at temperature 1."""
    pass_rate: tuple[Share, Share]
    """Stop at the first measurement inside this band; outside it at the end, the job fails and says so."""

    @model_validator(mode="after")
    def _ordered(self) -> WarmUp:
        if self.pass_rate[0] >= self.pass_rate[1]:
            raise ValueError(f"pass_rate {list(self.pass_rate)} must be [low, high] with low < high")
        return self


class ScratchModel(ModelLimits):
    """A small transformers model with a tokenizer of its own, trained here from nothing."""

    source: Literal["scratch"]
    """A new model with random weights."""
    architecture: Literal["qwen2", "llama"]
    """Model family of transformers."""
    hidden_size: Count
    """Width of the residual stream."""
    intermediate_size: Count
    """Width of the feed-forward block."""
    num_hidden_layers: Count
    """Layers."""
    num_attention_heads: Count
    """Attention heads of a layer."""
    vocabulary_size: Count
    """Upper bound for the byte-level BPE vocabulary, special tokens included."""
    warm_up: WarmUp
    seed: Annotated[int, Field(strict=True)] = 0
    """Of the first weights and of the warm-up."""


class PretrainedModel(ModelLimits):
    """A model that somebody has trained, with a chat template of its own."""

    chat_template_options: dict[str, JsonValue] = Field(default_factory=dict)
    """Values of what the model's chat template reads beside the conversation (enable_thinking, reasoning_effort, date_string,
    tools ...). What is not set here is undefined in the template, and today is 1 January 2026."""
    warm_up: WarmUp | None = None
    """For a model that solves too little for rewards to teach it anything. None: it stays as it is."""
    seed: Annotated[int, Field(strict=True)] = 0
    """Of the warm-up."""


class PackageModel(PretrainedModel):
    """A GGUF file that an installed Python package carries; dequantized once to safetensors."""

    source: Literal["package"]
    """A file in an installed Python package."""
    package: str
    """Distribution name, as pip spells it."""
    file: str
    """Path inside the installed package, ending in .gguf."""


class LocalModel(PretrainedModel):
    """A folder in Hugging Face format."""

    source: Literal["local"]
    """A folder on this machine."""
    path: str
    """The folder: configuration, tokenizer, safetensors."""


class HubModel(PretrainedModel):
    """A model on the Hugging Face hub (safetensors only; no remote code is run)."""

    source: Literal["hub"]
    """A repository on the Hugging Face hub."""
    id: str
    """Owner and name on the hub."""
    revision: str = "main"
    """Branch, tag or commit."""


Model = Annotated[ScratchModel | PackageModel | LocalModel | HubModel, Field(discriminator="source")]
