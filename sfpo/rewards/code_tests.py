"""The grader of programs: does the program in a response pass all tests of the gold (sfpo.rewards.code_gold)?

The program is in the response's fenced blocks; which of them it is, what the tests ask for decides (sfpo.rewards.choice). It
runs in sfpo.rewards.sandbox: a fresh Python without network, files, or a second process. Expected results never go there: the
program gets arguments and hands back plain data, which is compared here, or, where a gold has code that checks it, in a sandbox
of that code's own. So whatever a program does in there, to pass it must give the right results.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import IO, Any

from sfpo.rewards.code_gold import CodeTests, check_tests, right_results, right_text
from sfpo.rewards.math_answer import Grade
from sfpo.rewards.sandbox import CALL, DONE, GAVE_UP, MAX_WAITS

TIME_LIMIT_SECONDS = 4
"""Processor time of one run (all calls of a function, or one stdin) where the gold states no limit of its own."""
CLOCK_FACTOR = 3
"""The deadline on the clock, in time limits: for a program that sleeps. One that is still at work gets it MAX_WAITS times."""
MEMORY_MB = 512
OUTPUT_BYTES = 2**20
"""Of one run's output, and of any file that the program writes; more where the right output is longer than half of it."""
MAX_CHARACTERS = 65_536
"""Longer programs, all blocks together, are wrong unread."""
_START_SECONDS = 30
_CHECK_FACTOR = 10
"""A check waits for the program at each of its calls."""
_SANDBOX = [sys.executable, "-s", "-S", "-B", "-P", "-X", "utf8", str(Path(__file__).with_name("sandbox.py"))]
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # one order of sets, so that a verdict stays the same
_PYTHON = re.compile(r"(?:i?python[\d.]*|py[\d.]*)?$")
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})([^`]*)$")

logger = logging.getLogger(__name__)


def extract_blocks(text: str) -> tuple[str, ...]:
    """Contents of all complete fenced blocks marked python, or not marked, in order; without the indentation of their fence."""
    blocks: list[str] = []
    lines: list[str] = []
    opened: re.Match[str] | None = None
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        closes = fence is not None and opened is not None and not fence[3].strip() and fence[2].startswith(opened[2])
        if opened is not None and closes:
            if _is_python(opened[3]):
                blocks.append("\n".join(one.removeprefix(opened[1]) for one in lines))
            opened = None
        elif fence is not None and (opened is None or (fence[2][0] == opened[2][0] == "`" and fence[3].strip())):
            opened, lines = fence, []  # also where the one before was left open
        else:
            lines.append(line)
    return tuple(blocks)


def _is_python(mark: str) -> bool:
    words = re.split(r"[\s{,:=]+", mark.strip().lower(), maxsplit=1)
    return _PYTHON.match(words[0].strip(".}")) is not None


class _Process(subprocess.Popen[bytes]):
    """A process of sandbox.py, with a pipe at each of its three streams."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        super().__init__(_SANDBOX, stdin=pipe, stdout=pipe, stderr=pipe, env=_ENVIRONMENT, cwd="/", start_new_session=True)


class CodeGrader:
    """Runs programs, several at once; a context manager. Thread-safe."""

    def __init__(self, workers: int, time_limit_seconds: float = TIME_LIMIT_SECONDS, memory_mb: int = MEMORY_MB) -> None:
        """
        Args:
            workers: programs that run at once.
            time_limit_seconds: processor time of one run, rounded up to whole seconds, in which the kernel counts; a gold's own
                limit goes before it.
            memory_mb: address space of a program, in MiB.
        """
        self._time_limit_seconds, self._memory_mb = time_limit_seconds, memory_mb
        self._threads = ThreadPoolExecutor(workers)
        self._idle: list[_Process] = []
        """Started, and waiting for the next program."""

    def __enter__(self) -> CodeGrader:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while self._idle:
            _stop(self._idle.pop())

    def grade_all(self, responses: Sequence[str], golds: Sequence[str | Sequence[str]]) -> list[Grade]:
        """One grade for each response, in order; ``boxed`` says that there is a program.

        Args:
            responses: whole completions.
            golds: each response's tests: one JSON text, or a sequence of that alone.

        Raises:
            ValueError: not as many golds as responses, or a gold that ``check_tests`` refuses.
            RuntimeError: this machine grants no isolation, or the grader is closed.
        """
        texts = [gold if isinstance(gold, str) else _only(gold) for gold in golds]
        questions = list(zip(map(extract_blocks, responses), texts, strict=True))
        tests = {text: check_tests(text) for text in set(texts)}
        distinct = [one for one in dict.fromkeys(questions) if one[0]]
        outcomes = self._threads.map(lambda one: self._passes(one[0], tests[one[1]]), distinct)
        verdicts = dict(zip(distinct, outcomes, strict=True))
        grades = [Grade(verdicts.get(one) is True, bool(one[0]), bool(one[0]) and verdicts[one] is None) for one in questions]
        if given_up := sum(one.timed_out for one in grades):
            logger.warning(
                "%d of %d programs counted as wrong: over their limit of processor time (%g s where a problem states none), "
                "%d times that on the clock, or %d MiB",
                given_up,
                len(grades),
                self._time_limit_seconds,
                CLOCK_FACTOR,
                self._memory_mb,
            )
        return grades

    def check_isolation(self) -> None:
        """Start a sandbox and nothing in it.

        Raises:
            RuntimeError: this machine grants no isolation; names the remedy.
        """
        with self._sandbox(CodeTests(None, (), ()), {}):
            pass

    def _passes(self, blocks: tuple[str, ...], tests: CodeTests) -> bool | None:
        """Whether the program passes all tests, the first that it fails being the last that is run; None: given up on."""
        if sum(map(len, blocks)) > MAX_CHARACTERS:
            return False
        right = right_text if tests.function is None else right_results
        with self._sandbox(tests, {"blocks": blocks, "reads": tests.reads}) as process:
            if tests.check is not None:
                return self._passes_check(process, tests)
            for request, expected in zip(tests.requests, tests.expected, strict=True):
                outcome, output = _answer(process, request)
                if outcome != DONE:
                    return None if outcome == GAVE_UP else False
                if not right(output, expected, tests.tolerance):
                    return False
        return True

    def _passes_check(self, process: _Process, tests: CodeTests) -> bool | None:
        """Whether the check, in a sandbox of its own, ends well: each call that it makes is a run of the program."""
        outcomes: list[str] = []
        with self._sandbox(tests, {"check": tests.check}) as judge:
            outcome, output = _answer(judge, {})
            while outcome == CALL:
                called, result = _answer(process, {"call": json.loads(output)})
                outcomes.append(called)
                outcome, output = _answer(judge, result if called == DONE else b"")
        if GAVE_UP in (outcome, *outcomes):
            return None
        return outcome == DONE and DONE in outcomes  # a check that calls nothing tells nothing

    def _limits(self, tests: CodeTests) -> dict[str, float]:
        seconds = tests.time_limit_seconds or self._time_limit_seconds
        return {
            "cpu_seconds": math.ceil(seconds),
            "clock_seconds": CLOCK_FACTOR * max(seconds, self._time_limit_seconds),
            "memory_mb": self._memory_mb,
            "output_bytes": max(OUTPUT_BYTES, 2 * tests.longest_output),
        }

    @contextlib.contextmanager
    def _sandbox(self, tests: CodeTests, job: dict[str, Any]) -> Iterator[_Process]:
        """A sandbox that is ready for requests, in a process that is kept for the next if it answers to the end.

        The process ends by itself when its stdin closes; a watchdog stands behind that.
        """
        process = self._waiting() or _Process()
        limits = self._limits(tests)
        if "check" in job:
            limits["clock_seconds"] *= _CHECK_FACTOR
        runs = len(tests.requests) if tests.check is None else _CHECK_FACTOR
        watchdog = Timer(_START_SECONDS + runs * MAX_WAITS * limits["clock_seconds"], process.kill)
        watchdog.start()
        over = False
        try:
            _send(process, {"function": tests.function, "preamble": tests.preamble} | job | limits)
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(_REFUSAL.format(process.stderr.read(2_000).decode(errors="replace").strip()))
            yield process
            _send(process, b"")
            over = process.stdout.readline() == b"over\n"
        finally:
            watchdog.cancel()
            if over:
                self._idle.append(process)
            else:
                _stop(process)

    def _waiting(self) -> _Process | None:
        with contextlib.suppress(IndexError):
            while True:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                _stop(process)  # somebody killed it
        return None


def _stop(process: _Process) -> None:
    process.kill()  # what it started ends with it
    with process, contextlib.suppress(BrokenPipeError):
        process.stdin.close()


_REFUSAL = (
    "programs cannot be graded here, because this machine grants no isolation for them ({}). It takes Linux 5.14 or newer and "
    "user namespaces: allow them (sysctl user.max_user_namespaces above 0; on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0), or run as root with CAP_SYS_ADMIN (docker run --cap-add SYS_ADMIN "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined)"
)


def _only(gold: Sequence[str]) -> str:
    if len(gold) != 1:
        raise ValueError(f"{len(gold)} golds where the tests of a program are one JSON text")
    return gold[0]


def _send(process: _Process, message: dict[str, Any] | bytes) -> None:
    """A message to the sandbox, an empty one: that its program is over. If it died, its silence will tell."""
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"%d\n%s" % (len(text), text))
        process.stdin.flush()


def _answer(process: _Process, message: dict[str, Any] | bytes) -> tuple[str, bytes]:
    """Outcome and output of one run; given up on, if the sandbox died over it."""
    _send(process, message)
    outcome, _, size = process.stdout.readline().decode().partition(" ")
    return (outcome, process.stdout.read(int(size))) if size else (GAVE_UP, b"")
