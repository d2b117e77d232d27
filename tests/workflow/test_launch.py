"""Jobs of several processes: how torchrun is told, and what becomes of signals and of a process that dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow.launch import PORTS, torchrun_arguments

PROJECT = Path(__file__).parents[2]
RANK = """
import os, signal, sys, time
from pathlib import Path

out, seconds = Path(sys.argv[1]), float(sys.argv[2])
rank = os.environ.get("RANK", "alone")

def save(*_):
    time.sleep(seconds)
    (out / f"saved_{rank}").touch()
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
if rank == sys.argv[3]:
    sys.exit(3)
(out / f"ready_{rank}").touch()
time.sleep(120)
"""


@pytest.fixture
def launch(tmp_path):
    """Starts so many processes; ``ill``: the rank that dies at once."""
    (tmp_path / "a_rank.py").write_text(RANK)

    def start(processes: int, seconds: float = 0.0, ill: str = "none") -> subprocess.Popen:
        arguments = [str(processes), "a_rank", str(tmp_path), str(seconds), ill]
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}"}
        with (tmp_path / "log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "workflow.launch", *arguments], env=environment, stdout=log, stderr=log
            )

    return start


def test_torchrun_alone_chooses_where_processes_meet():
    told = torchrun_arguments(4, {})
    assert told[:2] == ["--nproc-per-node", "4"] and told[-1] == "--standalone"
    assert "SIGTERM" not in told[told.index("--signals-to-handle") + 1]


def test_tasks_of_a_slurm_step_share_the_processes_and_meet_where_srun_ran():
    environment = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
        "SLURM_JOB_ID": "31",
        "SLURM_PROCID": "1",
    }
    told = torchrun_arguments(16, environment)
    pairs = dict(zip(told[::2], told[1::2], strict=True))
    assert pairs["--nproc-per-node"] == "8" and pairs["--nnodes"] == "2" and pairs["--node-rank"] == "1"
    assert pairs["--master-addr"] == "10.0.0.7" and pairs["--master-port"] == str(PORTS[31])
    with pytest.raises(ValueError, match="15 processes cannot be divided evenly among 2 tasks"):
        torchrun_arguments(15, environment)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_reaches_every_process_and_leaves_it_time_to_save(launch, tmp_path, processes):
    process = launch(processes, seconds=2.0)
    ranks = ["alone"] if processes == 1 else ["0", "1"]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready_{rank}").exists() for rank in ranks):
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert all((tmp_path / f"saved_{rank}").exists() for rank in ranks)


def test_a_process_that_dies_ends_the_others_and_is_named(launch, tmp_path):
    started = time.monotonic()
    assert launch(2, ill="1").wait(60) == 1
    assert time.monotonic() - started < 60
    assert "rank      : 1 (local_rank: 1)\n  exitcode  : 3" in (tmp_path / "log").read_text()
