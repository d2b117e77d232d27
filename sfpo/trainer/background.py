"""Runs write tasks sequentially in a background thread, so that training does not wait for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Runs write tasks in order, optionally in a background thread.

    Args:
        threaded: if False, ``run`` executes the task immediately. Used on CPU, where a background thread would compete with
            training for cores, and would need a copy of the weights.
    """

    def __init__(self, threaded: bool) -> None:
        self.threaded = threaded
        self._thread = ThreadPoolExecutor(1, "writer")
        self._running: list[Future[None]] = []

    def run(self, work: Callable[[], None]) -> None:
        """Execute ``work`` immediately, or submit it to the thread. Raises the error of an earlier task, if any failed."""
        self.check()
        if self.threaded:
            self._running.append(self._thread.submit(work))
        else:
            work()

    def check(self) -> None:
        """Raise the error of a finished task, if any failed."""
        finished = [future for future in self._running if future.done()]
        self._running = [future for future in self._running if not future.done()]
        for future in finished:
            future.result()

    def wait(self) -> None:
        """Wait for all tasks. Raises the error of a task, if any failed."""
        while self._running:
            self._running.pop(0).result()
