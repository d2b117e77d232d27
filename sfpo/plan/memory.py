"""How much memory a training job takes on each of its devices, by part and by phase, from shapes and settings alone.

Weights are float32, 4 bytes each; beside adapters the layers' matrices are frozen in the data type that they compute in, and
gradients, moments and snapshot are of the adapters alone. On N ranks weights, gradients, moments and snapshot are 1/N (FSDP2: a
layer, and the embeddings, are whole while they compute), or in the host's memory (``offload_to_host``); activations and the
slices of the log-probs are each rank's own, and so is its engine, or its share of one. The largest phase is the plan:

    forward      activations of all layers (with checkpointing, each layer's input), bfloat16 copies of the weights
    log-probs    the same activations, slices of the logits, the gradient of the output layer
    backward     the same activations (with checkpointing, one layer's too), a layer's gradients
    embeddings   all gradients, and the embeddings' once more, before it is added
    generation   weights and moments; the engine's weights and its KV cache

What autograd keeps of a layer is counted tensor by tensor (``kept_by_layer``); a test compares it with what autograd keeps.
Beside these, on a GPU: its context, NCCL's buffers, and the CUDA graphs that a sleeping engine keeps (``OUTSIDE``). Not
counted: the allocator's fragments, and an awake engine's workspace and graphs, for which it takes from its own share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sfpo.algorithms.logprobs import LOGITS_AT_ONCE
from sfpo.config import Execution, Lora, ModelLimits, Sampler, Train
from sfpo.plan.shapes import Shape

FLOAT = 4
BYTES = {"float32": 4, "bfloat16": 2}
OUTSIDE = {"context": 0.6e9, "NCCL": 1.0e9, "CUDA graphs": 1.0e9}
"""Bytes on each GPU that no tensor of the trainer accounts for: estimates until gpu-check has measured them on one (its line on
memory, "outside the allocator")."""
PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "snapshot",
    "compute copies",
    "activations",
    "log-prob chunks",
    "outside torch",
    "engine weights",
    "KV cache",
)
Parts = dict[str, float]
"""Bytes by part; a part that is not named takes none."""


@dataclass(frozen=True)
class Job:
    """What a training job's memory depends on."""

    shape: Shape
    train: Train
    execution: Execution
    sampler: Sampler
    limits: ModelLimits
    snapshots: int
    """Copies of the weights that the update rule keeps on the device during an update."""
    device: Literal["cpu", "cuda"]
    movable_snapshots: int = 0
    """Of these, what ``execution.snapshot_on_host`` would move to the host."""
    ranks: int = 1
    """Processes that train together, each with a device of its own."""
    entropy_in_update: bool = False
    """The update's own forward pass takes the entropy."""

    @property
    def trained(self) -> int:
        """Number of weights that have gradients, moments and snapshots."""
        root = 0 if self.train.lora else self.shape.root_parameters
        return self.shape.num_hidden_layers * trained_by_layer(self.shape, self.train.lora) + root

    @property
    def weight_bytes(self) -> float:
        """Of all weights, adapters among them, over all ranks."""
        shape, lora = self.shape, self.train.lora
        if lora is None:
            return float(FLOAT * shape.parameters)
        frozen = shape.num_hidden_layers * shape.linear_parameters * BYTES[self.train.policy_dtype]
        others = shape.parameters - shape.num_hidden_layers * shape.linear_parameters
        return float(frozen + FLOAT * (others + self.trained))

    @property
    def offloaded(self) -> bool:
        """Weights and moments are in the host's memory, not on the device."""
        return self.execution.offload_to_host and self.device == "cuda" and self.ranks > 1


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
        """Families of several completions: attention takes each by itself, with a mask (sfpo.trainer.packing)."""
        return [group for group in self.groups if len(group[1]) > 1]

    @property
    def masked_keys(self) -> int:
        """Keys that attention copies: of each such completion, its prompt's and its own."""
        return sum(prompt + length for prompt, completions in self.shared for length in completions)

    @property
    def mask_entries(self) -> int:
        return sum(length * (prompt + length) for prompt, completions in self.shared for length in completions)


def filled(train: Train, micro_batch_tokens: int, limits: ModelLimits, ranks: int = 1) -> Packed:
    """The micro-batch of full-length prompts and completions that fills ``micro_batch_tokens``, as far as a mini-batch's rows
    reach; its last completion as long as still fits. One completion with its prompt always fits."""
    prompt, longest = limits.max_prompt_tokens, limits.max_completion_tokens
    rows = max(1, train.mini_batch_prompts * train.completions_per_prompt // ranks)
    left = max(micro_batch_tokens, prompt + longest)
    groups: list[tuple[int, list[int]]] = []
    while rows and left > prompt:
        left -= prompt
        completions: list[int] = []
        while rows and left and len(completions) < train.completions_per_prompt:
            completions.append(min(longest, left))
            left, rows = left - completions[-1], rows - 1
        groups.append((prompt, completions))
    return Packed(groups, is_whole=rows == 0)


def kept_by_layer(shape: Shape, packed: Packed, dtype: str, lora: Lora | None = None) -> float:
    """Bytes that autograd keeps of one layer's forward pass, from the layer's input to its output's last factor.

    In float32, token by token: 6 widths (input, its normalized form, that times the norm's weight; twice), queries, keys and
    values as wide as all heads, attention's output as it comes and as it goes into its product, gate, its SiLU, up, and their
    product. Under bfloat16 autocast the residual stream stays float32, and each product keeps a bfloat16 input of its own
    (queries, keys and values 3, gate and up 2). With adapters, the frozen norms do not keep what their weights multiply, and
    each adapter keeps its inner product; a matrix without one is counted as if it had one.
    """
    tokens, width, heads = packed.tokens, shape.hidden_size, shape.attention_width
    size = BYTES[dtype]
    norms = (2 if lora else 4) * width * FLOAT + 2 * FLOAT  # and one root mean square a token
    inputs = 2 * width * size if dtype == "float32" else 5 * width * size
    attention = 5 * heads * size + shape.num_attention_heads * FLOAT  # and a logarithm a head and query
    mlp = 4 * shape.intermediate_size * size
    inner = len(shape.matrices) * lora.rank * size if lora else 0
    kept = tokens * (norms + inputs + attention + mlp + inner)
    if shape.qk_norm:
        of_heads, normed = shape.num_attention_heads + shape.num_key_value_heads, heads + shape.key_width
        kept += tokens * (normed * (FLOAT if lora else FLOAT + size) + of_heads * FLOAT)
    kept += packed.mask_entries * size  # as what it adds to the logits
    if dtype == "float32":
        return kept + 2 * packed.masked_keys * heads * size
    # Queries and keys are cast after the split, so that no segment of them is kept with the whole.
    return kept + (2 * packed.masked_keys - sum(sum(lengths) for _, lengths in packed.shared)) * heads * size


def phases(job: Job, device_memory: float) -> dict[str, Parts]:
    """Phase -> what it takes on one device of ``device_memory`` bytes. A CPU's engine is awake while the policy trains."""
    engine = _engine(job, device_memory)
    if job.device == "cpu":
        return {phase: {**parts, **engine} for phase, parts in training(job).items()}
    graphs = _outside(job, "CUDA graphs")  # of an engine that is awake: in its own share
    awake = {**_held(job), "outside torch": _outside(job) - graphs}
    del awake["snapshot"]
    return {**training(job), "generation": awake | engine}


def trained_by_layer(shape: Shape, lora: Lora | None) -> int:
    """Number of weights of one layer that are trained: A [rank, width in] and B [width out, rank] of each matrix, or all."""
    if lora is None:
        return shape.layer_parameters
    chosen = [sizes for name, sizes in shape.matrices.items() if lora.matrices is None or name in lora.matrices]
    return lora.rank * sum(map(sum, chosen))


def _held(job: Job) -> Parts:
    """What a rank's device holds throughout: its share of the weights, of AdamW's moments and of the rule's snapshots."""
    outside = {} if job.device == "cpu" else {"outside torch": _outside(job)}
    if job.offloaded:
        return {"weights": 0.0, "optimizer": 0.0, "snapshot": 0.0, **outside}
    each = FLOAT * job.trained / job.ranks
    return {"weights": job.weight_bytes / job.ranks, "optimizer": 2 * each, "snapshot": job.snapshots * each, **outside}


def _outside(job: Job, *only: str) -> float:
    graphs = job.sampler.library == "vllm" and not job.execution.engine.enforce_eager
    there = {"context": True, "NCCL": job.ranks > 1, "CUDA graphs": graphs}
    return sum(size for part, size in OUTSIDE.items() if there[part] and (not only or part in only))


def training(job: Job) -> dict[str, Parts]:
    """Phase -> what the trainer takes on one device, from the second step on (the first makes the optimizer's moments)."""
    shape, train, ranks = job.shape, job.train, job.ranks
    packed = filled(train, job.execution.micro_batch_tokens, job.limits, ranks)
    size, tokens, width = BYTES[train.policy_dtype], packed.tokens, shape.hidden_size
    layers, held = shape.num_hidden_layers, _held(job)
    sharded = 0.0 if job.offloaded else FLOAT * job.trained / ranks
    before = 0.0 if packed.is_whole else sharded  # gradients of the micro-batches before
    embedding = 0 if train.lora else FLOAT * shape.embedding_parameters  # of a frozen one there is no gradient
    pending = embedding if shape.tied else 0  # the output layer's gradient waits for the input's

    kept = kept_by_layer(shape, packed, train.policy_dtype, train.lora)
    outside = packed.mask_entries + tokens * (width * 2 + 1) * FLOAT + 2 * tokens * shape.head_dim * FLOAT  # last norm; angles
    if job.execution.gradient_checkpointing:
        all_layers, in_forward, in_backward = float(layers * tokens * width * FLOAT), kept, kept
    else:
        all_layers, in_forward, in_backward = layers * kept, 0.0, 0.0
    copies = _copies(job)
    predictions = packed.completion_tokens
    hidden = predictions * width * size
    of_mlp = 2 * tokens * shape.intermediate_size * size + tokens * width * FLOAT  # gradients of up and gate, and of the input
    return {
        "forward": {
            **held,
            "gradients": before,
            "compute copies": copies["forward"],
            "activations": all_layers + in_forward + outside,
        },
        "log-probs": {
            **held,
            "gradients": before + embedding,
            "compute copies": copies["log-probs"],
            "activations": all_layers + outside + hidden,
            "log-prob chunks": _slices(job, predictions) + predictions * width * (FLOAT + size),
        },
        "backward": {
            **held,
            "gradients": before + pending + copies["layer gradients"],
            "compute copies": copies["backward"],
            "activations": all_layers + in_backward + outside + of_mlp,
        },
        "embeddings": {
            **held,
            "gradients": sharded + pending + embedding + copies["root gradients"],
            "compute copies": copies["root"],
        },
    }


def _copies(job: Job) -> dict[str, float]:
    """Bytes of weights and gradients beside a rank's own, by phase.

    Alone, under bfloat16: the copies that autocast makes of the layers' matrices; the backward pass keeps them unless it makes
    them anew, layer by layer. On several ranks: what is gathered. Layers in the data type they compute in, one ahead; the
    embeddings and the last norm in float32, whole from the forward to the end of the backward pass. Gradients of a layer are
    whole, and once more as float32, when they are added up over the ranks.
    """
    shape, train = job.shape, job.train
    size = BYTES[train.policy_dtype]
    nothing = {"root": 0.0, "layer gradients": 0.0, "root gradients": 0.0}
    if job.ranks > 1:
        root, trained = float(FLOAT * shape.root_parameters), trained_by_layer(shape, train.lora)
        layer = shape.layer_parameters + (trained if train.lora else 0)
        two_layers = root + 2 * layer * size
        in_layers = {"forward": two_layers, "log-probs": root, "backward": two_layers}
        of_root = 0.0 if train.lora else root
        return {**in_layers, "root": root, "layer gradients": trained * (size + FLOAT), "root gradients": of_root}
    if train.policy_dtype == "float32":
        return {"forward": 0.0, "log-probs": 0.0, "backward": 0.0, **nothing}
    of_layer = float((trained_by_layer(shape, train.lora) if train.lora else shape.linear_parameters) * size)
    every = of_layer * shape.num_hidden_layers
    after = (
        {"log-probs": 0.0, "backward": of_layer}
        if job.execution.gradient_checkpointing
        else {"log-probs": every, "backward": every}
    )
    return {"forward": every, **after, **nothing}


def _slices(job: Job, predictions: int) -> float:
    """Bytes of the logits of one slice of the vocabulary (sfpo.algorithms.logprobs): float32 of this slice and of the one
    before, with the entropy once more; and in bfloat16, as the product makes them, of both."""
    columns = min(job.shape.vocab_size, max(1, LOGITS_AT_ONCE[job.device] // predictions))
    floats = (3 if job.entropy_in_update else 2) * FLOAT
    cast = 2 * BYTES["bfloat16"] if job.train.policy_dtype == "bfloat16" else 0
    return predictions * columns * (floats + cast)


def _engine(job: Job, device_memory: float) -> Parts:
    """On a GPU the engine takes its whole share; the KV cache gets what its weights leave, and never less than one sequence."""
    weights = engine_weights(job)
    if job.device == "cpu":
        return {"engine weights": weights, "KV cache": job.execution.engine.kv_cache_gib * 2**30}
    cache = max(device_memory * job.execution.engine.gpu_memory_utilization - weights, one_sequence(job))
    return {"engine weights": weights, "KV cache": cache}


def engine_weights(job: Job) -> float:
    """Bytes of the engine's copy of the weights on a rank: all of them, or a share where ranks hold an engine together."""
    return job.shape.parameters * BYTES[job.sampler.dtype] / job.execution.engine.tensor_parallel


def one_sequence(job: Job) -> float:
    """Bytes on a rank of the KV cache of a prompt and completion of full length. A key head is never split: where an engine
    has more ranks than the model has key heads, vLLM gives each rank one."""
    tokens = job.limits.max_prompt_tokens + job.limits.max_completion_tokens
    widest = max(job.shape.head_dim, job.shape.key_width / job.execution.engine.tensor_parallel)
    return 2 * tokens * job.shape.num_hidden_layers * widest * BYTES[job.sampler.dtype]


def total(parts: Parts) -> float:
    return sum(parts.values())
