"""A ten-minute check that training works correctly on this machine's GPU: ``python -m benchmarks.gpu_check`` (``make
gpu-check``).

It takes at most ten minutes on one CUDA GPU and no network, with a random model and generated problems. Each part is a process
with its own time limit; parts that are most likely to fail come first. If a part fails or hangs, the others still run, and its
measurements so far are kept. Without vLLM, transformers samples, and the checks that need vLLM are reported as left out. Writes
gpu_check.json, gpu_check.md (good, slow or wrong for each part, with a remedy) and a log for each part.

``--requirements`` lists the packages needed in addition to torch, without vLLM, to copy to a machine without network.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import FULL, QUICK, Size, library, prepare
from sfpo.manifest import write_json, write_text
from sfpo.preflight import Unfit, require_fit

log = logging.getLogger(__name__)

LIMITS = {"sharding": 90, "grpo": 105, "sfpo": 90, "attention": 35, "update": 105, "logprobs": 45, "memory": 70}
"""Part -> time limit in seconds on a GPU, in the order of execution. Together with the preparation they are under ten
minutes."""
CPU_PATIENCE = 6
"""Factor on the time limits on a CPU, where only correctness is checked (--quick)."""
IMPORTED = (
    *("transformers", "safetensors", "pydantic", "pyyaml", "numpy", "pandas", "pyarrow", "math-verify", "peft", "pebble"),
    *("xxhash", "huggingface-hub", "tqdm", "latex2sympy2-extended", "antlr4-python3-runtime"),
)
"""Distributions that the parts import, other than torch."""

GOOD, SLOW, WRONG, LEFT_OUT = "good", "slow", "**wrong**", "left out"


@dataclass(frozen=True)
class Verdict:
    """A row of the report."""

    what: str
    verdict: str
    figures: str
    remedy: str = ""


Lines = list[dict[str, Any]]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="smoke test with a tiny model")
    parser.add_argument("--part", choices=LIMITS, action="append", help="only this one (may be given several times)")
    parser.add_argument("--requirements", action="store_true", help="only list the required packages")
    arguments = parser.parse_args(argv)
    if arguments.requirements:
        print("\n".join(requirements()))
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        require_fit(library())
    except Unfit as fault:
        sys.exit(str(fault))
    found = check(QUICK if arguments.quick else FULL, arguments.part or list(LIMITS), arguments.out / "gpu_check")
    verdicts = judge(found)
    write_json(arguments.out / "gpu_check.json", found)
    write_text(arguments.out / "gpu_check.md", page(found, verdicts))
    print(page(found, verdicts))
    if any(verdict.verdict == WRONG for verdict in verdicts):
        sys.exit(1)


def requirements() -> list[str]:
    """name==version of ``IMPORTED`` and their dependencies, as installed here, without torch and its dependencies."""
    found: dict[str, str] = {}
    waiting = list(IMPORTED)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or name == "torch":
            continue
        try:
            one = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform or Python
        found[name] = one.version
        for line in one.requires or []:
            if "extra ==" not in line:
                waiting += re.findall(r"^[\w.-]+", line)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def check(size: Size, parts: list[str], logs: Path) -> dict[str, Any]:
    """Run the parts, one after another.

    Returns:
        machine, versions, library (vllm or transformers), minutes; for each part its status (0, an exit status, or "time
        limit"), seconds and lines.
    """
    from sfpo.provenance import hardware, versions

    started = time.perf_counter()
    found: dict[str, Any] = {"machine": hardware(), "versions": versions(), "library": library(), "quick": size is QUICK}
    found["parts"] = {}
    patience = 1 if found["machine"]["gpus"] else CPU_PATIENCE
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        prepare(size, Path(folder))
        for part in (part for part in LIMITS if part in parts):
            found["parts"][part] = one = run(part, Path(folder), size is QUICK, logs, LIMITS[part] * patience)
            log.info("%s: status %s, %.0f s", part, one["status"], one["seconds"])
    return {**found, "minutes": round((time.perf_counter() - started) / 60, 1)}


def run(part: str, folder: Path, quick: bool, logs: Path, limit: float) -> dict[str, Any]:
    """Run a part in its own process; at its time limit it is killed, with its child processes."""
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part, str(folder), *(["--quick"] if quick else [])]
    output, errors = logs / f"{part}.jsonl", logs / f"{part}.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    with output.open("w") as lines, errors.open("w") as stderr:
        process = subprocess.Popen(command, stdout=lines, stderr=stderr, env=environment, start_new_session=True)
        try:
            status: int | str = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = "time limit"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    facts = [json.loads(line) for line in output.read_text().splitlines() if line.startswith("{")]
    end = errors.read_text()[-2000:] if status else ""
    return {"status": status, "seconds": time.perf_counter() - started, "lines": facts, "error": end}


def judge(found: dict[str, Any]) -> list[Verdict]:
    """A verdict on each part, and on each part that failed. On a CPU nothing is called slow."""
    on_gpu = bool(found["machine"]["gpus"])
    verdicts: list[Verdict] = []
    for part, one in found["parts"].items():
        if one["lines"]:
            verdicts += JUDGES[part](one["lines"])
        if one["status"]:
            last = (one["error"].strip().splitlines() or ["no message"])[-1]
            verdicts.append(Verdict(part, WRONG, f"status {one['status']}: {last[:160]}", f"read gpu_check/{part}.log"))
    if {"grpo", "sfpo"} <= found["parts"].keys():
        verdicts += _cost_of_sfpo(found["parts"])
    if found["library"] != "vllm":
        verdicts.append(Verdict("vLLM: sleep, wake, memory, speed", LEFT_OUT, "vLLM is not installed", "install the lock"))
    if not on_gpu:
        verdicts = [v if v.verdict != SLOW else Verdict(v.what, GOOD, v.figures) for v in verdicts]
        verdicts.append(Verdict("everything specific to GPUs", LEFT_OUT, "there is no CUDA GPU: these figures are from a CPU"))
    return verdicts


def _sharding(lines: Lines) -> list[Verdict]:
    verdicts = [
        Verdict(
            f"FSDP2 on {one['ranks']} ranks",
            WRONG,
            one["error"].strip().splitlines()[-1][:160],
            "set NCCL_DEBUG=INFO",
        )
        for one in lines
        if "error" in one
    ]
    for number in sorted({one["ranks"] for one in lines if "gap" in one}):
        gaps = {one["case"]: one["gap"] for one in lines if one.get("ranks") == number and "gap" in one}
        over = {case: gap for case, gap in gaps.items() if not gap < (1e-2 if case.endswith("bfloat16") else 1e-3)}
        worst = max(gaps, key=gaps.__getitem__)
        remedy = f"the sharded update differs in {', '.join(over)}: do not train on several GPUs" if over else ""
        figures = f"largest difference of a weight from one process {gaps[worst]:.1e} ({worst})"
        verdicts.append(Verdict(f"FSDP2 on {number} rank{'s' * (number > 1)}", WRONG if over else GOOD, figures, remedy))
    return verdicts


def _training(rule: str, lines: Lines) -> list[Verdict]:
    (one,) = lines
    stale = not one["gap_after_wake"] < 0.05
    verdicts = [
        Verdict(
            f"{rule}: log-probs of engine and policy",
            WRONG if stale else GOOD,
            f"mean gap {one['gap_before_sleep']:.1e} nats before the first sleep, {one['gap_after_wake']:.1e} after wake-ups",
            "the engine samples from outdated or wrong weights: install the locked version of vLLM" if stale else "",
        )
    ]
    if one["skipped"]:
        verdicts.append(Verdict(f"{rule}: updates", WRONG, f"{one['skipped']} not finite", "train in float32 and compare"))
    return verdicts


def _cost_of_sfpo(parts: dict[str, Any]) -> list[Verdict]:
    if not (parts["grpo"]["lines"] and parts["sfpo"]["lines"]):
        return []
    grpo, sfpo = parts["grpo"]["lines"][0], parts["sfpo"]["lines"][0]
    ratio = sfpo["seconds_update"] / grpo["seconds_update"]
    figures = f"update {ratio:.2f} x GRPO's (K + 1 = 4 passes), step {sfpo['seconds_a_step'] / grpo['seconds_a_step']:.2f} x"
    slow = ratio > 4.6
    return [Verdict("SFPO and GRPO", SLOW if slow else GOOD, figures, "snapshot and reposition: see memory" if slow else "")]


def _attention(lines: Lines) -> list[Verdict]:
    verdicts = []
    for length in sorted({one["completion"] for one in lines}):
        kernels = {one["kernel"]: one for one in lines if one["completion"] == length}
        ran = {name: one for name, one in kernels.items() if "ms" in one}
        wrong = [name for name, one in ran.items() if not one["relative_gap"] < 0.03]
        alone = {name: one["ms"] for name, one in ran.items() if not name.startswith("row")}
        fastest = min(alone, key=lambda name: alone[name], default=None)
        figures = ", ".join(
            f"{name} {one['ms']:.2f} ms" if "ms" in one else f"{name} not here" for name, one in kernels.items()
        )
        used = alone.get("varlen", alone.get("mask", math.inf))  # in an update
        slow = fastest is not None and used > 1.3 * alone[fastest]
        verdict = WRONG if wrong or not ran else SLOW if slow else GOOD
        remedy = f"not equal to float32: {', '.join(wrong)}" if wrong else f"{fastest} is the kernel to use" if slow else ""
        verdicts.append(Verdict(f"attention, completions of {length}", verdict, figures, remedy))
    return verdicts


def _update(lines: Lines) -> list[Verdict]:
    verdicts = []
    for one in lines:
        share = one["share_of_a_product"]
        slow = share < {"short": 0.3, "varied": 0.25, "long": 0.25}[one["lengths"]]
        figures = (
            f"{one['tokens_per_second']:,.0f} tokens/s, {one['teraflops']:.3g} TFLOP/s, {share:.0%} of a large product's "
            f"{one['teraflops_of_a_product']:.3g}; {one['waits_of_the_host']} host syncs; peak {one['peak_mib']:.0f} MiB"
        )
        remedy = "" if one["finite"] and not slow else "profile it: attention kernel, host synchronizations, log-prob slices"
        verdict = WRONG if not one["finite"] else SLOW if slow else GOOD
        verdicts.append(Verdict(f"update, {one['lengths']} completions", verdict, figures, remedy))
    return verdicts


def _logprobs(lines: Lines) -> list[Verdict]:
    ran = {one["form"]: one for one in lines if "ms" in one}
    own = next((one for one in ran.values() if one.get("own")), None)
    if own is None:
        return [Verdict("log-probs", WRONG, "the implementation in use did not run", "read gpu_check/logprobs.log")]
    slices = {form: one for form, one in ran.items() if form.startswith("slices")}
    best = min(slices, key=lambda form: slices[form]["ms"])
    least = ran["products alone"]["ms"] if "products alone" in ran else own["ms"]
    wrong = any(not one["gap"] < 0.05 for one in slices.values())
    slow = own["ms"] > 1.15 * slices[best]["ms"]
    figures = f"{own['ms']:.1f} ms ({own['form']}), best {slices[best]['ms']:.1f} ({best}), matrix products only {least:.1f}"
    remedy = (
        "log-probs differ from the whole logits'"
        if wrong
        else f"set LOGITS_AT_ONCE['cuda'] to {best.split()[-1]}"
        if slow
        else ""
    )
    return [Verdict("log-probs", WRONG if wrong else SLOW if slow else GOOD, figures, remedy)]


def _memory(lines: Lines) -> list[Verdict]:
    verdicts = []
    for one in lines:
        figures, slow = f"{one['held_mib']:.0f} MiB of weights and moments; reposition {one['reposition_ms']:.1f} ms", False
        if "reserved_mib" in one:
            slow = one["reserved_mib"] > 1.2 * one["held_mib"] + 256
            figures += (
                f"; {one['reserved_mib']:.0f} MiB stay reserved, {one['outside_the_allocator_mib']:.0f} outside the allocator"
            )
        remedy = "memory fragmentation leaves less for the engine: lower gpu_memory_utilization" if slow else ""
        verdicts.append(Verdict(f"memory, allocator {one['allocator']}", SLOW if slow else GOOD, figures, remedy))
    return verdicts


JUDGES = {
    "sharding": _sharding,
    "grpo": lambda lines: _training("GRPO", lines),
    "sfpo": lambda lines: _training("SFPO", lines),
    "attention": _attention,
    "update": _update,
    "logprobs": _logprobs,
    "memory": _memory,
}


def page(found: dict[str, Any], verdicts: list[Verdict]) -> str:
    """The report in Markdown."""
    device = ", ".join(found["machine"]["gpus"]) or found["machine"]["cpu"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    quick = " (--quick: speeds are meaningless)" if found["quick"] else ""
    lines = [
        f"# GPU check: {device}",
        "",
        f"{found['minutes']} minutes{quick}; sampled by {found['library']}; {versions}",
        "",
        "| part | | measured | remedy |",
        "|:--|:--|:--|:--|",
        *(f"| {one.what} | {one.verdict} | {one.figures.replace('|', '/')} | {one.remedy} |" for one in verdicts),
        *_cost_table(found["parts"]),
    ]
    return "\n".join(lines) + "\n"


def _cost_table(parts: dict[str, Any]) -> list[str]:
    """Time and memory per step of each rule, as in Figure 8 of the paper."""
    steps = {rule: parts[rule]["lines"][0] for rule in ("grpo", "sfpo") if parts.get(rule, {}).get("lines")}
    if len(steps) < 2:
        return []
    rows = [
        ("seconds a step", "seconds_a_step", "{:.2f}"),
        ("of it: generation", "seconds_generate", "{:.2f}"),
        ("of it: update", "seconds_update", "{:.2f}"),
        ("of it: weight sync", "seconds_sync", "{:.2f}"),
        ("peak memory of torch, MiB", "peak_mib", "{:.0f}"),
    ]
    lines = ["", "| training in bfloat16 | GRPO | SFPO (K = 3) | SFPO / GRPO |", "|:--|--:|--:|--:|"]
    for title, key, form in rows:
        one, other = steps["grpo"][key], steps["sfpo"][key]
        lines.append(f"| {title} | {form.format(one)} | {form.format(other)} | {f'{other / one:.2f}' if one else ''} |")
    return lines


if __name__ == "__main__":
    main()
