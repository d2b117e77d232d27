"""The grader of programs: checks that the program in a response passes all tests of the gold (sfpo.rewards.code_gold).

The program consists of the response's fenced code blocks that the tests need (sfpo.rewards.choice). It runs in
sfpo.rewards.sandbox: a fresh Python process without network, file access or child processes. Expected results never enter that
sandbox: the program gets arguments and returns plain data, which is compared here or, if the gold has checking code, in a
second sandbox. So a program cannot pass by tampering with its process, only by returning correct results.
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

from sfpo.rewards.code_gold import CodeTests, check_tests, output_matches, results_match
from sfpo.rewards.math_answer import Grade
from sfpo.rewards.sandbox import CALL, DONE, MAX_WAITS, OVER_LIMIT

TIME_LIMIT_SECONDS = 4
"""Default CPU time limit of one run (all calls of a function, or one stdin), if the gold has none."""
CLOCK_FACTOR = 3
"""Wall-clock limit as a multiple of the CPU time limit, for programs that sleep. A program that keeps computing gets it up to
MAX_WAITS times."""
MEMORY_MB = 512
OUTPUT_BYTES = 2**20
"""Size limit of a run's output and of any file that it writes; raised to twice the longest correct output if that is larger."""
MAX_CHARACTERS = 65_536
"""Programs with more characters (all blocks together) are wrong without being run."""
_START_SECONDS = 30
_CHECK_FACTOR = 10
"""Factor of the time limits for checking code, which waits for the program at each of its calls."""
_SANDBOX = [sys.executable, "-s", "-S", "-B", "-P", "-X", "utf8", str(Path(__file__).with_name("sandbox.py"))]
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # fixes the iteration order of sets, so that verdicts are reproducible
_PYTHON = re.compile(r"(?:i?python[\d.]*|py[\d.]*)?$")
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})([^`]*)$")

logger = logging.getLogger(__name__)


def extract_blocks(text: str) -> tuple[str, ...]:
    """Contents of all complete fenced code blocks marked as python or unmarked, in order, without the indentation of the
    fence."""
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
            opened, lines = fence, []  # also if the previous block was not closed
        else:
            lines.append(line)
    return tuple(blocks)


def _is_python(mark: str) -> bool:
    words = re.split(r"[\s{,:=]+", mark.strip().lower(), maxsplit=1)
    return _PYTHON.match(words[0].strip(".}")) is not None


class _Process(subprocess.Popen[bytes]):
    """A process of sandbox.py with pipes for stdin, stdout and stderr."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        super().__init__(_SANDBOX, stdin=pipe, stdout=pipe, stderr=pipe, env=_ENVIRONMENT, cwd="/", start_new_session=True)


class CodeGrader:
    """Grades programs, several in parallel. A context manager; thread-safe."""

    def __init__(self, workers: int, time_limit_seconds: float = TIME_LIMIT_SECONDS, memory_mb: int = MEMORY_MB) -> None:
        """
        Args:
            workers: number of programs that run in parallel.
            time_limit_seconds: CPU time limit of one run, rounded up to whole seconds (the kernel's resolution); a limit in the
                gold takes precedence.
            memory_mb: limit of a program's address space, in MiB.
        """
        self._time_limit_seconds, self._memory_mb = time_limit_seconds, memory_mb
        self._threads = ThreadPoolExecutor(workers)
        self._idle: list[_Process] = []
        """Started processes without a program."""

    def __enter__(self) -> CodeGrader:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while self._idle:
            _stop(self._idle.pop())

    def grade_all(self, responses: Sequence[str], golds: Sequence[str | Sequence[str]]) -> list[Grade]:
        """One grade per response, in order; ``boxed`` is True if the response contains a program.

        Args:
            responses: whole completions.
            golds: each response's tests: a JSON string, or a sequence of one.

        Raises:
            ValueError: the numbers of golds and responses differ, or ``check_tests`` rejects a gold.
            RuntimeError: this machine cannot isolate programs, or the grader is closed.
        """
        texts = [gold if isinstance(gold, str) else _only(gold) for gold in golds]
        questions = list(zip(map(extract_blocks, responses), texts, strict=True))
        tests = {text: check_tests(text) for text in set(texts)}
        distinct = [one for one in dict.fromkeys(questions) if one[0]]
        outcomes = self._threads.map(lambda one: self._passes(one[0], tests[one[1]]), distinct)
        verdicts = dict(zip(distinct, outcomes, strict=True))
        grades = [Grade(verdicts.get(one) is True, bool(one[0]), bool(one[0]) and verdicts[one] is None) for one in questions]
        if timed_out := sum(one.timed_out for one in grades):
            logger.warning(
                "%d of %d programs count as wrong because they exceeded a limit: CPU time (%g s unless the problem has its "
                "own), wall-clock time (%d times that) or memory (%d MiB)",
                timed_out,
                len(grades),
                self._time_limit_seconds,
                CLOCK_FACTOR,
                self._memory_mb,
            )
        return grades

    def check_isolation(self) -> None:
        """Check that a sandbox can be started on this machine.

        Raises:
            RuntimeError: this machine cannot isolate programs; the message says how to enable it.
        """
        with self._sandbox(CodeTests(None, (), ()), {}):
            pass

    def _passes(self, blocks: tuple[str, ...], tests: CodeTests) -> bool | None:
        """Whether the program passes all tests (stops at the first failure); None if it exceeded a limit."""
        if sum(map(len, blocks)) > MAX_CHARACTERS:
            return False
        right = output_matches if tests.function is None else results_match
        with self._sandbox(tests, {"blocks": blocks, "reads": tests.reads}) as process:
            if tests.check is not None:
                return self._passes_check(process, tests)
            for request, expected in zip(tests.requests, tests.expected, strict=True):
                outcome, output = _answer(process, request)
                if outcome != DONE:
                    return None if outcome == OVER_LIMIT else False
                if not right(output, expected, tests.tolerance):
                    return False
        return True

    def _passes_check(self, process: _Process, tests: CodeTests) -> bool | None:
        """Run the checking code in a second sandbox, where each of its calls is a run of the program. True if it ends without
        an error, None if either exceeded a limit."""
        outcomes: list[str] = []
        with self._sandbox(tests, {"check": tests.check}) as judge:
            outcome, output = _answer(judge, {})
            while outcome == CALL:
                called, result = _answer(process, {"call": json.loads(output)})
                outcomes.append(called)
                outcome, output = _answer(judge, result if called == DONE else b"")
        if OVER_LIMIT in (outcome, *outcomes):
            return None
        return outcome == DONE and DONE in outcomes  # a check without a successful call proves nothing

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
        """A sandbox that is ready for requests. Its process is reused for the next program if it shuts the sandbox down in
        order.

        The process exits when its stdin is closed; a watchdog kills it if it hangs.
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
                _stop(process)  # it was killed from outside
        return None


def _stop(process: _Process) -> None:
    process.kill()  # its child processes die with it
    with process, contextlib.suppress(BrokenPipeError):
        process.stdin.close()


_REFUSAL = (
    "programs cannot be graded on this machine, because it cannot isolate them ({}). Isolation needs Linux 5.14 or newer and "
    "user namespaces: enable them (sysctl user.max_user_namespaces above 0; on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0), or run as root with CAP_SYS_ADMIN (docker run --cap-add SYS_ADMIN "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined)"
)


def _only(gold: Sequence[str]) -> str:
    if len(gold) != 1:
        raise ValueError(f"a code task has one gold (a JSON string), but here are {len(gold)}")
    return gold[0]


def _send(process: _Process, message: dict[str, Any] | bytes) -> None:
    """Send a message to the sandbox; an empty one ends it. A dead process is noticed when its answer is read."""
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"%d\n%s" % (len(text), text))
        process.stdin.flush()


def _answer(process: _Process, message: dict[str, Any] | bytes) -> tuple[str, bytes]:
    """(outcome, output) of one run; OVER_LIMIT if the sandbox died during it."""
    _send(process, message)
    outcome, _, size = process.stdout.readline().decode().partition(" ")
    return (outcome, process.stdout.read(int(size))) if size else (OVER_LIMIT, b"")
