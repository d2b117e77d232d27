"""Training jobs in processes of their own, as the workflow starts them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from sfpo.settings import RunSettings, to_json

PROJECT = Path(__file__).parents[2]


def start(folder: Path, settings: RunSettings, ranks: int = 1, *options: str) -> subprocess.Popen:
    """A training job in ``ranks`` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(to_json(settings))
    log = (folder / "log.txt").open("a")
    launch = ["-m", "workflow.launch", str(ranks), "sfpo.train"]
    command = [sys.executable, *launch, str(folder / "settings.json"), "--threads", "1", *options]
    return subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, env=dict(os.environ))


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for the job's success."""
    assert process.wait(timeout=300) == 0, (folder / "log.txt").read_text()[-3000:]


def lines_of(folder: Path) -> int:
    """Steps whose lines are in an unfinished run's metrics."""
    return sum(path.read_text().count("\n") for path in folder.glob("state/*/metrics.jsonl"))


def wait_for_lines(process: subprocess.Popen, folder: Path, lines: int) -> None:
    """Wait until so many steps are done."""
    deadline = time.monotonic() + 300
    while lines_of(folder) < lines:
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()[-3000:]
        time.sleep(0.02)


def untimed(folder: Path, name: str = "metrics") -> list[dict]:
    """The lines of a run's metrics, or of its validation, without what differs from run to run."""
    records = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "peak_memory_mb")} for record in records]
