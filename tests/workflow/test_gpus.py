"""Jobs on one machine get disjoint GPUs, wait where all are taken, and give them back however they end. Real processes."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path

import pytest

from workflow.gpus import NoSuchGpus, own_gpus, own_step, visible_gpus

PROJECT = Path(__file__).parents[2]
TELL = "import json, os; print(json.dumps([os.getpid(), dict(os.environ)]), flush=True)"
HOLD = f"{TELL}; input()"
LIMIT_SECONDS = 60


@pytest.fixture
def start(tmp_path):
    """Starts jobs of so many GPUs, in an environment of its own; none outlives the test."""
    started = []

    def start(count: int, program: str = HOLD, **environment: str) -> subprocess.Popen:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA_", "SLURM_"))}
        job = subprocess.Popen(
            [sys.executable, "-m", "workflow.gpus", "--locks", str(tmp_path), "--", str(count), sys.executable, "-c", program],
            cwd=PROJECT,
            env={**clean, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(job)
        return job

    yield start
    for job in started:
        job.kill()
        job.communicate()


def told(job: subprocess.Popen) -> tuple[int, dict[str, str]]:
    """What the command says: its process, and its environment."""
    pid, environment = json.loads(job.stdout.readline())
    return pid, environment


def gpus(job: subprocess.Popen) -> list[str]:
    return told(job)[1]["CUDA_VISIBLE_DEVICES"].split(",")


def finish(job: subprocess.Popen) -> None:
    job.communicate("\n", timeout=LIMIT_SECONDS)
    assert job.returncode == 0


def test_jobs_get_disjoint_gpus_and_a_killed_job_gives_its_own_back(start):
    four = [start(count, CUDA_VISIBLE_DEVICES="0,1,2,3") for count in (1, 2, 1)]
    taken = [gpus(job) for job in four]
    assert [len(names) for names in taken] == [1, 2, 1]
    assert sorted(chain(*taken)) == ["0", "1", "2", "3"]

    waiting = start(2, CUDA_VISIBLE_DEVICES="0,1,2,3")
    assert waiting.stderr.readline().startswith("waiting for 2 of the GPUs 0, 1, 2, 3")
    four[1].send_signal(signal.SIGKILL)
    assert gpus(waiting) == taken[1]
    for job in (four[0], four[2], waiting):
        finish(job)


def test_a_crowd_never_shares_a_gpu(start, tmp_path):
    """Twelve jobs of one and two GPUs race for three; each writes when it had which."""
    times = f"import os, time; begin = time.monotonic(); time.sleep(0.1); open({str(tmp_path / 'times')!r}, 'a').write(" + (
        "f\"{os.environ['CUDA_VISIBLE_DEVICES']} {begin} {time.monotonic()}\\n\")"
    )
    crowd = [start(1 + number % 2, times, CUDA_VISIBLE_DEVICES="a,b,c") for number in range(12)]
    for job in crowd:
        finish(job)
    lines = [line.split() for line in (tmp_path / "times").read_text().splitlines()]
    spans = [(name, float(begin), float(end)) for names, begin, end in lines for name in names.split(",")]
    assert len(lines) == 12 and len(spans) == 18
    for gpu in "abc":
        held = sorted((begin, end) for name, begin, end in spans if name == gpu)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(held))


def test_the_command_is_the_job(start):
    """The same process, hence its signals, and its exit status."""
    job = start(1, CUDA_VISIBLE_DEVICES="5")
    assert told(job)[0] == job.pid
    failing = start(0, "import sys; sys.exit(75)")
    assert failing.wait(LIMIT_SECONDS) == 75


def test_a_job_that_asks_for_no_gpu_sees_none(start, tmp_path):
    for environment in ({}, {"CUDA_VISIBLE_DEVICES": "0,1"}, {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"}):
        assert gpus(start(0, **environment)) == [""]
    assert not list(tmp_path.glob("*.lock"))


def test_auto_holds_one_gpu_where_there_is_one_and_else_none(start, tmp_path):
    first, second = (start("auto", CUDA_VISIBLE_DEVICES="0,1") for _ in range(2))
    assert sorted([*gpus(first), *gpus(second)]) == ["0", "1"]
    third = start("auto", CUDA_VISIBLE_DEVICES="0,1")
    assert third.stderr.readline().startswith("waiting for 1 of the GPUs 0, 1")
    for job in (first, second, third):
        finish(job)
    for environment in ({"CUDA_VISIBLE_DEVICES": ""}, {"SLURM_JOB_ID": "7"}):
        assert gpus(start("auto", **environment)) == [""]
    broken = tmp_path / "nvidia-smi"  # as where the driver is not loaded
    broken.write_text("#!/bin/sh\nexit 9\n")
    broken.chmod(0o755)
    assert gpus(start("auto", PATH=f"{tmp_path}:{os.environ['PATH']}")) == [""]


def test_under_slurm_the_choice_is_slurms(start):
    """Two jobs on one node: where Slurm hides the other's GPUs, each sees a GPU 0."""
    for _ in range(2):
        assert gpus(start(1, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7")) == ["0"]
    assert "CUDA_VISIBLE_DEVICES" not in told(start(1, SLURM_JOB_ID="7", PATH=os.environ["PATH"]))[1]
    # An allocation of two, and jobs of one inside it.
    inside = [start(1, CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_ID="8") for _ in range(2)]
    assert sorted(chain(*map(gpus, inside))) == ["0", "1"]


def test_more_than_there_are_is_an_error_that_names_them(start):
    job = start(3, CUDA_VISIBLE_DEVICES="0,1")
    assert job.communicate(timeout=LIMIT_SECONDS)[1] == "workflow.gpus: 3 GPUs requested; CUDA_VISIBLE_DEVICES has 2: 0, 1\n"
    assert job.returncode == 1
    assert start(-1).wait(LIMIT_SECONDS) == 2


def test_without_the_variable_all_gpus_of_the_machine_in_its_order(start, tmp_path):
    smi = tmp_path / "bin/nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 0\necho 1\n")
    smi.chmod(0o755)
    environment = told(start(2, PATH=f"{smi.parent}:{os.environ['PATH']}"))[1]
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("0,1", "PCI_BUS_ID")


def test_names(tmp_path):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-8f2, MIG-1/2/3"}) == ["GPU-8f2", "MIG-1/2/3"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1,-1,2"}) == ["1"]
    with own_gpus(1, {"CUDA_VISIBLE_DEVICES": "MIG-1/2/3"}, tmp_path) as environment:
        assert environment["CUDA_VISIBLE_DEVICES"] == "MIG-1/2/3"
    with pytest.raises(NoSuchGpus, match="none"), own_gpus(1, {"CUDA_VISIBLE_DEVICES": ""}, tmp_path):
        pass


def test_held_within_this_process(tmp_path):
    with ExitStack() as stack:
        some = {"CUDA_VISIBLE_DEVICES": "0,1"}
        names = [stack.enter_context(own_gpus(1, some, tmp_path))["CUDA_VISIBLE_DEVICES"] for _ in range(2)]
    assert names == ["0", "1"]
    with own_gpus(2, some, tmp_path) as environment:
        assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize("kind", ["cgroup", "linuxproc"])
def test_where_slurm_tells_a_steps_own_process_alone_the_command_is_a_step_of_its_own(tmp_path, kind):
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "ProctrackType           = proctrack/{kind}"\n')
    (tmp_path / "scontrol").chmod(0o755)
    job = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    step = {**job, "SLURM_STEP_ID": "0"}
    assert own_step(1, {}) == own_step(1, job) == []
    command = own_step(2, {**step, "SLURM_CPUS_PER_TASK": "16"})
    if kind == "linuxproc":
        assert command == []
    else:
        assert command[0] == "srun" and {"--overlap", "--ntasks=1", "--cpus-per-task=16", "--gpus=2"} <= set(command)
        assert not any(word.startswith(("--gpus", "--cpus-per-task")) for word in own_step(0, step))
    several = own_step(0, step, tasks=2)
    assert {"--ntasks=2", "--kill-on-bad-exit=1"} <= set(several) and not any("--nodes" in word for word in several)
