"""JSON-lines files written during training, and the clock for the seconds of each phase."""

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
"""Phases whose sum is "total": training time without validation, saving and start-up."""


class PhaseClock:
    """Cumulative seconds by phase. A resumed run passes its saved ``seconds``, and continues from them."""

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
        """Seconds so far by phase, and "total" over TRAINING_PHASES."""
        return {**{phase: round(value, 3) for phase, value in self.seconds.items()}, "total": round(self.total, 3)}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory_mb() -> float:
    """Peak memory so far in MiB: of the GPU if there is one, otherwise the resident set of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class JsonLines:
    """A file with one JSON object per line, each with a key "step"; every line is flushed. Non-finite numbers become null.

    Args:
        keeps: called with the step of each existing line; returns False for lines to drop, which were written after the last
            save of a killed run. The file is replaced atomically, so that it is complete even after a kill.
    """

    def __init__(self, path: Path, keeps: Callable[[float], bool]) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines if keeps(_step_of(line))))
        self._file = path.open("a")

    def append(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(strict(record), allow_nan=False) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Sync to disk. Called before a state is saved, since the state must not be ahead of the metrics."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # a line truncated by a kill
        return float("inf")
