"""Training jobs for the fault injection of benchmarks.chaos, and the undisturbed reference runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfpo import jobs
from sfpo.config import load_params
from sfpo.data.prepare import prepare_dataset
from sfpo.manifest import read_manifest
from sfpo.models.prepare import prepare
from sfpo.ranks import SINGLE_PROCESS
from sfpo.settings import DatasetSettings, ModelSettings, RunSettings
from sfpo.trainer.background import Background
from sfpo.trainer.run_store import RunStore
from tests.trainer.jobs import start

PARAMS = Path(__file__).parents[1] / "params.yaml"
ARMS, SEEDS = ("grpo", "sfpo"), (0, 1, 2)
STEPS, SAVE_EVERY = 32, 2
TRAIN = {
    "steps": STEPS,
    "prompts_per_step": 4,
    "completions_per_prompt": 4,
    "mini_batch_prompts": 2,
    "validation": {"every": SAVE_EVERY, "prompts": 8, "samples": 2},
}
FAST_STEPS, TRIGGER = 2, {"form": "paper", "window": 6, "threshold": 1.0}
DATASET, MODEL = "few-sums", "tiny-qwen2"
CHANGES = {
    "suites": {
        "chaos": {
            "extends": "tiny",
            "models": [MODEL],
            "datasets": [DATASET],
            "arms": list(ARMS),
            "seeds": list(SEEDS),
            "train": TRAIN,
            "execution": {"save_every": SAVE_EVERY},
        }
    },
    "arms": {"sfpo": {"num_fast_steps": FAST_STEPS, "entropy_trigger": TRIGGER}},
    "datasets": {
        DATASET: {"parts": {"generated": {"source": "generated", "tasks": {"sums": 400}}}, "validation_rows": 64},
    },
    "models": {MODEL: {"warm_up": {"dataset": DATASET, "check_prompts": 64, "pass_rate": [0.05, 0.7]}}},
}
"""Keys of params.yaml that are overridden."""
LIMIT_SECONDS = 300.0
POLL_SECONDS = 0.002
LOG_CHARACTERS = 500
"""Number of characters of a job's log that an error quotes."""


class Unexpected(AssertionError):
    """A job did not behave as expected."""


def demand(holds: bool, otherwise: str) -> None:
    """Raises Unexpected(otherwise) unless ``holds``."""
    if not holds:
        raise Unexpected(otherwise)


def said(pattern: str, log: str, otherwise: str) -> re.Match[str]:
    """The first match of ``pattern`` in ``log``; raises Unexpected(otherwise) if there is none."""
    found = re.search(pattern, log)
    if found is None:
        raise Unexpected(otherwise)
    return found


class Job:
    """A run's folder and the process that trains it, if any. A context manager that kills the process at its end."""

    def __init__(self, folder: Path, settings: RunSettings, ranks: int = 1) -> None:
        self.folder, self.settings, self.ranks = folder, settings, ranks
        self.state = RunStore(settings, folder, SINGLE_PROCESS, Background(threaded=False)).state
        self._process: subprocess.Popen[bytes] | None = None
        self.launched_ns = self._log_start = 0

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.poll() is None:
            self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Raises RuntimeError before the first launch."""
        if self._process is None:
            raise RuntimeError(f"{self.folder}: the job has not been launched")
        return self._process

    def launch(self) -> Job:
        self.launched_ns = time.time_ns()
        self._log_start = len(self._whole_log())
        self._process = start(self.folder, self.settings, self.ranks)  # appends to log.txt
        return self

    def kill(self) -> None:
        """Send SIGKILL.

        Raises:
            Unexpected: the process had already ended.
        """
        self.process.kill()
        demand(self.process.wait() == -signal.SIGKILL, f"the job had ended before the kill: {self.tail()}")

    def kill_a_rank(self, rank: int) -> float:
        """Send SIGKILL to one of several processes; returns the seconds until the job has ended.

        Raises:
            Unexpected: the job continues, or does not report which process died and how.
        """
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(children[rank]), signal.SIGKILL)
        killed = time.monotonic()
        demand(self.end() != 0, "the job succeeded without one of its processes")
        expected = f"rank      : {rank} (local_rank: {rank})\n  exitcode  : -9"
        demand(expected in self.log(), f"the log does not name rank {rank}: {self.tail()}")
        return time.monotonic() - killed

    def end(self) -> int:
        """Wait for the process, and return its exit status."""
        return self.process.wait(LIMIT_SECONDS)

    def finish(self, reference: Path) -> None:
        """Start the job once more; it must finish with the same results as ``reference``."""
        demand(self.launch().end() == 0, f"the restarted run failed: {self.tail()}")
        found = differences(reference, self.folder)
        demand(not found, f"differs from the undisturbed run in {', '.join(found)}")

    def wait(self, condition: Callable[[], bool], poll_seconds: float = POLL_SECONDS) -> None:
        """Wait until ``condition`` holds.

        Raises:
            Unexpected: the process ended before, or it takes more than LIMIT_SECONDS.
        """
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            demand(self.process.poll() is None, f"the job ended by itself: {self.tail()}")
            demand(time.monotonic() < deadline, "the job hangs")
            time.sleep(poll_seconds)

    def wait_for_a_save(self, steps: int = 1) -> None:
        """Wait until this process has saved a state at least ``steps`` after the newest one that it found."""
        wanted = self.saved() + steps
        self.wait(lambda: self.saved() >= wanted)

    def wait_beyond(self, step: int) -> None:
        """Wait until this process has finished a step after ``step``."""
        self.wait(lambda: self.changed(self.state / "metrics.jsonl") and self.step() > step)

    def saving(self) -> bool:
        """Whether this process is saving."""
        return self.changed(self.state / ".partial")

    def not_saving(self) -> bool:
        return not self.saving()

    def saved(self) -> int:
        """Step of the newest state; 0: there is none."""
        return max((int(path.name.removeprefix("step_")) for path in self.state.glob("step_*")), default=0)

    def changed(self, path: Path) -> bool:
        """Whether the path exists and was created or changed since the launch (by ctime, since copies keep their mtime)."""
        try:
            return path.stat().st_ctime_ns > self.launched_ns
        except FileNotFoundError:
            return False

    def unfinished(self) -> dict[str, list[str]]:
        """Temporary folder -> files that this process has begun to write but not yet renamed."""
        return {
            path.name: sorted(file.name for file in path.iterdir())
            for path in self.state.glob(".*partial")
            if self.changed(path)
        }

    def step(self) -> int:
        """The last step in this process's metrics or states."""
        metrics = self.state / "metrics.jsonl"
        return metrics.read_text().count("\n") if self.changed(metrics) else self.saved()

    def log(self) -> str:
        """The log since the launch."""
        return self._whole_log()[self._log_start :]

    def tail(self) -> str:
        return self.log()[-LOG_CHARACTERS:]

    def _whole_log(self) -> str:
        path = self.folder / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""


def differences(one: Path, other: Path) -> list[str]:
    """Names of the result files in which two finished runs differ."""
    names = {path.name for path in (*one.iterdir(), *other.iterdir())}
    listed = [name for name in sorted(names) if (one / name).exists() != (other / name).exists()]
    folders = [name for name in ("best", "last") if read_manifest(one / name) != read_manifest(other / name)]
    files = ("metrics.jsonl", "validation.jsonl", "summary.json")
    return listed + folders + [name for name in files if untimed(one / name) != untimed(other / name)]


def untimed(path: Path) -> list[str]:
    """The file's records without values that differ between equal runs: seconds and memory at any depth, and the versions (with
    the commit)."""
    left_out = ("seconds", "peak_memory_mb", "versions")

    def kept(record: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in record.items() if key not in left_out}

    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    return [json.dumps(json.loads(line, object_hook=kept)) for line in lines]


# ---------------------------------------------------------------------------------------------- the laboratory


@dataclass(frozen=True)
class Pace:
    """Timings of an undisturbed run in seconds, to choose random moments."""

    start_up: float
    """Launch to first step."""
    between_saves: float
    save: float


@dataclass
class Lab:
    """Data, a model, the settings of every run, and the undisturbed reference runs."""

    folder: Path
    settings: dict[tuple[str, int], RunSettings]
    paces: dict[tuple[str, int], Pace] = field(default_factory=dict)

    def job(self, name: str, arm: str, seed: int, ranks: int = 1) -> Job:
        return Job(self.folder / name / arm / f"seed{seed}", self.settings[arm, seed], ranks)

    def reference(self, arm: str, seed: int) -> Path:
        return self.job("undisturbed", arm, seed).folder

    def measure(self, arm: str, seed: int) -> None:
        """Train a run undisturbed.

        Raises:
            Unexpected: it fails, or SFPO's trigger does not fire in it.
        """
        with self.job("undisturbed", arm, seed) as job:
            launched = time.monotonic()
            job.launch().wait(lambda: job.step() > 0)
            first = time.monotonic()
            marks = []
            for condition in (job.saving, job.not_saving, job.saving):  # the first save, and the second's beginning
                job.wait(condition)
                marks.append(time.monotonic())
            demand(job.end() == 0, f"the undisturbed run failed: {job.tail()}")
        begun, saved, again = marks
        self.paces[arm, seed] = Pace(start_up=first - launched, between_saves=again - saved, save=saved - begun)
        if arm == "sfpo":
            fired_at = json.loads((job.folder / "summary.json").read_text())["trigger_fired_at"]
            demand(fired_at is not None and fired_at <= STEPS, "the entropy trigger did not fire in the undisturbed run")


def make_lab(folder: Path) -> Lab:
    """Data, a warmed-up tiny model, and the settings of every arm and seed, below ``folder``."""
    resolved = jobs.resolve(load_params(PARAMS, "chaos", CHANGES)).values()
    data, checkpoint = folder / "data", folder / "model/checkpoint"
    data.mkdir(parents=True)
    [dataset] = [one for one in resolved if isinstance(one, DatasetSettings)]
    prepare_dataset(dataset, data)
    [policy] = [one for one in resolved if isinstance(one, ModelSettings)]
    prepare(policy.model_copy(update={"warm_up_data": str(data)}), checkpoint)
    paths = {"model_path": str(checkpoint), "data_path": str(data)}
    runs = [one.model_copy(update=paths) for one in resolved if isinstance(one, RunSettings)]
    return Lab(folder, {(one.run.arm, one.run.seed): one for one in runs})
