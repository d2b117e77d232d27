"""Does a run fit, and on how many GPUs? ``python -m sfpo.plan runs/<suite>/<model>/<dataset>/<arm>/seed<k>/settings.json``.

Prints what the run takes on each device, by part and by phase (sfpo/plan/memory.py), for the smallest number of devices that
fits; ``python -m sfpo.plan --suite paper`` does so for every model of a suite, in one table. Training asks the same question
before it loads anything. GB are 10^9 bytes.
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
    """From the prepared checkpoint; before there is one, from what the model's own settings file says.

    Raises:
        ConfigError: neither tells.
    """
    of_model = Path(settings.model_path).parent / "settings.json"
    if (Path(settings.model_path) / "config.json").is_file() or not of_model.is_file():
        return shape_of_checkpoint(settings.model_path)
    return shape_of_model(load_settings(ModelSettings, of_model).model)


def run_table(job: Job, device: Device) -> str:
    """Every part (rows) at every phase (columns), in GB, on each device."""
    of_phases = phases(job, device.memory)
    lines = [f"| GB | {' | '.join(of_phases)} |", "|:--|" + "--:|" * len(of_phases)]
    for part in PARTS:
        sizes = [parts.get(part, 0.0) for parts in of_phases.values()]
        if any(sizes):
            lines.append(f"| {part} | {' | '.join(f'{size / GB:.3g}' if size else '' for size in sizes)} |")
    lines.append(f"| **all** | {' | '.join(f'**{total(parts) / GB:.3g}**' for parts in of_phases.values())} |")
    return "\n".join(lines)


def suite_table(runs: Iterable[tuple[RunSettings, Shape]], device: Device) -> str:
    """A row for each model and each plan that differs, in GB: the largest phase on one device, the smallest number of devices,
    and on each of these every part at its largest, the largest phase of training, and generation.

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
    ranks = min_gpus(job, device)
    of_phases = phases(replace(job, ranks=ranks or MOST_RANKS), device.memory)
    each = [max(parts.get(part, 0.0) for parts in of_phases.values()) for part in PARTS]
    generation = total(of_phases.pop("generation"))
    sizes = [*each[:-2], max(map(total, of_phases.values())), *each[-2:], generation]
    cells = [f"{total(largest(job, device)[1]) / GB:.1f}", str(ranks or f"over {MOST_RANKS}")]
    return " | ".join([*cells, *(f"{size / GB:.1f}" if size else "" for size in sizes)])


def device_of(word: str) -> Device:
    """A type of GPU, GB of a GPU, or cpu.

    Raises:
        ConfigError: it is none of these.
    """
    if word == "cpu":
        return Device("cpu", host_memory())
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
    ranks = arguments.gpus or (min_gpus(job, device) if device.kind == "cuda" else 1) or 1
    planned = replace(job, ranks=ranks)
    verdict = "fits" if fits(planned, device) else f"is not sure to fit\n{refusal(planned, device)}"
    where = f"{ranks} x {device.memory / GB:.0f} GB" if device.kind == "cuda" else f"a CPU with {device.memory / GB:.1f} GB"
    return f"{settings.run.path}, {shape.parameters / 1e6:.1f}M weights, on {where}: {verdict}\n\n{run_table(planned, device)}"


if __name__ == "__main__":
    main()
