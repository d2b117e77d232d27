"""How a job is computed: memory, speed, processes and checkpoints. None of these settings changes a result, except by
rounding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfpo.config.names import Count, Whole
from sfpo.schema import Schema


class Engine(Schema):
    """Memory and speed of the rollout engine."""

    max_sequences: Count = 256
    """Largest number of sequences decoded concurrently."""
    kv_cache_gib: Annotated[float, Field(gt=0)] = 1.0
    """Size of the KV cache in GiB on a CPU. A GPU uses what gpu_memory_utilization leaves."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the GPU's memory that the engine may use while it is awake."""
    enforce_eager: bool = False
    """True: no compilation: faster start, slower decoding."""
    tensor_parallel: Count = 1
    """Number of processes that share one engine by tensor parallelism, for a model that does not fit on one device; must divide
    the number of processes of a training job."""

    def for_at_most(self, sequences: int) -> Engine:
        """These settings with ``max_sequences`` at most ``sequences``: on a GPU each sequence slot takes memory, used or
        not."""
        return self.model_copy(update={"max_sequences": min(self.max_sequences, sequences)})


class JobResources(Schema):
    """Resources of one job other than training."""

    threads: Count
    """CPU cores."""
    mem_mb: Count
    """Host memory in MB."""
    runtime: Count
    """Time limit in minutes."""


class Resources(Schema):
    """Resources that the workflow requests for each job."""

    threads: Count = 1
    """CPU cores of a training job, divided among its processes."""
    gpu: Whole | Literal["auto"] = "auto"
    """GPUs of a training job, one per process; an evaluation takes ``engine.tensor_parallel`` of them. auto: one if the machine
    has GPUs (jobs wait for a free one), else none. 0: GPUs are hidden from jobs."""
    processes: Count | None = None
    """Processes (ranks) of a training job, which share weights, rollouts and batches. None: one per GPU, or a single one."""
    tasks: Count = 1
    """Slurm tasks of a training job, one per node; each starts its share of the processes."""
    mem_mb: Count = 4000
    """Host memory of a training job in MB."""
    runtime: Count = 60
    """Time limit of a training job in minutes."""
    evaluation: JobResources | None = None
    """Resources of an evaluation. None: the threads and memory of ``engine.tensor_parallel`` processes of a training job, and
    the time limit of training."""
    preparation: JobResources | None = None
    """Resources of the preparation of a data set, benchmark or model. None: the threads and memory of one process of a training
    job, and two hours."""
    retries: Whole = 2
    """Number of times that a failed training job is restarted; it resumes from its last checkpoint."""

    @property
    def ranks(self) -> int:
        """Processes of a training job."""
        return self.processes or max(1, self.requested_gpus)

    @property
    def requested_gpus(self) -> int:
        """GPUs to request from a cluster: none with auto."""
        return 0 if self.gpu == "auto" else self.gpu

    def share(self, processes: int, runtime: int) -> JobResources:
        """The threads and memory of ``processes`` processes of a training job."""
        processes = min(processes, self.ranks)
        threads, mem_mb = (max(1, whole * processes // self.ranks) for whole in (self.threads, self.mem_mb))
        return JobResources(threads=threads, mem_mb=mem_mb, runtime=runtime)

    @model_validator(mode="after")
    def _divided(self) -> Resources:
        if self.requested_gpus and self.ranks != self.gpu:
            raise ValueError(f"processes {self.processes} must equal the number of GPUs, {self.gpu}: each process uses one")
        if self.ranks % self.tasks:
            raise ValueError(f"tasks {self.tasks} must divide the number of processes, {self.ranks}")
        return self


PREPARATION_MINUTES = 120


TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class Execution(Schema):
    """How a suite's jobs are computed. Changing these settings makes no result stale; an unfinished run continues with them."""

    micro_batch_tokens: Count
    """Tokens in one forward and backward pass; a prompt counts once for all its completions."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""
    offload_to_host: bool = False
    """For several processes on GPUs: keep weights, gradients and Adam's moments (and the snapshot) in host memory, and run
    AdamW there; the device holds only the layers that are being computed (FSDP2 CPU offloading)."""
    snapshot_on_host: bool = False
    """Keep the update rule's snapshot of the weights in host memory: no extra device memory, two transfers per step."""
    save_every: Count
    """Steps between two checkpoints from which an interrupted run resumes."""
    keep_final_state: bool = True
    """Keep the last checkpoint of a finished run (three times the size of its float32 weights), so that ``train.steps`` can be
    raised later."""
    max_skipped_updates: Count = 8
    """A mini-batch whose loss or gradient is not finite is skipped and counted; this many in a row stop the run with an
    error."""
    report_to: tuple[TrackerName, ...] = ("tensorboard",)
    """Experiment trackers to which all metrics of metrics.jsonl and validation.jsonl are logged. tensorboard writes to the
    run's folder; the others need an extra (``pip install 'sfpo[wandb]'``) and are configured by their own environment
    variables."""
    log_completions: Annotated[int, Field(ge=0)] = 2
    """Number of prompts per step, and per validation, whose completions are written to completions.jsonl. 0: none."""
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
"""Settings of Execution that can change the rounding of sums, and so the last bits of a result."""
