"""How a job is computed: memory, speed, processes and saves. Nothing in here decides a result (beyond rounding)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfpo.config.names import Count, Whole
from sfpo.schema import Schema


class Engine(Schema):
    """Memory and speed of the rollout engine."""

    max_sequences: Count = 256
    """Number of sequences that the engine decodes at once."""
    kv_cache_gib: Annotated[float, Field(gt=0)] = 1.0
    """Size of the KV cache in GiB on a CPU. A GPU uses what gpu_memory_utilization leaves."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the GPU's memory that the engine may use while it is awake."""
    enforce_eager: bool = False
    """True: no compilation, so a faster start and slower decoding."""
    tensor_parallel: Count = 1
    """Number of neighbouring processes that hold one engine together, for a model that does not fit on one device; the number
    of processes of a training job must be a multiple of it."""


class JobResources(Schema):
    """Requested for one job that is not a training job."""

    threads: Count
    mem_mb: Count
    runtime: Count
    """Minutes."""


class Resources(Schema):
    """What the workflow requests for each job."""

    threads: Count = 1
    """Cores of a training job, divided among its processes."""
    gpu: Whole | Literal["auto"] = "auto"
    """GPUs of a training job, one for each process; an evaluation takes ``engine.tensor_parallel`` of them. auto: one where the
    machine has one that the jobs can wait for, else none. With 0 jobs do not see a GPU."""
    processes: Count | None = None
    """Processes of a training job; they share the weights, the rollouts and each batch. None: one for each GPU, or one."""
    tasks: Count = 1
    """Slurm tasks of a training job, each of which starts its share of the processes: one for each node."""
    mem_mb: Count = 4000
    """Host memory of a training job in MB."""
    runtime: Count = 60
    """Time limit of a training job in minutes."""
    evaluation: JobResources | None = None
    """None: the share of a training job's threads and memory that ``engine.tensor_parallel`` of its processes have, and its
    time limit."""
    preparation: JobResources | None = None
    """Of a data set, benchmark or model. None: the threads and memory of one process of a training job, two hours."""
    retries: Whole = 2
    """Number of times that a failed training job is started again; it continues from its last saved state."""

    @property
    def ranks(self) -> int:
        """Processes of a training job."""
        return self.processes or max(1, self.requested_gpus)

    @property
    def requested_gpus(self) -> int:
        """GPUs to ask a cluster for: with auto none."""
        return 0 if self.gpu == "auto" else self.gpu

    def share(self, processes: int, runtime: int) -> JobResources:
        """The part of a training job's resources that so many of its processes have."""
        processes = min(processes, self.ranks)
        threads, mem_mb = (max(1, whole * processes // self.ranks) for whole in (self.threads, self.mem_mb))
        return JobResources(threads=threads, mem_mb=mem_mb, runtime=runtime)

    @model_validator(mode="after")
    def _divided(self) -> Resources:
        if self.requested_gpus and self.ranks != self.gpu:
            raise ValueError(f"processes {self.processes} must be the number of GPUs, {self.gpu}: each process has one")
        if self.ranks % self.tasks:
            raise ValueError(f"tasks {self.tasks} must divide the number of processes, {self.ranks}")
        return self


PREPARATION_MINUTES = 120


class Execution(Schema):
    """How a suite's jobs are computed. A change here makes no result stale, and an unfinished run continues with it."""

    micro_batch_tokens: Count
    """Tokens in one forward and backward pass; a prompt is counted once for all its completions."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""
    offload_to_host: bool = False
    """For several processes on GPUs: weights, gradients and Adam's moments are kept in the host's memory, where AdamW runs too;
    the device holds the layers that are computing. (The snapshot of the update rule moves with them.)"""
    snapshot_on_host: bool = False
    """Keep the update rule's snapshot of the weights in the host's memory: nothing extra on the device, two transfers a
    step."""
    save_every: Count
    """Steps between two saves of the state from which a killed run continues."""
    keep_final_state: bool = True
    """Keep the state of a finished run, so that ``train.steps`` can be raised later: three times its weights in float32."""
    max_skipped_updates: Count = 8
    """A mini-batch whose loss or gradient is not finite is skipped and counted; this many in a row stop the run."""
    tensorboard: bool = True
    """Write every number of metrics.jsonl as a TensorBoard curve too."""
    engine: Engine = Engine()
    resources: Resources = Resources()

    @property
    def evaluation_gpu(self) -> int | Literal["auto"]:
        """GPUs of an evaluation, as ``resources.gpu``."""
        return min(self.resources.gpu, self.engine.tensor_parallel) if self.resources.requested_gpus else self.resources.gpu

    @property
    def evaluation(self) -> JobResources:
        """Resources of an evaluation."""
        resources = self.resources
        return resources.evaluation or resources.share(self.engine.tensor_parallel, resources.runtime)

    @property
    def preparation(self) -> JobResources:
        """Resources of the preparation of a data set, benchmark or model."""
        return self.resources.preparation or self.resources.share(1, PREPARATION_MINUTES)

    @model_validator(mode="after")
    def _engines_are_whole(self) -> Execution:
        together, ranks = self.engine.tensor_parallel, self.resources.ranks
        if ranks % together:
            raise ValueError(f"engine.tensor_parallel {together} must divide the number of processes, {ranks}")
        return self


ROUNDING = (
    "micro_batch_tokens",
    "offload_to_host",
    "engine.enforce_eager",
    "engine.max_sequences",
    "engine.tensor_parallel",
    "ranks",
)
"""Settings of Execution that may change how sums are rounded, and so the last bits of a result."""
