"""The suite as jobs of a real Slurm: the table of a local run, and a preempted training job that ends with the same bits."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from benchmarks.chaos_jobs import differences
from tests.workflow.pipeline import copy_of_the_project, two_steps
from tests.workflow.slurm_node import NoSlurm, slurm_node

PROFILE = [
    *("--profile", "workflow/profiles/slurm"),
    *("--slurm-status-command", "squeue"),  # no accounting here
    *("--slurm-init-seconds-before-status-checks", "3"),
    *("--latency-wait", "5"),
]
RUNS = "runs/tiny/tiny-qwen2/arithmetic"
STEPS = 60
LIMIT_SECONDS = 900
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def slurm():
    """The environment of a running Slurm."""
    with ExitStack() as stack:
        try:
            environment = stack.enter_context(slurm_node())
        except NoSlurm as reason:
            pytest.skip(str(reason))
        yield environment


def project(folder: Path, **resources: int) -> Path:
    """A small copy of the present tree: two runs of many short steps, which save nothing unless they are told to stop."""
    params = two_steps(yaml.safe_load((copy_of_the_project(folder) / "params.yaml").read_text()))
    tiny = params["suites"]["tiny"]
    tiny["items"] = {"table1": {"shows": "scores"}}
    tiny["benchmarks"] = ["sums", "chains"]
    tiny["train"]["steps"] = STEPS
    tiny["execution"]["save_every"] = STEPS
    tiny["train"]["validation"]["every"] = STEPS // 2
    tiny["execution"]["resources"].update(resources)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


@contextmanager
def snakemake(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen]:
    """A Snakemake whose output goes to snakemake.txt; it does not outlive the block."""
    environment = {**environment, "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    with (folder / "snakemake.txt").open("w") as output:
        process = subprocess.Popen(["snakemake", *arguments], cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def finish(process: subprocess.Popen, folder: Path) -> str:
    """What it said, when it has ended well."""
    status = process.wait(LIMIT_SECONDS)
    said = (folder / "snakemake.txt").read_text()
    assert status == 0, said[-5000:]
    return said


def run(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    with snakemake(folder, environment, *arguments) as process:
        return finish(process, folder)


def wait(process: subprocess.Popen, folder: Path, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, (folder / "snakemake.txt").read_text()[-5000:]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The suite, run on this machine without Slurm."""
    folder = project(tmp_path_factory.mktemp("local") / "project", gpu=0)
    run(folder, dict(os.environ), "--cores", "2")
    return folder


def test_a_job_of_two_tasks_ends_in_the_table_of_two_local_processes(slurm, tmp_path):
    tables = {}
    for tasks in (1, 2):
        folder = project(tmp_path / f"{tasks}", processes=2, tasks=tasks)
        run(folder, *((dict(os.environ), "--cores", "2") if tasks == 1 else (slurm, *PROFILE)))
        tables[tasks] = (folder / "results/tiny/tables/table1.csv").read_bytes()
    assert tables[1] == tables[2]
    for arm in ("grpo", "sfpo"):
        assert differences(tmp_path / "1" / RUNS / arm / "seed0", tmp_path / "2" / RUNS / arm / "seed0") == []


def test_the_suite_as_slurm_jobs_ends_in_the_table_of_a_local_run(local, slurm, tmp_path):
    folder = project(tmp_path / "project", gpu=1)
    said = run(folder, slurm, *PROFILE)
    assert len(set(re.findall(r"submitted with SLURM jobid (\d+)", said))) == 12  # all that have a command
    for table in ("table1.csv", "table1_pass_at_k.csv"):
        assert (folder / "results/tiny/tables" / table).read_bytes() == (local / "results/tiny/tables" / table).read_bytes()
    for arm in ("grpo", "sfpo"):
        assert differences(local / RUNS / arm / "seed0", folder / RUNS / arm / "seed0") == []
    assert "Nothing to be done" in run(folder, slurm, "-n")


def test_a_preempted_training_job_saves_and_ends_with_the_bits_of_an_undisturbed_one(local, slurm, tmp_path):
    """A job of a partition of higher priority takes the node. No other state is saved than that at SIGTERM."""
    folder = tmp_path / "project"
    shutil.copytree(local, folder, ignore=shutil.ignore_patterns(".snakemake"))
    trained, log = folder / RUNS / "sfpo/seed0", folder / "logs/tiny/tiny-qwen2/arithmetic/sfpo/seed0/train.log"
    shutil.rmtree(trained)
    metrics = trained / "state/metrics.jsonl"
    with snakemake(folder, slurm, *PROFILE, "--", f"{RUNS}/sfpo/seed0/summary.json") as process:
        wait(process, folder, lambda: metrics.exists() and metrics.read_text().count("\n") >= 2)
        preempting = ["sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(preempting, env=slurm, capture_output=True, check=True)
        finish(process, folder)
    went_on = re.search(r"going on after step (\d+)", log.read_text())
    assert went_on and 2 <= int(went_on[1]) < STEPS
    assert differences(local / RUNS / "sfpo/seed0", trained) == []
