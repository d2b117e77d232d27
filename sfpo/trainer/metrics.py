"""What a run writes while it trains: JSON lines, TensorBoard, a progress bar; and the clock behind its seconds."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sfpo.manifest import strict, write_text

TRAINING_PHASES = ("generate", "grade", "old_logprobs", "update", "sync")
"""Their sum is "total": training time, without validation, saving and start-up."""


class PhaseClock:
    """Cumulative seconds by phase; a resumed run goes on counting from what it had."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = seconds or dict.fromkeys((*TRAINING_PHASES, "validate"), 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = _now()
        yield
        self.seconds[phase] += _now() - started

    @property
    def total(self) -> float:
        return sum(self.seconds[phase] for phase in TRAINING_PHASES)

    def report(self) -> dict[str, float]:
        """Seconds so far by phase, and their training total."""
        return {**{phase: round(value, 3) for phase, value in self.seconds.items()}, "total": round(self.total, 3)}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory_mb() -> float:
    """Highest memory so far, in MiB: the GPU's where there is one, else this process's resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class JsonLines:
    """A file of one JSON object a line, each with a key "step"; appended and flushed line by line. A number that is not finite
    is null.

    Args:
        keeps: whether a line of this step stays; the others were left by a run that was killed after its last save. Another
            file takes the place of this one, so that a kill at any moment leaves one of the two whole.
    """

    def __init__(self, path: Path, keeps: Callable[[float], bool]) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines if keeps(_step_of(line))))
        self._file = path.open("a")

    def append(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(strict(record), allow_nan=False) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Onto the disk: the state that is saved next must not be ahead of these lines."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # the line that a kill cut short
        return float("inf")


class TensorBoard:
    """Every number of a metrics record as a curve."""

    def __init__(self, folder: Path, last_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # tensorboard is not needed where execution.tensorboard is false

        self._writer = SummaryWriter(str(folder), purge_step=last_step + 1)

    def append(self, record: dict[str, Any]) -> None:
        for name, value in _flat(record):
            self._writer.add_scalar(name, value, record["step"])

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _flat(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                yield from _flat(entry, f"{prefix}{key}/{index}/")
        elif isinstance(value, bool | int | float):
            yield f"{prefix}{key}", float(value)
