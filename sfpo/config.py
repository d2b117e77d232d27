"""The schema of params.yaml: every key, with what it means and what is allowed.

``load_params`` turns params.yaml into a frozen, checked ``Params``; ``sfpo.jobs`` resolves that into one small settings file a
job (sfpo/settings.py). An unknown key or an impossible value raises ``ConfigError``, which names the key, the value and what is
allowed. No torch in here: it must load fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sfpo.schema import ConfigError, Schema, nearest, parse

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
"""A name that is also a folder: lower case letters, digits, '.', '_' and '-'."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(strict=True)]
"""No text that looks like one."""
GraderName = Literal["math", "code"]
"""math: is the last \\boxed{...} the gold answer (sfpo.rewards.math_answer)? code: does the program in the fenced blocks pass
the gold's tests (sfpo.rewards.code_tests)?"""


def _holds_the_problem(text: str) -> str:
    if "{problem}" not in text:
        raise ValueError("the instruction must hold {problem}")
    return text


Instruction = Annotated[str, AfterValidator(_holds_the_problem)]


# ---------------------------------------------------------------------------------------------- data


class GeneratedRows(Schema):
    """Problems out of the generators: ``sfpo.data.arithmetic`` (grader math), ``sfpo.data.programs`` (grader code)."""

    source: Literal["generated"]
    tasks: dict[Name, Count]
    """Task -> number of problems."""


class KeptRows(Schema):
    """Which rows of a hub table are taken."""

    column: str
    """As ``answer`` of TableRows."""
    between: tuple[Number, Number] | tuple[str, str]
    """Smallest and largest value, both taken; texts (dates) compare as texts."""


Layout = Literal["columns", "livecodebench", "deepcoder", "apps", "human_eval", "mbpp"]


class TableRows(Schema):
    """Problems out of one published table: on the hub, or a file of the same rows under ``data_mirror``."""

    source: Literal["hub"]
    layout: Layout = "columns"
    """columns: `problem` and `answer` say where problem and gold stand. The others: the columns of that set of programming
    problems, as published (sfpo.data.code_sets); grader code."""
    files: Annotated[list[str], Field(min_length=1)] | None = None
    """Files of the hub repository that hold the rows (.jsonl or .parquet), in this order, in place of ``subset`` and ``split``:
    for a repository whose loader is a script, which is not run. None: the hub's own loader."""
    id: str | None = None
    """Hub id. None: the rows exist in the mirror folder alone."""
    subset: str | None = None
    """Hub configuration name, where the data set has several."""
    revision: str = "main"
    """Hub branch, tag or commit."""
    split: str = "train"
    problem: str = "problem"
    """Hub column that holds the problem: a text, or a chat whose last user turn is it."""
    answer: str = "answer"
    """Hub column that holds the gold answer, in the form that ``answer_format`` says; 'a/b' is the field b of column a."""
    answer_format: Literal["plain", "last_boxed", "first_of_list", "first_of_json_list", "after_hashes"] = "plain"
    """plain: the answer itself. last_boxed: a solution, the answer is in its last \\boxed. first_of_list: a list whose first
    entry is the answer; first_of_json_list: the same as JSON in a text. after_hashes: a solution, the answer follows '####'."""
    keep: KeptRows | None = None
    """Hub rows that are taken, before ``first_rows``. None: all."""
    first_rows: Count | None = None
    """Only the first so many rows of the hub table."""
    mirror: str | None = None
    """File under ``data_mirror`` (.jsonl or .parquet; columns problem, answer, optionally id, problem_fixed, answer_latex; with
    another ``layout`` those of the published set). With ``files``: the folder that holds them."""

    @model_validator(mode="after")
    def _a_layout_has_its_own_columns(self) -> TableRows:
        named = sorted({"problem", "answer", "answer_format"} & self.model_fields_set)
        changed = [key for key in named if getattr(self, key) != type(self).model_fields[key].default]
        if self.layout != "columns" and changed:
            raise ValueError(f"{' and '.join(changed)}: layout '{self.layout}' has columns of its own; leave them out")
        return self


Rows = Annotated[GeneratedRows | TableRows, Field(discriminator="source")]


class Dataset(Schema):
    """A training set: one or several sources, cleaned, with a part held out for validation."""

    parts: Annotated[dict[Name, Rows], Field(min_length=1)]
    grader: GraderName = "math"
    validation_rows: Count
    """Held out from training; accuracy on them picks the best checkpoint."""
    max_problem_characters: Count = 8000
    """Longer problems are excluded and counted. (Prompts over a model's token limit are excluded by the training job.)"""


class Benchmark(Schema):
    """A test set. Scored by the lm-eval task of the same name (eval/tasks)."""

    title: str
    """Column head in tables."""
    rows: Rows
    grader: GraderName = "math"
    out_of_distribution: bool = False
    """True where the training set holds no problem of this kind (a mark in tables)."""
    instruction: Instruction | None = None
    """The user turn of this benchmark; None: the suite's."""


# ---------------------------------------------------------------------------------------------- models


class ModelLimits(Schema):
    """What every model states, wherever it comes from."""

    max_prompt_tokens: Count
    """Training prompts over this are excluded and counted."""
    max_completion_tokens: Count
    """A completion that reaches this without a stop token is truncated."""


class WarmUp(Schema):
    """Supervised training of a scratch model, until it sometimes solves the training problems."""

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


class PackageModel(ModelLimits):
    """A GGUF file that an installed Python package carries; dequantized once to safetensors."""

    source: Literal["package"]
    package: str
    """Distribution name, as pip spells it."""
    file: str
    """Path inside the installed package, ending in .gguf."""


class LocalModel(ModelLimits):
    """A folder in Hugging Face format."""

    source: Literal["local"]
    path: str


class HubModel(ModelLimits):
    """A model on the Hugging Face hub (safetensors only; no remote code is run)."""

    source: Literal["hub"]
    id: str
    revision: str = "main"


Model = Annotated[ScratchModel | PackageModel | LocalModel | HubModel, Field(discriminator="source")]


# ---------------------------------------------------------------------------------------------- arms


class DynamicSampling(Schema):
    """Refilling of groups without reward variance (DAPO, arXiv 2503.14476, Section 3.2)."""

    max_refills: Count
    """Further draws of prompts in a step. Places that they do not fill keep their group, so that batches stay of one size."""


class OverlongPenalty(Schema):
    """Soft overlong punishment (DAPO, arXiv 2503.14476, equation 13)."""

    buffer_tokens: Count
    """The penalty begins so many tokens before max_completion_tokens, and rises linearly."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Taken off the reward of a completion that reaches max_completion_tokens."""


class Objective(Schema):
    """The policy loss, as settings of one function (sfpo.algorithms.objectives). GRPO, DAPO ... are values of these."""

    ratio: Literal["token", "sequence"] = "token"
    """Importance ratio per token (GRPO), or one length-normalized ratio per completion (GSPO)."""
    clip: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.2, 0.2)
    """Lower and upper clip range: the ratio is clipped to [1 - lower, 1 + upper]."""
    aggregation: Literal["sequence_mean", "token_mean", "constant"] = "sequence_mean"
    """sequence_mean: mean over a completion's tokens, then over completions (paper). token_mean: over all tokens.
    constant: sum over tokens divided by max_completion_tokens, then mean over completions (Dr.GRPO)."""
    scale_by_std: bool = True
    """Divide the group-centred reward by the group's standard deviation."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL penalty toward the policy that made the rollouts (k3 estimator)."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus."""
    sampler_correction_cap: Annotated[float, Field(gt=0)] | None = None
    """Truncated importance sampling for the gap between engine and policy: each token's loss is multiplied by
    min(pi_old / pi_sampler, cap). None: no correction."""
    dynamic_sampling: DynamicSampling | None = None
    """Groups without reward variance are replaced by groups of further prompts (DAPO). None: they stay."""
    overlong_penalty: OverlongPenalty | None = None
    """Reward shaping of completions near the length limit (DAPO). None: none."""


class Arm(BaseModel):
    """An update rule on an objective. Every further key is a setting of the rule, checked by the rule's own class."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    title: str | None = None
    """Name in tables and figures; without one, the arm's key in capitals."""
    rule: str
    """A module of sfpo.algorithms.update_rules."""
    objective: Name
    """A key of ``objectives``."""
    learning_rate_scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the suite's learning rate."""

    @property
    def rule_settings(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


# ---------------------------------------------------------------------------------------------- suites


class Optimizer(Schema):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(gt=0)]
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Outer steps over which the learning rate rises linearly; constant afterwards. 0: constant from the start."""


class Sampling(Schema):
    """How completions are drawn."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class Reward(Schema):
    """Reward of a completion, from the data set's grader."""

    correct: float = 1.0
    boxed_but_wrong: float = 0.0
    """0.1 in the authors' code, 0 in the paper. (Of a program: fenced but wrong.)"""


class Validation(Schema):
    """Accuracy on held-out rows through the live engine; picks the best checkpoint."""

    every: Count
    prompts: Count
    """The first so many validation rows, the same at every validation."""
    samples: Count
    """k of avg@k."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.7)


class Engine(Schema):
    """Settings of the rollout engine that change speed and memory, not what is sampled from."""

    library: Literal["vllm", "transformers"] = "vllm"
    """transformers: slower, for a machine without vLLM; of the settings below max_sequences and dtype count."""
    max_sequences: Count = 256
    """Sequences that the engine decodes at once."""
    kv_cache_gib: Annotated[float, Field(gt=0)] = 1.0
    """KV cache in GiB on a CPU. A GPU takes what gpu_memory_utilization leaves."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the GPU's memory that the engine may take while it is awake."""
    enforce_eager: bool = False
    """True: no compilation, a faster start and slower decoding."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    tensor_parallel: Count = 1
    """Neighbouring ranks of a training job under torchrun that hold one engine together, for a model that one device cannot
    hold; their number must be a multiple."""

    @model_validator(mode="after")
    def _transformers_holds_a_whole_model(self) -> Engine:
        if self.library == "transformers" and self.tensor_parallel > 1:
            raise ValueError(
                f"tensor_parallel {self.tensor_parallel} needs library vllm; transformers holds a whole model a rank"
            )
        return self


class Lora(Schema):
    """Low-rank adapters (arXiv 2106.09685) are trained, the model's own weights stay as they are."""

    rank: Count
    alpha: Annotated[float, Field(gt=0)]
    """What an adapter adds to its matrix is multiplied by alpha / rank."""
    matrices: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the matrices that get one, as the model calls them (q_proj ...). None: all of each layer."""


class Train(Schema):
    """One training job."""

    steps: Count
    """Outer steps: one batch of rollouts each."""
    prompts_per_step: Count
    completions_per_prompt: Annotated[int, Field(ge=2)]
    """Group size; at least 2, since an advantage compares completions of one prompt."""
    mini_batch_prompts: Count
    """Prompts in one optimizer step. One update of the rule is a whole pass over the batch in such mini-batches."""
    micro_batch_tokens: Count
    """Tokens in one forward and backward pass, a prompt counted once for its completions: memory, not results."""
    optimizer: Optimizer
    sampling: Sampling = Sampling()
    reward: Reward = Reward()
    validation: Validation
    save_every: Count
    """Steps between two saves of the state from which a killed run goes on."""
    export_every: Count | None = None
    """Steps between two checkpoints that are kept beside the best and the last, to choose from on the benchmarks."""
    policy_dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the policy's forward pass; master weights are float32."""
    lora: Lora | None = None
    """Train adapters instead of the weights: gradients, moments and snapshots are theirs, and the layers' matrices are kept in
    ``policy_dtype``. None: all weights are trained."""
    gradient_checkpointing: bool = False
    offload_to_host: bool = False
    """Under torchrun on GPUs: weights, gradients and moments stay in the host's memory, where AdamW runs too; the device holds
    the layers that compute. (The snapshot goes with them; ``snapshot_on_host`` of the rule moves the snapshot alone.)"""
    max_skipped_updates: Count = 8
    """A mini-batch whose loss or gradient is not finite is skipped and counted; so many in a row stop the run."""
    tensorboard: bool = True

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


CheckpointChoice = Literal["best", "last", "best_on_benchmarks", "best_on_other_half"]
"""Which checkpoint of a run is scored: the best on held-out rows of its training set; the last; the best of those that
``train.export_every`` keeps, by its average over the very benchmarks that it is scored on (the paper's choice, which flatters);
the same, with each half of the problems scored by the checkpoint that is best on the other half."""


class Evaluate(Schema):
    """Scoring of checkpoints on the suite's benchmarks."""

    samples: Count
    """k of avg@k and pass@k."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.7)
    checkpoint: CheckpointChoice = "best"
    limit: Count | None = None
    """Only the first so many rows of each benchmark. None: all."""
    seed: int = 0


class Resources(Schema):
    """What the workflow asks for, for each training or evaluation job."""

    threads: Count = 1
    """Cores of a job, shared out among its processes."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """GPUs of a training job, one for each of its processes; an evaluation takes one at most."""
    processes: Count | None = None
    """Of a training job: they share the weights, the rollouts and each batch. None: one for each GPU, one without GPUs."""
    tasks: Count = 1
    """Of a training job under Slurm: each starts its share of the processes. One for each node, if a job takes several."""
    mem_mb: Count = 4000
    runtime: Count = 60
    """Minutes."""

    @property
    def ranks(self) -> int:
        """Processes of a training job."""
        return self.processes or max(1, self.gpu)

    @model_validator(mode="after")
    def _shared_out(self) -> Resources:
        if self.gpu and self.ranks != self.gpu:
            raise ValueError(f"processes {self.processes} must be the number of GPUs, {self.gpu}: each process has one")
        if self.ranks % self.tasks:
            raise ValueError(f"tasks {self.tasks} must divide the number of processes, {self.ranks}")
        return self


Names = Annotated[list[Name], Field(min_length=1)]
Shows = Literal["scores", "curves", "dynamics", "costs", "targets", "memory", "arms", "contamination", "selection"]
"""What a table or figure shows: eval.report.render.WRITERS says how each is made."""


ItemName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""A name that is also a target of the workflow: lower case letters, digits and '_'."""


class Item(Schema):
    """A table or figure, and the runs that it shows. A list that is left out is the suite's."""

    shows: Shows
    title: str | None = None
    """Stands over it (scores, curves, dynamics, arms); without one a table says what it shows."""
    models: Names | None = None
    datasets: Names | None = None
    arms: Names | None = None
    """The first is what the others are compared with."""
    benchmarks: Names | None = None


class Override(Schema):
    """Settings of some of a suite's runs that differ from the rest. A later override goes before an earlier one."""

    models: Names | None = None
    """Of which runs: those of these models, data sets and arms. A list that is left out names all."""
    datasets: Names | None = None
    arms: Names | None = None
    rule: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Settings of the update rule."""
    train: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Keys of ``train``, nested ones as deep as they go."""
    instruction: Instruction | None = None
    max_prompt_tokens: Count | None = None
    max_completion_tokens: Count | None = None

    def concerns(self, model: str, dataset: str, arm: str) -> bool:
        lists = ((self.models, model), (self.datasets, dataset), (self.arms, arm))
        return all(names is None or name in names for names, name in lists)


LISTS = ("models", "datasets", "arms", "benchmarks")
"""Of names of other sections; an item may have its own."""


class Suite(Schema):
    """Tables and figures, and the runs that they need: models x datasets x arms x seeds, evaluated on benchmarks."""

    items: Annotated[dict[ItemName, Item], Field(min_length=1)]
    """Name -> table or figure. The suite's runs are those of its items, each trained once."""
    models: Names
    datasets: Names
    arms: Names
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    benchmarks: Names
    overrides: Annotated[list[Override], Field(default_factory=list)]
    instruction: Instruction
    """The user turn; {problem} stands for the problem. The same in training and evaluation."""
    train: Train
    evaluate: Evaluate
    engine: Engine = Engine()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _no_repeats(self) -> Suite:
        lists = {key: getattr(self, key) for key in (*LISTS, "seeds")}
        lists |= {f"items.{name}.{key}": getattr(item, key) or [] for name, item in self.items.items() for key in LISTS}
        for key, values in lists.items():
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(f"{key} names {', '.join(repeated)} twice")
        return self

    @model_validator(mode="after")
    def _there_are_checkpoints_to_choose_from(self) -> Suite:
        shown = [name for name, item in self.items.items() if item.shows == "selection"]
        if self.train.export_every is None and (shown or self.evaluate.checkpoint.startswith("best_on")):
            asks = f"items.{shown[0]} shows selection" if shown else f"evaluate.checkpoint is {self.evaluate.checkpoint}"
            raise ValueError(f"train.export_every must be set: {asks}, which chooses among the checkpoints that it keeps")
        return self

    @model_validator(mode="after")
    def _overrides_fit(self) -> Suite:
        for place, override in enumerate(self.overrides):
            try:
                Train.model_validate(merged(self.train.model_dump(), override.train))
            except ValidationError as error:
                faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
                raise ValueError(f"overrides[{place}].train: {faults}") from None
        return self


class Params(Schema):
    """params.yaml, whole."""

    suite: Name
    """The suite that is built."""
    data_mirror: str | None = None
    """A folder that stands in for the hub: every hub data set is read from the file that its ``mirror`` key names."""
    suites: dict[Name, Suite]
    arms: dict[Name, Arm]
    objectives: dict[Name, Objective]
    models: dict[Name, Model]
    datasets: dict[Name, Dataset]
    benchmarks: dict[Name, Benchmark]

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        _must_exist("suite", self.suite, self.suites)
        for suite_name, suite in self.suites.items():
            places = {"": suite, **{f"items.{name}.": item for name, item in suite.items.items()}}
            places |= {f"overrides[{place}].": override for place, override in enumerate(suite.overrides)}
            for place, lists in places.items():
                for key in LISTS:
                    for value in getattr(lists, key, None) or []:
                        _must_exist(f"suites.{suite_name}.{place}{key}", value, getattr(self, key))
        for arm_name, arm in self.arms.items():
            _must_exist(f"arms.{arm_name}.objective", arm.objective, self.objectives)
        if "base" in self.arms:
            raise ValueError("arms.base: the name 'base' is taken by the untrained model; choose another")
        return self

    @property
    def active(self) -> Suite:
        """The suite that ``suite`` names."""
        return self.suites[self.suite]


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with the changes, nested dicts key by key."""
    both = {key: merged(settings[key], value) for key, value in changes.items() if _are_dicts(settings.get(key), value)}
    return {**settings, **changes, **both}


def _are_dicts(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _must_exist(key: str, value: str, known: dict[str, Any]) -> None:
    if value not in known:
        raise ValueError(f"{key}: '{value}' is not defined; defined are: {', '.join(sorted(known))}{nearest(value, known)}")


def load_params(path: str | Path = "params.yaml", suite: str | None = None) -> Params:
    """Read and check params.yaml.

    Args:
        suite: the active suite, in place of the file's.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds an unknown key or an impossible value.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; run from the project's folder, or name the file")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if suite is not None and isinstance(raw, dict):
        raw["suite"] = suite
    return parse(Params, raw, str(path))
