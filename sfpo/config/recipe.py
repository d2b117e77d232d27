"""Training settings that determine a run's results. How the run is computed is in execution.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfpo.config.names import Count, Share, Whole
from sfpo.schema import Schema


class Sampler(Schema):
    """The sampler of completions, in training and evaluation."""

    library: Literal["vllm", "transformers"] = "vllm"
    """Inference library. transformers: slower, for machines without vLLM."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Data type of the policy's weights in the sampler."""


class Optimizer(Schema):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Learning rate of AdamW, multiplied by the arm's ``learning_rate_scale``."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay rates of AdamW's first and second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's epsilon, added to the square root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient clipping: largest norm of a mini-batch's gradient."""
    warmup_steps: Whole = 0
    """Outer steps of linear learning-rate warm-up; constant afterwards. 0: constant from the start."""


class Sampling(Schema):
    """Sampling parameters."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divisor of the logits."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the smallest set of tokens whose probabilities sum to this. 1: from all."""


class Reward(Schema):
    """Reward of a completion, from the verdict of the data set's grader."""

    correct: float = 1.0
    """Reward of a correct answer."""
    boxed_but_wrong: float = 0.0
    """Format reward: of a wrong answer in a box (or a wrong program in a fenced block). 0.1 in the authors' code, 0 in the
    paper."""


class Validation(Schema):
    """Accuracy on held-out rows, sampled by the training engine; selects the best checkpoint."""

    every: Count
    """Steps between two validations; there is also one before the first step and one after the last."""
    prompts: Count
    """Number of validation rows used: the first ones, the same at every validation."""
    samples: Count
    """k of avg@k."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.7)
    """Sampling parameters of validation."""


class Lora(Schema):
    """LoRA (arXiv 2106.09685): low-rank adapters are trained, the model's weights are frozen."""

    rank: Count
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0)]
    """The output of an adapter is scaled by alpha / rank."""
    matrices: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the modules with adapters, as in the model (q_proj ...). None: all linear layers and experts (see
    docs/models.md, LoRA)."""


class Difficulty(Schema):
    """Filter of the training rows by the starting policy's pass rate: rows that it always or never solves give no gradient."""

    samples: Annotated[Count, Field(ge=2)] = 8
    """Completions per training row."""
    correct: tuple[Whole, Whole] | None = None
    """Rows with at least and at most this many correct completions are kept. None: 1 to ``samples`` - 1."""
    rows: Count | None = None
    """Number of rows to score, drawn at random; the others are not trained on. None: all."""
    sampling: Sampling = Sampling()
    """Sampling parameters of the completions."""
    seed: Whole = 0
    """Seed of the draw of rows and of the completions."""

    @model_validator(mode="after")
    def _some_rows_can_be_kept(self) -> Difficulty:
        low, high = self.kept
        if not low <= high <= self.samples:
            raise ValueError(f"correct [{low}, {high}]: must be increasing, and at most samples {self.samples}")
        return self

    @property
    def kept(self) -> tuple[int, int]:
        """Smallest and largest number of correct completions of the rows that are kept."""
        return self.correct or (1, self.samples - 1)


Packing = Literal["auto", "groups", "padded", "sequences"]


class Train(Schema):
    """One training run."""

    steps: Count
    """Outer steps, each with one batch of rollouts. It can be raised later: a finished run then continues to the new number."""
    prompts_per_step: Count
    """Prompts per batch of rollouts."""
    completions_per_prompt: Annotated[Count, Field(ge=2)]
    """Group size; at least 2, since an advantage compares completions of one prompt."""
    mini_batch_prompts: Count
    """Prompts per optimizer step. One update of the rule is a pass over the whole batch in such mini-batches."""
    optimizer: Optimizer
    sampling: Sampling = Sampling()
    """Sampling parameters of rollouts."""
    reward: Reward = Reward()
    validation: Validation
    export_every: Count | None = None
    """Steps between two checkpoints that are kept in addition to the best and the last, for evaluation on the benchmarks. None:
    none."""
    policy_dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the policy's forward and backward pass; master weights are float32."""
    packing: Packing = "auto"
    """How sequences are batched in the policy's forward pass. groups: the completions of a prompt share one copy of it, packed
    without padding; padded: one row per completion, padded on the right; sequences: one at a time, the slowest. Before the run
    starts, the log-probs of a layout are compared with those of the plain model. auto: the first layout that agrees."""
    max_sampler_gap: Annotated[float, Field(gt=0)] | Literal["auto"] | None = "auto"
    """Largest difference between the log-probs of policy and sampler, in nats per token, averaged over a step; the run stops if
    it is exceeded, since its rollouts are off-policy. None: no limit. auto: 0.005 if both compute in float32, else 0.2; no
    limit with top_p < 1, where the sampler's log-probs are renormalized over the nucleus."""
    on_divergence: Literal["error", "zero"] = "error"
    """What a run does when its log-probs become NaN or inf, or ``max_skipped_updates`` mini-batches in a row give no finite
    gradient. error: it fails. zero: it ends, and has accuracy 0 in all later validations (for sweeps over learning rates)."""
    lora: Lora | None = None
    """Train LoRA adapters only: gradients, Adam moments and snapshots are those of the adapters, and the frozen weights are
    kept in ``policy_dtype``. None: full fine-tuning."""

    @model_validator(mode="after")
    def _mini_batches_fill_the_batch(self) -> Train:
        if self.prompts_per_step % self.mini_batch_prompts:
            raise ValueError(
                f"mini_batch_prompts {self.mini_batch_prompts} must divide prompts_per_step {self.prompts_per_step}"
            )
        return self

    @property
    def exported_steps(self) -> range:
        """Steps whose checkpoints are kept, other than the last step."""
        return range(self.export_every, self.steps, self.export_every) if self.export_every else range(0)
