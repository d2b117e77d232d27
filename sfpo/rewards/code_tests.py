r"""The grader of programs: does the last fenced block of a response pass all tests of the gold?

The gold is a JSON text of one of two forms:
    {"function": "f", "cases": [{"arguments": [3, 4], "result": 7}, ...]}     f, or the method f of a class Solution
    {"cases": [{"stdin": "3 4\n", "stdout": "7\n"}, ...]}                     a whole program

A program runs in sfpo.rewards.sandbox: a fresh Python without network, files, or a second process. Expected results never go
there: the program gets arguments and hands back plain data, which is compared here. So whatever it does in there, to pass it
must give the right results.
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
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from sfpo.rewards.math_answer import Grade
from sfpo.rewards.sandbox import DONE, GAVE_UP

TIME_LIMIT_SECONDS = 4
"""Processor time of one run: all calls of a function, or one stdin."""
CLOCK_FACTOR = 3
"""The deadline on the clock, in time limits: for a program that sleeps, or a machine this busy."""
MEMORY_MB = 512
MAX_CHARACTERS = 65_536
"""A longer program is wrong unread."""
TOLERANCE = 1e-9
"""Relative, where a float is expected."""
_START_SECONDS = 30
_SANDBOX = [sys.executable, "-s", "-S", "-B", "-P", "-X", "utf8", str(Path(__file__).with_name("sandbox.py"))]
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # one order of sets, so that a verdict stays the same
_LANGUAGES = {"", "python", "python3", "py"}

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------- programs and tests


def extract_program(text: str) -> str | None:
    """Content of the last complete fenced block marked python, or not marked; None where there is none."""
    found, language, lines = None, None, []
    for line in text.split("\n"):
        mark = re.match(r"\s*```([^`]*)$", line)
        if not mark:
            lines.append(line)
        elif language is not None and not mark[1].strip():
            if language in _LANGUAGES:
                found = "\n".join(lines)
            language = None
        else:  # opens a block, also where the one before was left open
            language, lines = mark[1].strip().lower(), []
    return found


@dataclass(frozen=True)
class CodeTests:
    """The tests of one problem, in runs: all calls of a function are one, each stdin is one."""

    function: str | None
    """None: the tests are of a whole program."""
    requests: tuple[dict[str, Any], ...]
    """What the program gets in each run."""
    expected: tuple[Any, ...]
    """What must come back: text, or the list of a function's results."""


def check_tests(text: str) -> CodeTests:
    """Read a gold.

    Raises:
        ValueError: it is not of a form above, or a program that does nothing would pass.
    """
    try:
        tests = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"tests are not valid JSON ({error}): {text[:80]!r}") from None
    function = tests.get("function") if isinstance(tests, dict) else None
    cases = tests.get("cases") if isinstance(tests, dict) else None
    given, wanted, kind = ("stdin", "stdout", str) if function is None else ("arguments", "result", list)
    if not (isinstance(cases, list) and cases and set(tests) <= {"function", "cases"}):
        raise ValueError(f"tests must be an object with a list `cases`, and `function` where one is tested: {text[:80]!r}")
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise ValueError(f"`function` must be a name: {text[:80]!r}")
    for number, case in enumerate(cases):
        if not (isinstance(case, dict) and set(case) == {given, wanted} and isinstance(case[given], kind)):
            raise ValueError(f"case {number} must hold `{given}` ({kind.__name__}) and `{wanted}` alone: {text[:80]!r}")
        if function is None and not (isinstance(case[wanted], str) and case[wanted].strip()):
            raise ValueError(f"case {number}: `stdout` must be a text that is not blank: {text[:80]!r}")
    results = [case[wanted] for case in cases]
    if function is None:
        return CodeTests(None, tuple({"stdin": case["stdin"]} for case in cases), tuple(results))
    if all(result is None for result in results):
        raise ValueError(f"every `result` is null, so a function that does nothing would pass: {text[:80]!r}")
    return CodeTests(function, ({"arguments": [case["arguments"] for case in cases]},), (results,))


# ---------------------------------------------------------------------------------------------- the grader


class CodeGrader:
    """Runs programs, several at once; a context manager. Thread-safe."""

    def __init__(self, workers: int, time_limit_seconds: float = TIME_LIMIT_SECONDS, memory_mb: int = MEMORY_MB) -> None:
        """
        Args:
            workers: programs that run at once.
            time_limit_seconds: processor time of one run, rounded up to whole seconds, in which the kernel counts.
            memory_mb: address space of a program, in MiB.
        """
        self._limits = {
            "cpu_seconds": math.ceil(time_limit_seconds),
            "clock_seconds": CLOCK_FACTOR * time_limit_seconds,
            "memory_mb": memory_mb,
        }
        self._threads = ThreadPoolExecutor(workers)
        self._idle: list[subprocess.Popen[bytes]] = []
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
            responses: whole completions; the last fenced block counts.
            golds: each response's tests: one JSON text, or a sequence of that alone.

        Raises:
            ValueError: not as many golds as responses, or a gold that ``check_tests`` refuses.
            RuntimeError: this machine grants no isolation, or the grader is closed.
        """
        texts = [gold if isinstance(gold, str) else _only(gold) for gold in golds]
        questions = list(zip(map(extract_program, responses), texts, strict=True))
        tests = {text: check_tests(text) for text in set(texts)}
        distinct = [one for one in dict.fromkeys(questions) if one[0] is not None]
        outcomes = self._threads.map(lambda one: self._passes(one[0], tests[one[1]]), distinct)
        verdicts = dict(zip(distinct, outcomes, strict=True))
        grades = [
            Grade(verdicts.get(one) is True, one[0] is not None, one[0] is not None and verdicts[one] is None)
            for one in questions
        ]
        if given_up := sum(one.timed_out for one in grades):
            logger.warning(
                "%d of %d programs counted as wrong: over %d s of processor time, %g s on the clock, or %d MiB",
                given_up,
                len(grades),
                *self._limits.values(),
            )
        return grades

    def check_isolation(self) -> None:
        """Start a sandbox and nothing in it.

        Raises:
            RuntimeError: this machine grants no isolation; names the remedy.
        """
        with self._sandbox(CodeTests(None, (), ()), ""):
            pass

    def _passes(self, program: str, tests: CodeTests) -> bool | None:
        """Whether the program passes all tests, the first that it fails being the last that is run; None: given up on."""
        if len(program) > MAX_CHARACTERS:
            return False
        with self._sandbox(tests, program) as process:
            for request, expected in zip(tests.requests, tests.expected, strict=True):
                outcome, output = _answer(process, request)
                if outcome != DONE:
                    return None if outcome == GAVE_UP else False
                if not (_same_text(output, expected) if tests.function is None else _same_results(output, expected)):
                    return False
        return True

    @contextlib.contextmanager
    def _sandbox(self, tests: CodeTests, program: str) -> Iterator[subprocess.Popen[bytes]]:
        """A sandbox that is ready for requests, in a process that is kept for the next if it answers to the end.

        The process ends by itself when its stdin closes; a watchdog stands behind that.
        """
        process = self._waiting() or _start()
        seconds = _START_SECONDS + len(tests.requests) * self._limits["clock_seconds"]
        watchdog = Timer(seconds, process.kill)
        watchdog.start()
        over = False
        try:
            _send(process, {"program": program, "function": tests.function} | self._limits)
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(_REFUSAL.format(process.stderr.read(2_000).decode(errors="replace").strip()))
            yield process
            _send(process, None)
            over = process.stdout.readline() == b"over\n"
        finally:
            watchdog.cancel()
            if over:
                self._idle.append(process)
            else:
                _stop(process)

    def _waiting(self) -> subprocess.Popen[bytes] | None:
        with contextlib.suppress(IndexError):
            while True:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                _stop(process)  # somebody killed it
        return None


def _start() -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(_SANDBOX, stdin=pipe, stdout=pipe, stderr=pipe, env=_ENVIRONMENT, cwd="/", start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
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


def _send(process: subprocess.Popen[bytes], message: dict[str, Any] | None) -> None:
    """A message to the sandbox, None: that its program is over. If it died, its silence will tell."""
    text = b"" if message is None else json.dumps(message).encode()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"%d\n%s" % (len(text), text))
        process.stdin.flush()


def _answer(process: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[str, bytes]:
    """Outcome and output of one run; given up on, if the sandbox died over it."""
    _send(process, request)
    outcome, _, size = process.stdout.readline().decode().partition(" ")
    return (outcome, process.stdout.read(int(size))) if size else (GAVE_UP, b"")


# ---------------------------------------------------------------------------------------------- comparison


def _same_text(printed: bytes, expected: str) -> bool:
    """Line by line, without blanks at the ends of lines and of the text."""
    return _lines(printed.decode(errors="replace")) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _same_results(output: bytes, expected: list[Any]) -> bool:
    try:
        return _same(json.loads(output), expected)
    except (ValueError, OverflowError, RecursionError):  # untrusted: what is no JSON is no result
        return False


def _same(value: Any, expected: Any) -> bool:
    """Equality of JSON values: 2.0 is 2, a float is held to TOLERANCE, and true is not 1."""
    if isinstance(expected, list):
        return isinstance(value, list) and len(value) == len(expected) and all(map(_same, value, expected))
    if isinstance(expected, dict):
        return isinstance(value, dict) and value.keys() == expected.keys() and all(_same(value[k], expected[k]) for k in value)
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(expected, float) and isinstance(value, int | float):
        return value == expected or math.isclose(value, expected, rel_tol=TOLERANCE)
    return value == expected
