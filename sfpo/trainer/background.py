"""Writes that training need not wait for: one after another, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Runs pieces of work in the order in which they come.

    Args:
        threaded: False: each is done when ``run`` returns. So it is on a CPU, where a thread would compete with training for
            its cores, and what it writes would have to be copied first.
    """

    def __init__(self, threaded: bool) -> None:
        self.threaded = threaded
        self._thread = ThreadPoolExecutor(1, "writer")
        self._running: list[Future[None]] = []

    def run(self, work: Callable[[], None]) -> None:
        """Do ``work``, at once or in the thread; raises what earlier work raised."""
        self.check()
        if self.threaded:
            self._running.append(self._thread.submit(work))
        else:
            work()

    def check(self) -> None:
        """Raise what finished work raised."""
        finished = [future for future in self._running if future.done()]
        self._running = [future for future in self._running if not future.done()]
        for future in finished:
            future.result()

    def wait(self) -> None:
        """Return when all work is done; raises what it raised."""
        while self._running:
            self._running.pop(0).result()
