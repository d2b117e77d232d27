"""Estimates the memory of a training job on each device, by component and phase, from tensor shapes and settings.

Weights are float32 (4 bytes). With adapters, the base matrices are frozen in the compute data type, and only adapters have
gradients, moments and snapshots. With N ranks, weights, gradients, moments and snapshots are sharded 1/N (FSDP2; a layer, and
the embeddings, are whole while they compute), or in host memory (``offload_to_host``). Activations and slices of the logits are
per rank; so is the engine, or a rank's share of one. The largest phase determines the plan:

    forward      activations of all layers (with checkpointing, each layer's input), bfloat16 copies of the weights
    log-probs    the same activations, slices of the logits, the gradient of the output layer
    backward     the same activations (with checkpointing, plus those of one layer), one layer's gradients
    embeddings   all gradients, and a second copy of the embeddings' gradient before it is accumulated
    generation   weights and moments; the engine's weights and KV cache

The tensors that autograd saves per layer are counted one by one (``kept_by_layer``); a test compares this with autograd. On a
GPU, the CUDA context, NCCL buffers, and the CUDA graphs of a sleeping engine are added (``OUTSIDE``). Not included:
fragmentation of the allocator, and the workspace and graphs of an awake engine, which come out of its own share.
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
"""Bytes per GPU outside the trainer's tensors. These are estimates, to be replaced by the measurement of gpu-check (its line on
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
"""Component -> bytes; components that are absent take none."""


@dataclass(frozen=True)
class Job:
    """Everything that a training job's memory depends on."""

    shape: Shape
    train: Train
    execution: Execution
    sampler: Sampler
    limits: ModelLimits
    snapshots: int
    """Number of copies of the weights that the update rule keeps on the device during a step."""
    device: Literal["cpu", "cuda"]
    movable_snapshots: int = 0
    """How many of these ``execution.snapshot_on_host`` would move to the host."""
    ranks: int = 1
    """Number of training processes, each with its own device."""
    entropy_in_update: bool = False
    """The update's forward pass also computes the entropy."""

    @property
    def trained(self) -> int:
        """Number of trained weights (with gradients, moments and snapshots)."""
        root = 0 if self.train.lora else self.shape.root_parameters
        return self.shape.num_hidden_layers * trained_by_layer(self.shape, self.train.lora) + root

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights, including adapters, summed over ranks."""
        shape, lora = self.shape, self.train.lora
        if lora is None:
            return float(FLOAT * shape.parameters)
        frozen = shape.num_hidden_layers * shape.linear_parameters * BYTES[self.train.policy_dtype]
        others = shape.parameters - shape.num_hidden_layers * shape.linear_parameters
        return float(frozen + FLOAT * (others + self.trained))

    @property
    def offloaded(self) -> bool:
        """Whether weights and moments are in host memory instead of on the device."""
        return self.execution.offload_to_host and self.device == "cuda" and self.ranks > 1


@dataclass(frozen=True)
class Packed:
    """A micro-batch, described by lengths in tokens: (prompt, [completions]) per group."""

    groups: list[tuple[int, list[int]]]
    is_whole: bool
    """It is the rank's whole mini-batch, so there are no accumulated gradients when it starts."""

    @property
    def tokens(self) -> int:
        return sum(prompt + sum(completions) for prompt, completions in self.groups)

    @property
    def completion_tokens(self) -> int:
        return sum(sum(completions) for _, completions in self.groups)

    @property
    def shared(self) -> list[tuple[int, list[int]]]:
        """Groups of several completions with a shared prompt, for which attention is computed per segment
        (sfpo.trainer.packing)."""
        return [group for group in self.groups if len(group[1]) > 1]

    @property
    def masked_keys(self) -> int:
        """Number of keys that attention copies for them: for each completion, those of its prompt and its own."""
        return sum(prompt + length for prompt, completions in self.shared for length in completions)

    @property
    def mask_entries(self) -> int:
        return sum(length * (prompt + length) for prompt, completions in self.shared for length in completions)


def filled(train: Train, micro_batch_tokens: int, limits: ModelLimits, ranks: int = 1) -> Packed:
    """The largest micro-batch: full-length prompts and completions up to ``micro_batch_tokens`` (the last completion is cut to
    fit) or to the rank's mini-batch. One prompt with one completion is always included."""
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
    """Bytes that autograd saves in the forward pass of one layer.

    Per token in float32: 6 hidden vectors (for each of the two norms: input, normalized input, and that times the weight),
    queries, keys and values of all heads, the attention output before and after its reshape, gate, SiLU(gate), up, and their
    product. Under bfloat16 autocast the residual stream stays float32, and each matrix product saves its own bfloat16 input (3
    for queries, keys and values; 2 for gate and up). With adapters, frozen norms do not save the normalized input, and each
    adapter saves its inner product (counted for every matrix, adapted or not).
    """
    tokens, width, heads = packed.tokens, shape.hidden_size, shape.attention_width
    size = BYTES[dtype]
    norms = (2 if lora else 4) * width * FLOAT + 2 * FLOAT  # plus one root mean square per token and norm
    inputs = 2 * width * size if dtype == "float32" else 5 * width * size
    attention = 5 * heads * size + shape.num_attention_heads * FLOAT  # plus one log-sum-exp per head and query
    mlp = 4 * shape.intermediate_size * size
    inner = len(shape.matrices) * lora.rank * size if lora else 0
    kept = tokens * (norms + inputs + attention + mlp + inner)
    if shape.qk_norm:
        of_heads, normed = shape.num_attention_heads + shape.num_key_value_heads, heads + shape.key_width
        kept += tokens * (normed * (FLOAT if lora else FLOAT + size) + of_heads * FLOAT)
    kept += packed.mask_entries * size  # as an additive mask in the data type of the logits
    if dtype == "float32":
        return kept + 2 * packed.masked_keys * heads * size
    # Queries and keys are cast to bfloat16 after the split, so saved segments do not keep the whole tensor alive.
    return kept + (2 * packed.masked_keys - sum(sum(lengths) for _, lengths in packed.shared)) * heads * size


def phases(job: Job, device_memory: float) -> dict[str, Parts]:
    """Phase -> memory by component on one device of ``device_memory`` bytes. On a CPU the engine stays awake during
    training."""
    engine = _engine(job, device_memory)
    if job.device == "cpu":
        return {phase: {**parts, **engine} for phase, parts in training(job).items()}
    graphs = _outside(job, "CUDA graphs")  # those of an awake engine are in its own share
    awake = {**_held(job), "outside torch": _outside(job) - graphs}
    del awake["snapshot"]
    return {**training(job), "generation": awake | engine}


def trained_by_layer(shape: Shape, lora: Lora | None) -> int:
    """Number of trained weights of one layer: all, or with adapters A [rank, inputs] and B [outputs, rank] of each matrix."""
    if lora is None:
        return shape.layer_parameters
    chosen = [sizes for name, sizes in shape.matrices.items() if lora.matrices is None or name in lora.matrices]
    return lora.rank * sum(map(sum, chosen))


def _held(job: Job) -> Parts:
    """Memory in use at all times: the rank's shard of the weights, AdamW's moments and the rule's snapshots."""
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
    """Training phase -> memory by component on one device, from the second step on (the first allocates the AdamW moments)."""
    shape, train, ranks = job.shape, job.train, job.ranks
    packed = filled(train, job.execution.micro_batch_tokens, job.limits, ranks)
    size, tokens, width = BYTES[train.policy_dtype], packed.tokens, shape.hidden_size
    layers, held = shape.num_hidden_layers, _held(job)
    sharded = 0.0 if job.offloaded else FLOAT * job.trained / ranks
    before = 0.0 if packed.is_whole else sharded  # gradients accumulated by earlier micro-batches
    embedding = 0 if train.lora else FLOAT * shape.embedding_parameters  # no gradient if it is frozen
    pending = embedding if shape.tied else 0  # the output layer's gradient is kept until the input embedding's is added

    kept = kept_by_layer(shape, packed, train.policy_dtype, train.lora)
    outside = packed.mask_entries + tokens * (width * 2 + 1) * FLOAT + 2 * tokens * shape.head_dim * FLOAT  # norm, angles
    if job.execution.gradient_checkpointing:
        all_layers, in_forward, in_backward = float(layers * tokens * width * FLOAT), kept, kept
    else:
        all_layers, in_forward, in_backward = layers * kept, 0.0, 0.0
    copies = _copies(job)
    predictions = packed.completion_tokens
    hidden = predictions * width * size
    of_mlp = 2 * tokens * shape.intermediate_size * size + tokens * width * FLOAT  # of up, gate and input
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
    """Phase -> bytes of weights and gradients in addition to the rank's own shards.

    On one rank in bfloat16: the copies that autocast makes of the layers' matrices; without checkpointing they are kept for the
    backward pass. On several ranks: gathered tensors. Layers are gathered in the compute data type, with one prefetched; the
    embeddings and the final norm in float32, from the forward pass to the end of the backward pass. A layer's gradient exists
    as a whole, and once more in float32, while it is reduced over the ranks.
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
    """Bytes of the logits of one slice of the vocabulary (sfpo.algorithms.logprobs): float32 for this slice and the previous
    one, a third copy if the entropy is computed, and under bfloat16 also the products themselves."""
    columns = min(job.shape.vocab_size, max(1, LOGITS_AT_ONCE[job.device] // predictions))
    floats = (3 if job.entropy_in_update else 2) * FLOAT
    cast = 2 * BYTES["bfloat16"] if job.train.policy_dtype == "bfloat16" else 0
    return predictions * columns * (floats + cast)


def _engine(job: Job, device_memory: float) -> Parts:
    """The engine's memory. On a GPU it uses its whole share: the KV cache gets what the weights leave, at least one
    sequence."""
    weights = engine_weights(job)
    if job.device == "cpu":
        return {"engine weights": weights, "KV cache": job.execution.engine.kv_cache_gib * 2**30}
    cache = max(device_memory * job.execution.engine.gpu_memory_utilization - weights, one_sequence(job))
    return {"engine weights": weights, "KV cache": cache}


def engine_weights(job: Job) -> float:
    """Bytes of the engine's copy of the weights on one rank: all, or a share with tensor parallelism."""
    return job.shape.parameters * BYTES[job.sampler.dtype] / job.execution.engine.tensor_parallel


def one_sequence(job: Job) -> float:
    """Bytes of the KV cache on one rank for a prompt and completion of full length. Key heads are not split: if an engine has
    more ranks than the model has key heads, vLLM puts one on each rank."""
    tokens = job.limits.max_prompt_tokens + job.limits.max_completion_tokens
    widest = max(job.shape.head_dim, job.shape.key_width / job.execution.engine.tensor_parallel)
    return 2 * tokens * job.shape.num_hidden_layers * widest * BYTES[job.sampler.dtype]


def total(parts: Parts) -> float:
    return sum(parts.values())
