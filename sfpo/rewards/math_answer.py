r"""The grader of mathematical answers: is the boxed answer at the end of a response equivalent to the gold?

Training, validation and benchmark evaluation use the same grader. Most answers are decided as text (sfpo.rewards.answer_text,
which documents the rules of equivalence); those that need algebra go to worker processes (sfpo.rewards.equivalence).

Verdicts do not depend on the speed of the machine: operations are counted, and a comparison that exceeds
sfpo.rewards.values.MAX_OPERATIONS is stopped, far above what any rewriting of a real gold needs. As a safety net, workers also
have limits of CPU time (enforced by the kernel), wall-clock time and memory. An answer that exceeds a limit counts as wrong, is
marked in its Grade and logged. Workers are forked from a small server process (multiprocessing's forkserver), not from this
process, which may have threads of torch and vLLM; so replacing a worker takes milliseconds.
"""

from __future__ import annotations

import logging
import resource
import signal
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import context
from threading import Lock
from types import ModuleType

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from sfpo.rewards.answer_text import MAX_CHARACTERS, quick_verdict
from sfpo.rewards.boxes import extract_boxed, find_boxes
from sfpo.rewards.expression import BudgetExceeded

__all__ = ["Grade", "Grader", "extract_boxed", "grade", "reward_of"]

TIME_LIMIT_SECONDS = 1.0
"""CPU time limit for one answer; the budget of operations is reached in a third of it, so no known answer does."""
CLOCK_FACTOR = 20
"""Wall-clock limit as a multiple of the CPU time limit, for workers that hang without computing."""
MEMORY_LIMIT_BYTES = 2 * 2**30
RECURSION_LIMIT = 2_000
TASKS_PER_WORKER = 1_000
"""A worker is replaced after this number of answers, to free memory that accumulates in it."""
CACHE_SIZE = 65_536
SHARED_WORKERS = 2

logger = logging.getLogger(__name__)

Question = tuple[tuple[str, ...], tuple[str, ...]]
"""(interpretations of the boxed answer, empty if there is no box; golds)."""


@dataclass(frozen=True)
class Grade:
    """The verdict on one response."""

    correct: bool
    boxed: bool
    """The response has a complete box, whatever its content."""
    timed_out: bool
    """The answer exceeded a limit (operations, time, memory or length), or killed its worker. It counts as wrong."""


# ---------------------------------------------------------------------------------------------- processes


class _Process(context.ForkServerProcess):
    """A worker that does not import this process's __main__, as multiprocessing would; that can import torch and vLLM."""

    def start(self) -> None:
        with _main_hidden():
            super().start()


class _Context(context.ForkServerContext):
    Process = _Process


_main_lock = Lock()


@contextmanager
def _main_hidden() -> Iterator[None]:
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _start_worker() -> None:
    import sfpo.rewards.equivalence  # noqa: F401  (import now if the server has not, so that no answer waits)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's Python handler would wait for a long multiplication to end
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(RECURSION_LIMIT)


def _equivalent(answers: tuple[str, ...], golds: tuple[str, ...], time_limit_seconds: float) -> bool:
    from sfpo.rewards.equivalence import equivalent

    signal.setitimer(signal.ITIMER_PROF, time_limit_seconds)  # when it runs out, the kernel kills this process
    try:
        return equivalent(answers, golds)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


# ---------------------------------------------------------------------------------------------- the grader


class Grader:
    """A pool of grading processes, which start when an answer first needs algebra. A context manager; thread-safe."""

    def __init__(self, workers: int, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> None:
        """
        Args:
            workers: number of grading processes.
            time_limit_seconds: CPU time limit for one answer.
        """
        self._workers = workers
        self._time_limit_seconds = time_limit_seconds
        self._lock = Lock()
        self._closed = False
        self._pool: ProcessPool | None = None
        self._verdicts: OrderedDict[Question, bool] = OrderedDict()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            self._stop_pool()

    def grade_all(self, responses: Sequence[str], golds: Sequence[str | Sequence[str]]) -> list[Grade]:
        """One grade per response, in order.

        Args:
            responses: whole completions; the last box counts, or the last boxes that belong together.
            golds: each response's gold, in LaTeX without dollar signs; if it has several, the answer must have all, in any
                order.

        Raises:
            ValueError: the numbers of golds and responses differ.
            RuntimeError: the grader is closed, or its workers cannot start.
        """
        boxes = [find_boxes(response) for response in responses]
        answers = [found.answers if found else () for found in boxes]
        wanted = [(gold,) if isinstance(gold, str) else tuple(gold) for gold in golds]
        questions = list(zip(answers, wanted, strict=True))
        verdicts: dict[Question, bool | None] = {}
        waiting: dict[Question, ProcessFuture[bool]] = {}
        for question in dict.fromkeys(questions):
            if not question[0]:
                verdicts[question] = False
            elif all(len(answer) > MAX_CHARACTERS for answer in question[0]):
                verdicts[question] = None
            elif (verdict := self._known(question)) is not None:
                verdicts[question] = verdict
            else:
                waiting[question] = self._schedule(question)
        for question, future in waiting.items():
            verdicts[question] = self._outcome(question, future)
        grades = [Grade(verdicts[one] is True, bool(one[0]), verdicts[one] is None) for one in questions]
        _log_timed_out([question for question, one in zip(questions, grades, strict=True) if one.timed_out], len(grades))
        return grades

    def _known(self, question: Question) -> bool | None:
        """The verdict if it needs no algebra or is cached; None otherwise."""
        answers, golds = question
        quick = [quick_verdict(answer, golds[0]) if len(golds) == 1 else None for answer in answers]
        verdict = True if True in quick else None if None in quick else False
        if verdict is None:
            with self._lock:
                verdict = self._verdicts.get(question)
                if verdict is not None:
                    self._verdicts.move_to_end(question)
        return verdict

    def _schedule(self, question: Question) -> ProcessFuture[bool]:
        """Submit a question to the pool, which is started if needed, and restarted if broken (a worker was killed while
        idle)."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this grader is closed")
            if self._pool is None or not self._pool.active:
                self._stop_pool()
                workers = _Context()
                workers.set_forkserver_preload(["sfpo.rewards.equivalence"])
                self._pool = ProcessPool(self._workers, TASKS_PER_WORKER, _start_worker, context=workers)
            deadline = CLOCK_FACTOR * self._time_limit_seconds
            return self._pool.schedule(_equivalent, (*question, self._time_limit_seconds), timeout=deadline)

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()

    def _outcome(self, question: Question, future: ProcessFuture[bool]) -> bool | None:
        """The worker's verdict, which is cached; None (not cached) if the answer exceeded a limit."""
        try:
            verdict = future.result()
        except (BudgetExceeded, TimeoutError, ProcessExpired, MemoryError, RecursionError):
            return None
        with self._lock:
            self._verdicts[question] = verdict
            if len(self._verdicts) > CACHE_SIZE:
                self._verdicts.popitem(last=False)
        return verdict


def _log_timed_out(questions: list[Question], graded: int) -> None:
    if questions:
        logger.warning("%d of %d answers exceeded a limit of the grader and count as wrong:", len(questions), graded)
    for answers, golds in questions:
        logger.warning("exceeded a limit: %s (gold: %s)", " | ".join(answers)[:200], ", ".join(golds)[:200])


_shared = Grader(SHARED_WORKERS)


def grade(response: str, gold: str | Sequence[str]) -> bool:
    r"""True if the boxed answer at the end of ``response`` is equivalent to ``gold`` (several golds: to all, in any order).

    Thread-safe. All calls share one pool of workers, which starts when first needed.
    """
    return _shared.grade_all([response], [gold])[0].correct


def reward_of(grade: Grade, correct: float, boxed_but_wrong: float) -> float:
    """The reward of a grade (``config.Reward``): ``correct``, ``boxed_but_wrong``, or 0 if there is no box."""
    return correct if grade.correct else boxed_but_wrong if grade.boxed else 0.0
