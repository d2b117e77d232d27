"""The sides of a comparison: each in a process of its own, taking turns, so that a drift of the machine meets all of them.

A process has its threads fixed before torch and vLLM are loaded. Where a side has several candidates (numbers of threads,
settings of a peer), each gets a trial, and the fastest goes on. Each turn waits for the machine to be idle.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Figures = dict[str, float]
"""What one turn took: "seconds" decides trials; further keys as the benchmark likes."""
IDLE_SHARE, IDLE_SAMPLE_SECONDS = 0.9, 0.2
"""A machine is idle while so much of its processor time is unused over so many seconds."""


@dataclass(frozen=True)
class Options:
    """What every benchmark is given."""

    models: str
    """Folder of the prepared checkpoints: <models>/<suite>/<model>/checkpoint."""
    repetitions: int = 5
    patience: float = 60.0
    """Seconds that a turn waits at most for the machine to be idle; then it starts all the same, and its load is told."""
    quick: bool = False
    """To see that all runs: the tiny model, the first candidate of each side, small sizes. The figures say nothing."""


class Turns:
    """An arm's end of the line: wait for a turn, work, report."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait(self) -> bool:
        """Until it is this arm's turn; False: there are no more."""
        return self._connection.recv()

    def report(self, figures: Figures) -> None:
        self._connection.send(figures)


@dataclass(frozen=True)
class Arm:
    """One way to do the work: ``work(turns, **settings)`` in a fresh process."""

    work: Callable[..., None]
    threads: int
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        plain = {key: value for key, value in self.settings.items() if isinstance(value, bool | int | float | str)}
        return {"threads": self.threads, **plain}


class ArmFailed(RuntimeError):
    """An arm's process ended before its turn was over; its own error is on stderr."""


class _Running:
    """An arm's process, from the other end of the line."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, arm.work, arm.settings))
        changes = {"OMP_NUM_THREADS": str(arm.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        before = dict(os.environ)
        os.environ.update({**changes, **arm.environment})
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()  # so that the process's end is an end of file here

    def turn(self) -> Figures:
        """Raises ArmFailed."""
        try:
            self._connection.send(True)
            return self._connection.recv()
        except (EOFError, OSError):
            raise ArmFailed(f"{self.arm.work.__module__}.{self.arm.work.__name__} {self.arm.described()}") from None

    def stop(self) -> None:
        if self._process.is_alive():
            with contextlib.suppress(OSError):  # it ended by itself
                self._connection.send(False)
        self._process.join()


def _serve(connection: Connection, work: Callable[..., None], settings: dict[str, Any]) -> None:
    work(Turns(connection), **settings)


@dataclass(frozen=True)
class Measured:
    """One side: the candidate that went on, what the trials of all took, and its turns."""

    chosen: dict[str, Any]
    trials: list[dict[str, Any]]
    turns: list[Figures]
    """Each with "other_load": the share of the machine that was in use before it, by others."""

    def values(self, key: str = "seconds") -> list[float]:
        return [turn[key] for turn in self.turns]


def take_turns(sides: Mapping[str, Sequence[Arm]], options: Options) -> dict[str, Measured]:
    """Measure the sides A B A B ...: ``options.repetitions`` turns each, after one that does not count.

    Raises:
        ArmFailed: a process died.
        ValueError: a side has no arm.
    """
    running: dict[str, _Running] = {}
    trials: dict[str, list[dict[str, Any]]] = {}
    try:
        for side, candidates in sides.items():
            running[side], trials[side] = _fastest(side, candidates[:1] if options.quick else candidates, options)
        turns: dict[str, list[Figures]] = {side: [] for side in sides}
        for repetition in range(options.repetitions):
            for side in sides:
                load = {"other_load": wait_until_idle(options.patience)}
                turns[side].append(running[side].turn() | load)
                seconds = turns[side][-1]["seconds"]
                log.info("%s %d/%d: %.3f s", side, repetition + 1, options.repetitions, seconds)
        return {side: Measured(running[side].arm.described(), trials[side], turns[side]) for side in sides}
    finally:
        for process in running.values():
            process.stop()


def _fastest(side: str, candidates: Sequence[Arm], options: Options) -> tuple[_Running, list[dict[str, Any]]]:
    best: _Running | None = None
    best_seconds, trials = float("inf"), []
    for arm in candidates:
        process = _Running(arm)
        try:
            process.turn()  # warm up
            wait_until_idle(options.patience)
            seconds = process.turn()["seconds"] if len(candidates) > 1 else 0.0
        except ArmFailed:
            for one in (process, best):
                if one:
                    one.stop()
            raise
        if len(candidates) > 1:
            trials.append({**arm.described(), "seconds": seconds})
            log.info("%s, trial: %s", side, trials[-1])
        slower: _Running | None = process
        if seconds < best_seconds:
            best, slower, best_seconds = process, best, seconds
        if slower:
            slower.stop()
    if best is None:
        raise ValueError(f"{side}: there is no arm to choose from")
    return best, trials


def alone(arm: Arm) -> Figures:
    """One turn in a fresh process: for peaks of memory.

    Raises:
        ArmFailed: the process died.
    """
    process = _Running(arm)
    try:
        return process.turn()
    finally:
        process.stop()


def wait_until_idle(patience: float) -> float:
    """Wait, ``patience`` seconds at most, for others to leave the machine alone; returns the share that they still use."""
    deadline = time.monotonic() + patience
    while (load := _load()) > 1 - IDLE_SHARE and time.monotonic() < deadline:
        pass
    return load


def _load() -> float:
    """Share of the machine's processor time in use, over a moment in which this process sleeps; 0 where Linux does not tell."""
    if not Path("/proc/stat").is_file():
        return 0.0
    total, idle = _times()
    time.sleep(IDLE_SAMPLE_SECONDS)
    later_total, later_idle = _times()
    return 1 - (later_idle - idle) / max(1, later_total - total)


def _times() -> tuple[int, int]:
    """(all, idle) jiffies since the start, over all cores."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]  # idle, and waiting for a disk
