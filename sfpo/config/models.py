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
    """Supervised training of a scratch model, until it sometimes solves the training problems."""

    dataset: Name
    """A key of ``datasets``: the problems that it is trained on."""
    learning_rate: Annotated[float, Field(gt=0)]
    batch_size: Count
    max_batches: Count
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
    architecture: Literal["qwen2", "llama"]
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    vocabulary_size: Count
    """Upper bound for the byte-level BPE vocabulary, special tokens included."""
    warm_up: WarmUp
    seed: int = 0


class PublishedModel(ModelLimits):
    """A model with a chat template of its own."""

    chat_template_options: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """Values of what the model's chat template reads beside the conversation (enable_thinking, reasoning_effort, date_string,
    tools ...). What is not set here is undefined in the template, and today is 1 January 2026."""


class PackageModel(PublishedModel):
    """A GGUF file that an installed Python package carries; dequantized once to safetensors."""

    source: Literal["package"]
    package: str
    """Distribution name, as pip spells it."""
    file: str
    """Path inside the installed package, ending in .gguf."""


class LocalModel(PublishedModel):
    """A folder in Hugging Face format."""

    source: Literal["local"]
    path: str


class HubModel(PublishedModel):
    """A model on the Hugging Face hub (safetensors only; no remote code is run)."""

    source: Literal["hub"]
    id: str
    revision: str = "main"


Model = Annotated[ScratchModel | PackageModel | LocalModel | HubModel, Field(discriminator="source")]
