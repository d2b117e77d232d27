"""Training settings that decide a run's numbers. How the run is computed is in execution.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfpo.config.names import Count, Share, Whole
from sfpo.schema import Schema


class Sampler(Schema):
    """What completions are sampled with, in training and in evaluation."""

    library: Literal["vllm", "transformers"] = "vllm"
    """transformers: slower, for a machine without vLLM."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Data type in which the library holds the policy's weights."""


class Optimizer(Schema):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Of AdamW; an arm's ``learning_rate_scale`` multiplies it."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay rates of AdamW's first and second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of AdamW's second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients of a mini-batch are clipped to this norm."""
    warmup_steps: Whole = 0
    """Outer steps over which the learning rate rises linearly; constant afterwards. 0: constant from the start."""


class Sampling(Schema):
    """How completions are drawn."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens whose probabilities sum to this; 1 samples from all."""


class Reward(Schema):
    """Reward of a completion, from the data set's grader."""

    correct: float = 1.0
    """Of a right answer."""
    boxed_but_wrong: float = 0.0
    """0.1 in the authors' code, 0 in the paper. (Of a program: fenced but wrong.)"""


class Validation(Schema):
    """Accuracy on held-out rows through the live engine; picks the best checkpoint."""

    every: Count
    """Steps between two validations; one is also before the first step and one after the last."""
    prompts: Count
    """The first so many validation rows, the same at every validation."""
    samples: Count
    """k of avg@k."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.7)
    """How completions are sampled for validation."""


class Lora(Schema):
    """Low-rank adapters (arXiv 2106.09685) are trained, the model's own weights stay as they are."""

    rank: Count
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0)]
    """What an adapter adds to its matrix is multiplied by alpha / rank."""
    matrices: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the matrices that get one, as the model calls them (q_proj ...). None: all linear layers and experts (see
    docs/models.md, LoRA)."""


Packing = Literal["auto", "groups", "padded", "sequences"]


class Train(Schema):
    """One training run."""

    steps: Count
    """Outer steps: one batch of rollouts each. It may be raised later: a finished run is continued to the new number."""
    prompts_per_step: Count
    """Prompts in one batch of rollouts."""
    completions_per_prompt: Annotated[Count, Field(ge=2)]
    """Group size; at least 2, since an advantage compares completions of one prompt."""
    mini_batch_prompts: Count
    """Prompts in one optimizer step. One update of the rule is a whole pass over the batch in such mini-batches."""
    optimizer: Optimizer
    sampling: Sampling = Sampling()
    """How rollouts are sampled."""
    reward: Reward = Reward()
    validation: Validation
    export_every: Count | None = None
    """Steps between two checkpoints that are kept beside the best and the last, to choose from on the benchmarks."""
    policy_dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the policy's forward pass; master weights are float32."""
    packing: Packing = "auto"
    """How completions go through the policy together. groups: those of a prompt share one copy of it, in a row without
    padding; padded: one row each, filled up on the right; sequences: one at a time, the slowest. Which of them give the model's
    own numbers is tried before the run starts. auto: the first of these that does."""
    max_sampler_gap: Annotated[float, Field(gt=0)] | Literal["auto"] | None = "auto"
    """Nats a token, mean over a step: a run whose policy and sampler differ by more stops, since its data are not the policy's.
    None: it goes on. auto: 0.02 where both compute in float32, else 0.2; none with top_p < 1, where the sampler's log-probs are
    those of the nucleus."""
    lora: Lora | None = None
    """Train adapters instead of the weights: gradients, moments and snapshots are theirs, and the layers' matrices are kept in
    ``policy_dtype``. None: all weights are trained."""

    @model_validator(mode="after")
    def _mini_batches_fill_the_batch(self) -> Train:
        if self.prompts_per_step % self.mini_batch_prompts:
            raise ValueError(
                f"mini_batch_prompts {self.mini_batch_prompts} must divide prompts_per_step {self.prompts_per_step}"
            )
        return self

    @property
    def exported_steps(self) -> range:
        """Steps whose checkpoints are kept; the last step's is kept anyway."""
        return range(self.export_every, self.steps, self.export_every) if self.export_every else range(0)
