"""The error for a job that does not fit in memory: the reason, and which changes of its settings would make it fit."""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from dataclasses import replace
from functools import reduce

from sfpo.plan.memory import PARTS, Job, engine_weights, one_sequence, total
from sfpo.plan.room import (
    GB,
    Device,
    cannot_fit,
    device_at_hand,
    engine_starts,
    fits,
    job_of,
    largest,
    min_device_bytes,
    min_gpus,
)
from sfpo.plan.shapes import shape_of_checkpoint
from sfpo.schema import ConfigError
from sfpo.settings import RunSettings

log = logging.getLogger(__name__)


def require_room(settings: RunSettings, device: Device | None = None) -> None:
    """Stop a run that certainly does not fit, before it loads anything. Runs that may fit are allowed, and so are models that
    the planner does not support.

    Args:
        device: each rank's device; None: this machine's.

    Raises:
        ConfigError: with the memory needed by component, and settings that would fit.
    """
    device = device or device_at_hand()
    ranks = int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun
    try:
        job = job_of(settings, shape_of_checkpoint(settings.model_path), device, ranks)
    except ConfigError as error:
        log.info("memory is not checked before the start: %s", error)
        return
    if cannot_fit(job, device):
        raise ConfigError(f"{settings.run.path}: {refusal(job, device)}")


def refusal(job: Job, device: Device) -> str:
    """Error text: why the job does not fit, the memory by component, and settings that would fit."""
    phase, parts = largest(job, device)
    execution, kind, kinds = job.execution, *{"cpu": ("process", "processes"), "cuda": ("GPU", "GPUs")}[device.kind]
    checkpointing = str(execution.gradient_checkpointing).lower()
    of_settings = f"execution.micro_batch_tokens = {execution.micro_batch_tokens}, gradient_checkpointing = {checkpointing}"
    needs = f"each {kind} needs {total(parts) / GB:.3g} GB in its largest phase ({phase}) and has {device.memory / GB:.3g} GB"
    lines = [
        f"{of_settings}, {kinds} {job.ranks}: {needs}",
        f"needed, in GB: {', '.join(f'{part} {parts[part] / GB:.3g}' for part in PARTS if parts.get(part))}",
    ]
    if not engine_starts(job, device):
        least = engine_weights(job) + one_sequence(job)
        share = f"execution.engine.gpu_memory_utilization = {job.execution.engine.gpu_memory_utilization:g}"
        lines.append(f"{share}: the engine's weights and one sequence of full length need {least / GB:.3g} GB")
    found = remedies(job, device) or [f"{kinds} with {min_device_bytes(job) / GB:.3g} GB each"]
    return "\n  ".join([*lines, f"would fit: {'; or '.join(found)}"])


def remedies(job: Job, device: Device) -> list[str]:
    """Changes that each make the job fit; if none does, all of them combined with the number of GPUs still needed."""
    changes = [_checkpointing, _fewer_tokens]
    if device.kind == "cuda":
        changes += [_snapshot_on_host, _other_engine_share, _more_gpus]
    single = [change(job, device) for change in changes]
    together = reduce(lambda so_far, change: change(so_far, device), changes, job)
    fitting = [changed for changed in single if fits(changed, device)] or [together] * fits(together, device)
    return [describe_changes(job, changed) for changed in fitting]


def _checkpointing(job: Job, device: Device) -> Job:
    return replace(job, execution=job.execution.model_copy(update={"gradient_checkpointing": True}))


def _fewer_tokens(job: Job, device: Device) -> Job:
    """The largest micro_batch_tokens that fits, at least one sequence."""

    def with_tokens(tokens: int) -> Job:
        return replace(job, execution=job.execution.model_copy(update={"micro_batch_tokens": tokens}))

    most = job.execution.micro_batch_tokens
    fewest = min(most, job.limits.max_prompt_tokens + job.limits.max_completion_tokens)
    known = bisect_left(range(fewest, most), True, key=lambda tokens: not fits(with_tokens(tokens), device))
    return with_tokens(max(fewest, fewest + known - 1))


def _snapshot_on_host(job: Job, device: Device) -> Job:
    return replace(job, snapshots=job.snapshots - job.movable_snapshots, movable_snapshots=0)


def _other_engine_share(job: Job, device: Device) -> Job:
    """The largest gpu_memory_utilization, in steps of 0.05, with which the job fits."""
    shares = [twentieths / 20 for twentieths in range(19, 0, -1)]
    others = [_with_share(job, share) for share in shares]
    return next((one for one in others if fits(one, device)), job)


def _with_share(job: Job, share: float) -> Job:
    engine = job.execution.engine.model_copy(update={"gpu_memory_utilization": share})
    return replace(job, execution=job.execution.model_copy(update={"engine": engine}))


def _more_gpus(job: Job, device: Device) -> Job:
    return replace(job, ranks=min_gpus(job, device) or job.ranks)


def describe_changes(job: Job, changed: Job) -> str:
    """The settings that differ, as text."""
    told = []
    if changed.execution.gradient_checkpointing != job.execution.gradient_checkpointing:
        told.append("execution.gradient_checkpointing: true")
    if changed.execution.micro_batch_tokens != job.execution.micro_batch_tokens:
        told.append(f"execution.micro_batch_tokens: {changed.execution.micro_batch_tokens}")
    if changed.snapshots != job.snapshots:
        told.append("execution.snapshot_on_host: true")
    if changed.execution.engine != job.execution.engine:
        told.append(f"execution.engine.gpu_memory_utilization: {changed.execution.engine.gpu_memory_utilization:g}")
    if changed.ranks != job.ranks:
        told.append(f"{changed.ranks} GPUs")
    return ", ".join(told)
