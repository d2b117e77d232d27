"""The sides of a comparison (ours, TRL ...), each in its own process. They take turns, so that a drift of the machine affects
all.

The number of threads of a process is set before torch and vLLM are loaded. If a side has several candidate configurations
(numbers of threads, settings of a peer), each gets a trial, and the fastest is measured. Each turn waits until the machine is
idle.
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
"""Figures of one turn: "seconds", by which trials are compared, and others specific to the benchmark."""
IDLE_SHARE, IDLE_SAMPLE_SECONDS = 0.9, 0.2
"""The machine is idle if at least this share of its CPU time was unused over this many seconds."""


@dataclass(frozen=True)
class Options:
    """Options of all benchmarks."""

    models: str
    """Folder of the prepared checkpoints: <models>/<suite>/<model>/checkpoint."""
    repetitions: int = 5
    patience: float = 60.0
    """Largest number of seconds that a turn waits for the machine to be idle; it then starts anyway, and the load is
    reported."""
    quick: bool = False
    """A smoke test: the tiny model, the first candidate of each side, small sizes. The figures are meaningless."""


class Turns:
    """The connection in a candidate's process: wait for a turn, do the work, report its figures."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait(self) -> bool:
        """Block until the next turn; False: there are no more."""
        return self._connection.recv()

    def report(self, figures: Figures) -> None:
        self._connection.send(figures)


@dataclass(frozen=True)
class Candidate:
    """A configuration of one side: ``work(turns, **settings)``, run in a new process."""

    work: Callable[..., None]
    threads: int
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        plain = {key: value for key, value in self.settings.items() if isinstance(value, bool | int | float | str)}
        return {"threads": self.threads, **plain}


class CandidateFailed(RuntimeError):
    """A candidate's process died during its turn; its error is on stderr."""


class _Running:
    """A candidate's process, as seen by the parent."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, candidate.work, candidate.settings))
        changes = {"OMP_NUM_THREADS": str(candidate.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        before = dict(os.environ)
        os.environ.update({**changes, **candidate.environment})
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()  # so that the end of the process is an end of file here

    def turn(self) -> Figures:
        """Raises CandidateFailed."""
        try:
            self._connection.send(True)
            return self._connection.recv()
        except (EOFError, OSError):
            work = self.candidate.work
            raise CandidateFailed(f"{work.__module__}.{work.__name__} {self.candidate.described()}") from None

    def stop(self) -> None:
        if self._process.is_alive():
            with contextlib.suppress(OSError):  # it ended by itself
                self._connection.send(False)
        self._process.join()


def _serve(connection: Connection, work: Callable[..., None], settings: dict[str, Any]) -> None:
    work(Turns(connection), **settings)


@dataclass(frozen=True)
class Measured:
    """One side: the selected candidate, the trials of all candidates, and the turns of the selected one."""

    chosen: dict[str, Any]
    trials: list[dict[str, Any]]
    turns: list[Figures]
    """Each with "other_load": the share of CPU time that other processes used before the turn."""

    def values(self, key: str = "seconds") -> list[float]:
        return [turn[key] for turn in self.turns]


def take_turns(sides: Mapping[str, Sequence[Candidate]], options: Options) -> dict[str, Measured]:
    """Measure the sides in turns A B A B ...: ``options.repetitions`` turns each, after a warm-up turn.

    Raises:
        CandidateFailed: a process died.
        ValueError: a side has no candidate.
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
        return {side: Measured(running[side].candidate.described(), trials[side], turns[side]) for side in sides}
    finally:
        for process in running.values():
            process.stop()


def _fastest(side: str, candidates: Sequence[Candidate], options: Options) -> tuple[_Running, list[dict[str, Any]]]:
    best: _Running | None = None
    best_seconds, trials = float("inf"), []
    for candidate in candidates:
        process = _Running(candidate)
        try:
            process.turn()  # warm up
            wait_until_idle(options.patience)
            seconds = process.turn()["seconds"] if len(candidates) > 1 else 0.0
        except CandidateFailed:
            for one in (process, best):
                if one:
                    one.stop()
            raise
        if len(candidates) > 1:
            trials.append({**candidate.described(), "seconds": seconds})
            log.info("%s, trial: %s", side, trials[-1])
        slower: _Running | None = process
        if seconds < best_seconds:
            best, slower, best_seconds = process, best, seconds
        if slower:
            slower.stop()
    if best is None:
        raise ValueError(f"{side}: there is no candidate")
    return best, trials


def single_turn(candidate: Candidate) -> Figures:
    """One turn in a new process, for peak memory.

    Raises:
        CandidateFailed: the process died.
    """
    process = _Running(candidate)
    try:
        return process.turn()
    finally:
        process.stop()


def wait_until_idle(patience: float) -> float:
    """Wait up to ``patience`` seconds until the machine is idle; returns the share of CPU time that others still use."""
    deadline = time.monotonic() + patience
    while (load := _load()) > 1 - IDLE_SHARE and time.monotonic() < deadline:
        pass
    return load


def _load() -> float:
    """Share of the machine's CPU time in use, measured while this process sleeps; 0 without /proc/stat."""
    if not Path("/proc/stat").is_file():
        return 0.0
    total, idle = _times()
    time.sleep(IDLE_SAMPLE_SECONDS)
    later_total, later_idle = _times()
    return 1 - (later_idle - idle) / max(1, later_total - total)


def _times() -> tuple[int, int]:
    """(total, idle) jiffies since boot, over all cores."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]  # idle, and waiting for a disk
