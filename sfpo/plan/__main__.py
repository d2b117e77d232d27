"""Memory planner: does a run fit, and on how many GPUs?

``python -m sfpo.plan runs/<suite>/<model>/<dataset>/<arm>/seed<k>/settings.json`` prints the run's memory on each device by
component and phase (sfpo/plan/memory.py), for the smallest number of devices on which it fits. ``python -m sfpo.plan --suite
paper`` prints a table of all models of a suite. Training performs the same check before it loads anything. GB are 10^9 bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sfpo.config import load_params
from sfpo.jobs import resolve
from sfpo.plan.memory import PARTS, Job, phases, total
from sfpo.plan.remedies import refusal
from sfpo.plan.room import DEVICES, GB, MOST_RANKS, Device, fits, host_memory, job_of, largest, min_gpus
from sfpo.plan.shapes import Shape, shape_of_checkpoint, shape_of_model
from sfpo.schema import ConfigError
from sfpo.settings import ModelSettings, RunSettings, load_settings


def shape_of_run(settings: RunSettings) -> Shape:
    """The model's shape, from the prepared checkpoint or, before it is prepared, from the model's source in its settings.

    Raises:
        ConfigError: neither has it.
    """
    of_model = Path(settings.model_path).parent / "settings.json"
    if (Path(settings.model_path) / "config.json").is_file() or not of_model.is_file():
        return shape_of_checkpoint(settings.model_path)
    return shape_of_model(load_settings(ModelSettings, of_model).model)


def run_table(job: Job, device: Device) -> str:
    """Memory per device in GB: components (rows) by phases (columns)."""
    of_phases = phases(job, device.memory)
    lines = [f"| GB | {' | '.join(of_phases)} |", "|:--|" + "--:|" * len(of_phases)]
    for part in PARTS:
        sizes = [parts.get(part, 0.0) for parts in of_phases.values()]
        if any(sizes):
            lines.append(f"| {part} | {' | '.join(f'{size / GB:.3g}' if size else '' for size in sizes)} |")
    lines.append(f"| **all** | {' | '.join(f'**{total(parts) / GB:.3g}**' for parts in of_phases.values())} |")
    return "\n".join(lines)


def suite_table(runs: Iterable[tuple[RunSettings, Shape]], device: Device) -> str:
    """One row per model and distinct plan, in GB: the peak on a single device, the smallest number of devices, and for that
    number the peak of each component, the largest training phase, and generation. The components' peaks do not coincide.

    Runs with the same plan share a row, labelled with the first one's data set and arm.
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
    ranks = min_gpus(job, device)
    of_phases = phases(replace(job, ranks=ranks or MOST_RANKS), device.memory)
    each = [max(parts.get(part, 0.0) for parts in of_phases.values()) for part in PARTS]
    generation = total(of_phases.pop("generation"))
    sizes = [*each[:-2], max(map(total, of_phases.values())), *each[-2:], generation]
    cells = [f"{total(largest(job, device)[1]) / GB:.1f}", str(ranks or f"over {MOST_RANKS}")]
    return " | ".join([*cells, *(f"{size / GB:.1f}" if size else "" for size in sizes)])


def device_of(word: str) -> Device:
    """Parse --device: a GPU type, a GPU's memory in GB, or cpu.

    Raises:
        ConfigError: it is none of these.
    """
    if word == "cpu":
        return Device("cpu", host_memory())
    try:
        return Device("cuda", GB * float(DEVICES.get(word, word)))
    except ValueError:
        raise ConfigError(f"--device {word}: allowed are cpu, a GPU's memory in GB, {', '.join(sorted(DEVICES))}") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, nargs="?", help="settings.json of a run")
    parser.add_argument("--suite", help="table of all runs of this suite of params.yaml")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--device", default="a100-80gb", help="GPU type, GPU memory in GB, or cpu (default: a100-80gb)")
    parser.add_argument("--gpus", type=int, help="number of GPUs (default: the smallest number that fits)")
    parser.add_argument("--config", type=Path, help="folder with the model's config.json, if the model is not prepared yet")
    arguments = parser.parse_args(argv)
    if (arguments.settings is None) == (arguments.suite is None):
        parser.error("give either the settings.json of a run or --suite")
    try:
        device = device_of(arguments.device)
        print(_of_suite(arguments, device) if arguments.suite else _of_run(arguments, device))
    except ConfigError as error:
        sys.exit(str(error))


def _of_suite(arguments: argparse.Namespace, device: Device) -> str:
    if device.kind == "cpu":
        raise ConfigError("--device cpu: --suite supports only GPUs; for a CPU, give the settings.json of one run")
    params = load_params(arguments.params, arguments.suite)
    runs = [one for one in resolve(params).values() if isinstance(one, RunSettings)]
    shapes = {name: shape_of_model(params.models[name]) for name in {one.run.model for one in runs}}
    return suite_table([(one, shapes[one.run.model]) for one in runs], device)


def _of_run(arguments: argparse.Namespace, device: Device) -> str:
    settings = load_settings(RunSettings, arguments.settings)
    shape = shape_of_checkpoint(arguments.config) if arguments.config else shape_of_run(settings)
    job = job_of(settings, shape, device)
    ranks = arguments.gpus or (min_gpus(job, device) if device.kind == "cuda" else 1) or 1
    planned = replace(job, ranks=ranks)
    verdict = "fits" if fits(planned, device) else f"may not fit\n{refusal(planned, device)}"
    where = f"{ranks} x {device.memory / GB:.0f} GB" if device.kind == "cuda" else f"a CPU with {device.memory / GB:.1f} GB"
    return f"{settings.run.path}, {shape.parameters / 1e6:.1f}M weights, on {where}: {verdict}\n\n{run_table(planned, device)}"


if __name__ == "__main__":
    main()
