"""Does a run fit, and on how many GPUs? ``python -m sfpo.plan runs/<suite>/<model>/<dataset>/<arm>/seed<k>/settings.json``.

Prints what the run takes on each device, by part and by moment (sfpo.trainer.memory), for the smallest number of devices that
fits; ``python -m sfpo.plan --suite paper`` does so for every model of a suite, in one table. Training asks the same question
before it loads anything (``require_room``). GB are 10^9 bytes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.config import load_params
from sfpo.jobs import resolve
from sfpo.models.shapes import Shape, shape_of_checkpoint, shape_of_model
from sfpo.schema import ConfigError
from sfpo.settings import ModelSettings, RunSettings, load_settings
from sfpo.trainer.memory import FLOAT, PARTS, Job, Parts, engine_weights, moments, one_sequence, total, training

log = logging.getLogger(__name__)

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
    rule, train = make_update_rule(settings.arm.rule, **settings.arm.rule_settings), settings.train
    snapshots = rule.weight_copies(on_gpu=device.kind == "cuda")
    return Job(
        shape=shape,
        train=train,
        limits=settings.limits,
        engine=settings.engine,
        snapshots=snapshots,
        device=device.kind,
        movable_snapshots=int(snapshots > 0 and getattr(rule, "snapshot_on_host", None) is False),
        ranks=ranks,
        entropy_in_update=settings.objective.entropy_coefficient > 0 or train.mini_batch_prompts == train.prompts_per_step,
    )


def largest(job: Job, device: Device) -> tuple[str, Parts]:
    """The moment that takes most, and its parts."""
    return max(moments(job, device.memory).items(), key=lambda one: total(one[1]))


def fits(job: Job, device: Device) -> bool:
    """Whether every moment fits even if it takes more than planned, as far as the plan may be off."""
    return _engine_starts(job, device) and all(
        _trainer(parts) / (1 - ACCURACY) + _engine(parts) <= device.memory for parts in moments(job, device.memory).values()
    )


def cannot_fit(job: Job, device: Device) -> bool:
    """Whether some moment does not fit even if it takes less than planned, as far as the plan may be off.

    On a CPU only what every run takes counts, however short its completions are: weights, gradients, two moments, snapshot, and
    the engine's weights. (What of its KV cache is never written takes no memory.)
    """
    if job.device == "cpu":
        held = (job.weight_bytes + (3 + job.snapshots) * FLOAT * job.trained) / job.ranks
        return held / (1 + ACCURACY) + engine_weights(job) > device.memory
    return not _engine_starts(job, device) or any(
        _trainer(parts) / (1 + ACCURACY) + _engine(parts) > device.memory for parts in moments(job, device.memory).values()
    )


def _engine_starts(job: Job, device: Device) -> bool:
    """vLLM refuses a share that does not hold its weights and one sequence of full length."""
    share = device.memory * job.engine.gpu_memory_utilization
    return job.device == "cpu" or engine_weights(job) + one_sequence(job) <= share


def _engine(parts: Parts) -> float:
    return parts.get("engine weights", 0.0) + parts.get("KV cache", 0.0)


def _trainer(parts: Parts) -> float:
    return total(parts) - _engine(parts)


def smallest(job: Job, device: Device) -> int | None:
    """The smallest number of devices, whole engines of them, on which the job fits; None: not on MOST_RANKS either."""
    step = job.engine.tensor_parallel
    fewest = max(step, 2 if job.train.offload_to_host else 1)  # shards alone can be offloaded
    return next((ranks for ranks in range(fewest, MOST_RANKS + 1, step) if fits(replace(job, ranks=ranks), device)), None)


def enough(job: Job) -> float:
    """Bytes of a device on which the job fits."""
    peak = max(map(total, training(job).values())) / (1 - ACCURACY)
    if job.device == "cpu":
        return peak + engine_weights(job) + job.engine.kv_cache_gib * 2**30
    share = job.engine.gpu_memory_utilization
    awake = _trainer(moments(job, 0.0)["generation"]) / (1 - ACCURACY)
    beside_the_engine = awake / (1 - share) if share < 1 else float("inf")
    return max(peak, beside_the_engine, (engine_weights(job) + one_sequence(job)) / share)


def remedies(job: Job, device: Device) -> list[str]:
    """Changes, each of which makes the job fit by itself; where none does, all of them with the GPUs that they still take."""
    changes = [_checkpointing, _fewer_tokens]
    if device.kind == "cuda":
        changes += [_snapshot_on_host, _other_engine_share, _more_gpus]
    single = [change(job, device) for change in changes]
    together = reduce(lambda so_far, change: change(so_far, device), changes, job)
    fitting = [changed for changed in single if fits(changed, device)] or [together] * fits(together, device)
    return [_told(job, changed) for changed in fitting]


def _checkpointing(job: Job, device: Device) -> Job:
    return replace(job, train=job.train.model_copy(update={"gradient_checkpointing": True}))


def _fewer_tokens(job: Job, device: Device) -> Job:
    """As many as fit, and no fewer than one sequence."""

    def with_tokens(tokens: int) -> Job:
        return replace(job, train=job.train.model_copy(update={"micro_batch_tokens": tokens}))

    most = job.train.micro_batch_tokens
    fewest = min(most, job.limits.max_prompt_tokens + job.limits.max_completion_tokens)
    known = bisect_left(range(fewest, most), True, key=lambda tokens: not fits(with_tokens(tokens), device))
    return with_tokens(max(fewest, fewest + known - 1))


def _snapshot_on_host(job: Job, device: Device) -> Job:
    return replace(job, snapshots=job.snapshots - job.movable_snapshots, movable_snapshots=0)


def _other_engine_share(job: Job, device: Device) -> Job:
    """The largest share, in twentieths, with which the job fits."""
    shares = [twentieths / 20 for twentieths in range(19, 0, -1)]
    others = [replace(job, engine=job.engine.model_copy(update={"gpu_memory_utilization": share})) for share in shares]
    return next((one for one in others if fits(one, device)), job)


def _more_gpus(job: Job, device: Device) -> Job:
    return replace(job, ranks=smallest(job, device) or job.ranks)


def _told(job: Job, changed: Job) -> str:
    """What is different, as settings."""
    told = []
    if changed.train.gradient_checkpointing != job.train.gradient_checkpointing:
        told.append("train.gradient_checkpointing: true")
    if changed.train.micro_batch_tokens != job.train.micro_batch_tokens:
        told.append(f"train.micro_batch_tokens: {changed.train.micro_batch_tokens}")
    if changed.snapshots != job.snapshots:
        told.append("snapshot_on_host: true of the rule")
    if changed.engine != job.engine:
        told.append(f"engine.gpu_memory_utilization: {changed.engine.gpu_memory_utilization:g}")
    if changed.ranks != job.ranks:
        told.append(f"{changed.ranks} GPUs")
    return ", ".join(told)


def require_room(settings: RunSettings, device: Device | None = None) -> None:
    """Stop a run that cannot fit, before it loads anything. What may fit is let through, and so is a model that cannot be
    planned for.

    Args:
        device: that of each rank; None: the one at hand.

    Raises:
        ConfigError: names what is needed, by part, and what would fit.
    """
    device = device or _device_at_hand()
    ranks = int(os.environ.get("WORLD_SIZE", 1))  # of torchrun
    try:
        job = job_of(settings, shape_of_checkpoint(settings.model_path), device, ranks)
    except ConfigError as error:
        log.info("memory is not planned: %s", error)
        return
    if cannot_fit(job, device):
        raise ConfigError(f"{settings.run.path}: {refusal(job, device)}")


def refusal(job: Job, device: Device) -> str:
    """Why the job does not fit, by part, and what would."""
    moment, parts = largest(job, device)
    train, kind, kinds = job.train, *{"cpu": ("process", "processes"), "cuda": ("GPU", "GPUs")}[device.kind]
    checkpointing = str(train.gradient_checkpointing).lower()
    of_settings = f"train.micro_batch_tokens = {train.micro_batch_tokens}, train.gradient_checkpointing = {checkpointing}"
    needs = f"each {kind} needs {total(parts) / GB:.3g} GB at its largest moment ({moment}) and has {device.memory / GB:.3g} GB"
    lines = [
        f"{of_settings}, {kinds} {job.ranks}: {needs}",
        f"needed, in GB: {', '.join(f'{part} {parts[part] / GB:.3g}' for part in PARTS if parts.get(part))}",
    ]
    if not _engine_starts(job, device):
        least = engine_weights(job) + one_sequence(job)
        share = f"engine.gpu_memory_utilization = {job.engine.gpu_memory_utilization:g}"
        lines.append(f"{share}: the engine's weights and one sequence of full length take {least / GB:.3g} GB")
    found = remedies(job, device) or [f"{kinds} with {enough(job) / GB:.3g} GB each"]
    return "\n  ".join([*lines, f"would fit: {'; or '.join(found)}"])


def _device_at_hand() -> Device:
    import torch

    if torch.cuda.is_available():
        return Device("cuda", torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", 0))).total_memory)
    return Device("cpu", _host_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _host_memory() -> float:
    """Bytes that processes can still get, swap included; without end where Linux does not tell."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return float("inf")
    fields = dict(line.split(":") for line in path.read_text().splitlines())
    return 1024.0 * sum(int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree"))


# ---------------------------------------------------------------------------------------------- the command


def shape_of_run(settings: RunSettings) -> Shape:
    """From the prepared checkpoint; before there is one, from what the model's own settings file says.

    Raises:
        ConfigError: neither tells.
    """
    of_model = Path(settings.model_path).parent / "settings.json"
    if (Path(settings.model_path) / "config.json").is_file() or not of_model.is_file():
        return shape_of_checkpoint(settings.model_path)
    return shape_of_model(load_settings(ModelSettings, of_model).model)


def run_table(job: Job, device: Device) -> str:
    """Every part (rows) at every moment (columns), in GB, on each device."""
    of_moments = moments(job, device.memory)
    lines = [f"| GB | {' | '.join(of_moments)} |", "|:--|" + "--:|" * len(of_moments)]
    for part in PARTS:
        sizes = [parts.get(part, 0.0) for parts in of_moments.values()]
        if any(sizes):
            lines.append(f"| {part} | {' | '.join(f'{size / GB:.3g}' if size else '' for size in sizes)} |")
    lines.append(f"| **all** | {' | '.join(f'**{total(parts) / GB:.3g}**' for parts in of_moments.values())} |")
    return "\n".join(lines)


def suite_table(runs: Iterable[tuple[RunSettings, Shape]], device: Device) -> str:
    """A row for each model and each plan that differs, in GB: the largest moment on one device, the smallest number of devices,
    and on each of these every part at its largest, the largest moment of training, and generation.

    Runs of one plan are one row, under the first one's data set and arm.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    for settings, shape in runs:
        job = job_of(settings, shape, device)
        rows.setdefault((settings.run.model, _row(job, device)), []).append(f"{settings.run.dataset}/{settings.run.arm}")
    trained, generated = PARTS[:-2], PARTS[-2:]
    head = ["model", "runs", "on one GPU", "fits on", *trained, "training", *generated, "generation"]
    lines = [f"| {' | '.join(head)} |", f"|:--|:--|{'--:|' * (len(head) - 2)}"]
    models = [model for model, _ in rows]
    for (model, row), names in sorted(rows.items(), key=lambda one: models.index(one[0][0])):
        lines.append(f"| {model} | {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''} | {row} |")
    return "\n".join(lines)


def _row(job: Job, device: Device) -> str:
    ranks = smallest(job, device)
    of_moments = moments(replace(job, ranks=ranks or MOST_RANKS), device.memory)
    each = [max(parts.get(part, 0.0) for parts in of_moments.values()) for part in PARTS]
    generation = total(of_moments.pop("generation"))
    sizes = [*each[:-2], max(map(total, of_moments.values())), *each[-2:], generation]
    cells = [f"{total(largest(job, device)[1]) / GB:.1f}", str(ranks or f"over {MOST_RANKS}")]
    return " | ".join([*cells, *(f"{size / GB:.1f}" if size else "" for size in sizes)])


def device_of(word: str) -> Device:
    """A type of GPU, GB of a GPU, or cpu.

    Raises:
        ConfigError: it is none of these.
    """
    if word == "cpu":
        return Device("cpu", _host_memory())
    try:
        return Device("cuda", GB * float(DEVICES.get(word, word)))
    except ValueError:
        raise ConfigError(f"--device {word}: allowed are cpu, GB of a GPU, {', '.join(sorted(DEVICES))}") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, nargs="?", help="settings.json of a run")
    parser.add_argument("--suite", help="all runs of this suite of params.yaml, in one table")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--device", default="a100-80gb", help="type of GPU, GB of a GPU, or cpu (default: a100-80gb)")
    parser.add_argument("--gpus", type=int, help="plan for so many (default: the smallest number that fits)")
    parser.add_argument("--config", type=Path, help="folder with the model's config.json, where it is not prepared yet")
    arguments = parser.parse_args(argv)
    if (arguments.settings is None) == (arguments.suite is None):
        parser.error("name the settings.json of a run, or a suite")
    try:
        device = device_of(arguments.device)
        print(_of_suite(arguments, device) if arguments.suite else _of_run(arguments, device))
    except ConfigError as error:
        sys.exit(str(error))


def _of_suite(arguments: argparse.Namespace, device: Device) -> str:
    if device.kind == "cpu":
        raise ConfigError("--device cpu: a suite is planned for on GPUs; for a CPU name one run's settings.json")
    params = load_params(arguments.params, arguments.suite)
    runs = [one for one in resolve(params).values() if isinstance(one, RunSettings)]
    shapes = {name: shape_of_model(params.models[name]) for name in {one.run.model for one in runs}}
    return suite_table([(one, shapes[one.run.model]) for one in runs], device)


def _of_run(arguments: argparse.Namespace, device: Device) -> str:
    settings = load_settings(RunSettings, arguments.settings)
    shape = shape_of_checkpoint(arguments.config) if arguments.config else shape_of_run(settings)
    job = job_of(settings, shape, device)
    ranks = arguments.gpus or (smallest(job, device) if device.kind == "cuda" else 1) or 1
    planned = replace(job, ranks=ranks)
    verdict = "fits" if fits(planned, device) else f"is not sure to fit\n{refusal(planned, device)}"
    where = f"{ranks} x {device.memory / GB:.0f} GB" if device.kind == "cuda" else f"a CPU with {device.memory / GB:.1f} GB"
    return f"{settings.run.path}, {shape.parameters / 1e6:.1f}M weights, on {where}: {verdict}\n\n{run_table(planned, device)}"


if __name__ == "__main__":
    main()
