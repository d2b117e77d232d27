"""Does a job fit on its devices, and on how many would it?"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.plan.kept import FLOAT
from sfpo.plan.memory import Job, Parts, engine_weights, one_sequence, phases, total, training
from sfpo.plan.shapes import Shape
from sfpo.settings import RunSettings

GB = 10**9
DEVICES = {"l40s": 48, "a100-40gb": 40, "a100-80gb": 80, "h100": 80, "h200": 141}
"""GB, by NVIDIA's data sheets."""
ACCURACY = 0.15
"""Plan over measured peak lies within 1 - this and 1 + this (benchmarks/planner.py, docs/performance.md)."""
MOST_RANKS = 64
"""No more are tried."""


@dataclass(frozen=True)
class Device:
    """One of the alike devices of a job, a rank on each."""

    kind: Literal["cpu", "cuda"]
    memory: float
    """Bytes."""


def job_of(settings: RunSettings, shape: Shape, device: Device, ranks: int = 1) -> Job:
    """What the memory of this run depends on."""
    recipe, execution = settings.recipe, settings.execution
    rule = make_update_rule(recipe.rule.name, execution.model_dump(), **recipe.rule.settings)
    snapshots = rule.weight_copies(on_gpu=device.kind == "cuda")
    return Job(
        shape=shape,
        train=recipe.train,
        execution=execution,
        sampler=recipe.sampler,
        limits=recipe.limits,
        snapshots=snapshots,
        device=device.kind,
        movable_snapshots=int(snapshots > 0 and getattr(rule, "snapshot_on_host", None) is False),
        ranks=ranks,
        entropy_in_update=recipe.objective.entropy_coefficient > 0
        or recipe.train.mini_batch_prompts == recipe.train.prompts_per_step,
    )


def largest(job: Job, device: Device) -> tuple[str, Parts]:
    """The phase that takes most, and its parts."""
    return max(phases(job, device.memory).items(), key=lambda one: total(one[1]))


def fits(job: Job, device: Device) -> bool:
    """Whether every phase fits even if it takes more than planned, as far as the plan may be off."""
    return engine_starts(job, device) and all(
        trainer_bytes(parts) / (1 - ACCURACY) + engine_bytes(parts) <= device.memory
        for parts in phases(job, device.memory).values()
    )


def cannot_fit(job: Job, device: Device) -> bool:
    """Whether some phase does not fit even if it takes less than planned, as far as the plan may be off.

    On a CPU only what every run takes counts, however short its completions are: weights, gradients, two moments, snapshot, and
    the engine's weights. (What of its KV cache is never written takes no memory.)
    """
    if job.device == "cpu":
        held = (job.weight_bytes + (3 + job.snapshots) * FLOAT * job.trained) / job.ranks
        return held / (1 + ACCURACY) + engine_weights(job) > device.memory
    return not engine_starts(job, device) or any(
        trainer_bytes(parts) / (1 + ACCURACY) + engine_bytes(parts) > device.memory
        for parts in phases(job, device.memory).values()
    )


def engine_starts(job: Job, device: Device) -> bool:
    """vLLM refuses a share that does not hold its weights and one sequence of full length."""
    share = device.memory * job.execution.engine.gpu_memory_utilization
    return job.device == "cpu" or engine_weights(job) + one_sequence(job) <= share


def engine_bytes(parts: Parts) -> float:
    return parts.get("engine weights", 0.0) + parts.get("KV cache", 0.0)


def trainer_bytes(parts: Parts) -> float:
    return total(parts) - engine_bytes(parts)


def min_gpus(job: Job, device: Device) -> int | None:
    """The smallest number of devices, whole engines of them, on which the job fits; None: not on MOST_RANKS either."""
    step = job.execution.engine.tensor_parallel
    fewest = max(step, 2 if job.execution.offload_to_host else 1)  # shards alone can be offloaded
    return next((ranks for ranks in range(fewest, MOST_RANKS + 1, step) if fits(replace(job, ranks=ranks), device)), None)


def min_device_bytes(job: Job) -> float:
    """Bytes of a device on which the job fits."""
    peak = max(map(total, training(job).values())) / (1 - ACCURACY)
    if job.device == "cpu":
        return peak + engine_weights(job) + job.execution.engine.kv_cache_gib * 2**30
    share = job.execution.engine.gpu_memory_utilization
    awake = trainer_bytes(phases(job, 0.0)["generation"]) / (1 - ACCURACY)
    beside_the_engine = awake / (1 - share) if share < 1 else float("inf")
    return max(peak, beside_the_engine, (engine_weights(job) + one_sequence(job)) / share)


def device_at_hand() -> Device:
    import torch

    if torch.cuda.is_available():
        return Device("cuda", torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", 0))).total_memory)
    return Device("cpu", host_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def host_memory() -> float:
    """Bytes that processes can still get, swap included; without end where Linux does not tell."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return float("inf")
    fields = dict(line.split(":") for line in path.read_text().splitlines())
    return 1024.0 * sum(int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
