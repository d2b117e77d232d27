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

What autograd keeps of a layer is what the model keeps when it runs without values (sfpo/plan/activations.py) and what the
policy's attention keeps of the layout of a row (sfpo/plan/kept.py); a test compares it with what autograd keeps.
Beside these, on a GPU: its context, NCCL's buffers, and the CUDA graphs that a sleeping engine keeps (``OUTSIDE``). Not
counted: the allocator's fragments, and an awake engine's workspace and graphs, for which it takes from its own share.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sfpo.algorithms.logprobs import LOGITS_AT_ONCE
from sfpo.config import Execution, Lora, ModelLimits, Sampler, Train
from sfpo.plan.kept import BYTES, FLOAT, Packed, kept_by
from sfpo.plan.shapes import Part, Shape

if TYPE_CHECKING:
    from sfpo.plan.activations import Trace

OUTSIDE = {"context": 0.6e9, "NCCL": 1.0e9, "CUDA graphs": 1.0e9}
"""Bytes on each GPU that no tensor of the trainer accounts for: estimates until gpu-check has measured them on one (its line on
memory, "outside the allocator")."""
THROUGH_HEAD = 5
"""Floats a logit where the output layer is more than a product."""
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
        return sum(trained_of(part, self.train.lora) for part in (self.shape.root, *self.shape.layers))

    @property
    def weight_bytes(self) -> float:
        """Of all weights, adapters among them, over all ranks."""
        shape, lora = self.shape, self.train.lora
        if lora is None:
            return float(FLOAT * shape.parameters)
        frozen = sum(layer.linear_parameters + layer.expert_parameters for layer in shape.layers)
        return float(frozen * BYTES[self.train.policy_dtype] + FLOAT * (shape.parameters - frozen + self.trained))

    @property
    def trace(self) -> Trace:
        """What autograd keeps of the model's forward pass."""
        return self.shape.trace(self.train.policy_dtype, adapters=self.train.lora is not None)

    @property
    def in_groups(self) -> bool:
        """Rows are packed groups: the recipe says so, or every layer asks for attention by name, as ``auto`` requires."""
        if self.train.packing != "auto":
            return self.train.packing == "groups"
        return all(layer.attention for layer in self.trace.layers if layer.width)

    @property
    def offloaded(self) -> bool:
        """Weights and moments are in the host's memory, not on the device."""
        return self.execution.offload_to_host and self.device == "cuda" and self.ranks > 1


def filled(job: Job) -> Packed:
    """The micro-batch of full-length prompts and completions that fills ``micro_batch_tokens``, as far as a mini-batch's rows
    reach; in packed groups, its last completion as long as still fits. One completion with its prompt always fits."""
    train, prompt, longest = job.train, job.limits.max_prompt_tokens, job.limits.max_completion_tokens
    rows = max(1, train.mini_batch_prompts * train.completions_per_prompt // job.ranks)
    left = max(job.execution.micro_batch_tokens, prompt + longest)
    if not job.in_groups:
        taken = 1 if train.packing == "sequences" else min(rows, left // (prompt + longest))
        return Packed([(prompt, [longest])] * taken, is_whole=taken == rows)
    groups: list[tuple[int, list[int]]] = []
    while rows and left > prompt:
        left -= prompt
        completions: list[int] = []
        while rows and left and len(completions) < train.completions_per_prompt:
            completions.append(min(longest, left))
            left, rows = left - completions[-1], rows - 1
        groups.append((prompt, completions))
    return Packed(groups, is_whole=rows == 0)


def phases(job: Job, device_memory: float) -> dict[str, Parts]:
    """Phase -> what it takes on one device of ``device_memory`` bytes. A CPU's engine is awake while the policy trains."""
    engine = _engine(job, device_memory)
    if job.device == "cpu":
        return {phase: {**parts, **engine} for phase, parts in training(job).items()}
    graphs = _outside(job, "CUDA graphs")  # of an engine that is awake: in its own share
    awake = {**_held(job), "outside torch": _outside(job) - graphs}
    del awake["snapshot"]
    return {**training(job), "generation": awake | engine}


def trained_of(part: Part, lora: Lora | None) -> int:
    """Number of a part's weights that are trained: all, or its adapters'."""
    return part.adapter_parameters(lora.rank, lora.matrices) if lora else part.parameters


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
    shape, train, ranks, trace = job.shape, job.train, job.ranks, job.trace
    packed = filled(job)
    dtype, lora, size, tokens = train.policy_dtype, train.lora, BYTES[train.policy_dtype], packed.tokens
    held, width = _held(job), trace.outside.width
    sharded = 0.0 if job.offloaded else FLOAT * job.trained / ranks
    before = 0.0 if packed.is_whole else sharded  # gradients of the micro-batches before
    head = 0 if lora else FLOAT * shape.head_parameters  # of a frozen one there is no gradient
    embedding = 0 if lora else FLOAT * shape.embedding_parameters
    pending = head if shape.tied else 0  # the output layer's gradient waits for the input's

    # Layers of one kind keep the same.
    kinds = Counter(zip(trace.layers, shape.layers, strict=True))
    kept = {kind: kept_by(*kind, packed, dtype, lora) for kind in kinds}
    outside = kept_by(trace.outside, shape.root, packed, dtype, lora) + packed.completion_entries  # and the masks, as they are
    largest = max(kept.values(), default=0.0)
    if job.execution.gradient_checkpointing:
        all_layers = float(sum(layer.width for layer in trace.layers) * tokens * FLOAT)
        in_forward = in_backward = largest
    else:
        all_layers, in_forward, in_backward = sum(kept[kind] * count for kind, count in kinds.items()), 0.0, 0.0
    if lora:  # peft merges experts in every forward pass; measured, they stay with checkpointing too
        all_layers += size * sum(layer.expert_parameters for layer in shape.layers)
    copies = _copies(job)
    predictions = packed.completion_tokens
    return {
        "forward": {
            **held,
            "gradients": before,
            "compute copies": copies["forward"],
            "activations": all_layers + in_forward + outside,
        },
        "log-probs": {
            **held,
            "gradients": before + head,
            "compute copies": copies["log-probs"],
            "activations": all_layers + outside + predictions * width * size,
            "log-prob chunks": _slices(job, predictions) + predictions * width * (FLOAT + size),
        },
        "backward": {
            **held,
            "gradients": before + pending + copies["layer gradients"],
            "compute copies": copies["backward"],
            "activations": all_layers + in_backward + outside + tokens * _in_backward(job),
        },
        "embeddings": {
            **held,
            "gradients": sharded + pending + embedding + copies["root gradients"],
            "compute copies": copies["root"],
        },
    }


def _in_backward(job: Job) -> float:
    """Bytes of a token's gradients inside of a layer, of the layer with most: of a multilayer perceptron's up and gate (over
    all experts that it is sent to), each as wide as what the way down takes, and of the layer's input."""
    most = 0.0
    for kept, layer in zip(job.trace.layers, job.shape.layers, strict=True):
        down = max((one.inputs for one in layer.matrices if one.experts is None), default=0)
        of_experts = max((min(one.inputs, one.outputs) for one in layer.matrices if one.experts), default=0)
        inner = max(down, kept.active_experts * of_experts)
        most = max(most, 2.0 * inner * BYTES[job.train.policy_dtype] + kept.width * FLOAT)
    return most


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
    trained = [trained_of(layer, train.lora) for layer in shape.layers]
    if job.ranks > 1:
        root = float(FLOAT * shape.root.parameters)
        adapters = trained if train.lora else [0] * len(trained)
        layer = max((one.parameters + more for one, more in zip(shape.layers, adapters, strict=True)), default=0)
        two_layers = root + 2 * layer * size
        in_layers = {"forward": two_layers, "log-probs": root, "backward": two_layers}
        of_root = FLOAT * trained_of(shape.root, train.lora)
        gradients = max(trained, default=0) * (size + FLOAT)
        return {**in_layers, "root": root, "layer gradients": gradients, "root gradients": of_root}
    if train.policy_dtype == "float32":
        return {"forward": 0.0, "log-probs": 0.0, "backward": 0.0, **nothing}
    of_layers = [size * copied for copied in (trained if train.lora else [layer.linear_parameters for layer in shape.layers])]
    every = float(sum(of_layers))
    if job.execution.gradient_checkpointing:
        return {"forward": every, "log-probs": 0.0, "backward": float(max(of_layers, default=0)), **nothing}
    return {"forward": every, "log-probs": every, "backward": every, **nothing}


def _slices(job: Job, predictions: int) -> float:
    """Bytes of the logits of one slice (sfpo.algorithms.logprobs).

    Of the vocabulary, where the output layer is a product: float32 of this slice and of the one before, with the entropy once
    more; and in bfloat16, as the product makes them, of both. Otherwise of positions, with the entropy always: what autograd
    keeps of a slice's logits, scaled, as log-probs, as probabilities, and two gradients.
    """
    at_once, vocabulary = LOGITS_AT_ONCE[job.device], job.shape.vocab_size
    if not job.trace.is_product:
        return min(predictions, max(1, 8 * at_once // vocabulary)) * vocabulary * THROUGH_HEAD * FLOAT
    columns = min(vocabulary, max(1, at_once // predictions))
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
    heads = [one for part in (job.trace.outside, *job.trace.layers) for one in part.attention]
    widths = [max(1.0, one.key_heads / job.execution.engine.tensor_parallel) * (one.key_dim + one.value_dim) for one in heads]
    return tokens * sum(widths) * BYTES[job.sampler.dtype]


def total(parts: Parts) -> float:
    return sum(parts.values())
