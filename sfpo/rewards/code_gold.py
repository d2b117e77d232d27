r"""The gold of a code task, its tests: one JSON text, and the comparison of outputs with it.

Three forms:
    {"function": "f", "cases": [{"arguments": [3, 4], "result": 7}, ...]}     f, or the method f of a class Solution
    {"cases": [{"stdin": "3 4\n", "stdout": "7\n"}, ...]}                     a whole program
    {"function": "f", "check": "def check(candidate): assert candidate(3, 4) == 7"}     f, by code that calls it

Where several outputs are right, a case has the list `results` in place of `result`, or `stdouts` in place of `stdout`. A gold
may also state:
    time_limit_seconds   processor time of one case, in place of the grader's own limit for a run
    tolerance            of floats: |a - b| <= tolerance * max(1, |b|); without it 1e-9
    preamble             code that runs before the program: imports and helpers that the problem shows
A long gold may be stored compressed: 'zlib:' and the base64 of its zlib stream (``compressed``).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

TOLERANCE = 1e-9
MAX_TIME_LIMIT_SECONDS = 60.0
MAX_GOLD_BYTES = 512 * 2**20
"""A gold that unpacks to more is refused."""
COMPRESSED_FROM = 64 * 2**10
"""Characters from which a gold is stored compressed."""
_COMPRESSED = "zlib:"
_OPTIONS = {"time_limit_seconds", "tolerance", "preamble"}


@dataclass(frozen=True)
class CodeTests:
    """The tests of one problem, in runs: all calls of a function are one (with a limit of their own, each is one), each stdin
    is one."""

    function: str | None
    """None: the tests are of a whole program."""
    requests: tuple[dict[str, Any], ...]
    """What the program gets in each run."""
    expected: tuple[Any, ...]
    """What must come back: the texts that are right, or for each call of the run the list of results that are."""
    check: str | None = None
    """Code that defines ``check(candidate)`` or calls the function by its name, and raises where the program is wrong."""
    preamble: str | None = None
    tolerance: float = TOLERANCE
    time_limit_seconds: float | None = None

    @property
    def reads(self) -> bool:
        """There is something on stdin."""
        return any(request.get("stdin", "").strip() for request in self.requests)

    @property
    def longest_output(self) -> int:
        """Characters of the longest output that is right."""
        if self.function is None:
            return max((len(text) for texts in self.expected for text in texts), default=0)
        return max((len(json.dumps(results)) for results in self.expected), default=0)


def compressed(gold: str) -> str:
    """The gold as it is stored: itself, or compressed where it is long."""
    if len(gold) < COMPRESSED_FROM:
        return gold
    return _COMPRESSED + base64.b64encode(zlib.compress(gold.encode())).decode()


def inflate(data: bytes, limit: int = MAX_GOLD_BYTES) -> bytes:
    """What a zlib stream holds.

    Raises:
        ValueError: it is damaged, or holds more than ``limit`` bytes.
    """
    try:
        machine = zlib.decompressobj()
        content = machine.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"not a zlib stream ({error})") from None
    if machine.unconsumed_tail:
        raise ValueError(f"more than {limit} bytes")
    if not machine.eof:
        raise ValueError("a zlib stream that is cut off")
    return content


@lru_cache(maxsize=64)
def check_tests(text: str) -> CodeTests:
    """Read a gold.

    Raises:
        ValueError: it is not of a form above, or a program that does nothing would pass.
    """
    tests = _json(text)
    shown = text[:80]
    if not isinstance(tests, dict) or ("check" in tests) == ("cases" in tests):
        raise ValueError(f"tests must be an object with a list `cases`, or with `function` and `check`: {shown!r}")
    if unknown := set(tests) - _OPTIONS - {"function", "check", "cases"}:
        raise ValueError(f"tests have a key '{min(unknown)}'; allowed beside a list `cases`: {', '.join(sorted(_OPTIONS))}")
    function, options = tests.get("function"), {key: tests[key] for key in _OPTIONS & set(tests)}
    _check_options(options)
    if (function is not None or "check" in tests) and not (isinstance(function, str) and function.isidentifier()):
        raise ValueError(f"`function` must be a name: {shown!r}")
    if "check" in tests:
        if not (isinstance(tests["check"], str) and tests["check"].strip()):
            raise ValueError(f"`check` must be code: {shown!r}")
        return CodeTests(function, (), (), tests["check"], **options)
    if not (isinstance(tests["cases"], list) and tests["cases"]):
        raise ValueError(f"tests must hold a list `cases` that is not empty: {shown!r}")
    read = _stdin_case if function is None else _call_case
    cases = [read(number, case, shown) for number, case in enumerate(tests["cases"])]
    expected = [right for _, right in cases]
    if function is None:
        if not any(text.strip() for texts in expected for text in texts):
            raise ValueError(
                f"every `stdout` must be a text that is not blank, or a program that does nothing passes: {shown!r}"
            )
        return CodeTests(None, tuple({"stdin": given} for given, _ in cases), tuple(expected), **options)
    if all(None in results for results in expected):
        raise ValueError(f"every `result` is null, so a function that does nothing would pass: {shown!r}")
    runs = [cases] if "time_limit_seconds" not in options else [[case] for case in cases]
    requests = tuple({"arguments": [given for given, _ in run]} for run in runs)
    return CodeTests(function, requests, tuple([right for _, right in run] for run in runs), **options)


def _json(text: str) -> Any:
    try:
        if text.startswith(_COMPRESSED):
            text = inflate(base64.b64decode(text[len(_COMPRESSED) :], validate=True)).decode()
        return json.loads(text)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise ValueError(f"tests are not valid JSON ({error}): {text[:80]!r}") from None


def _check_options(options: dict[str, Any]) -> None:
    for key, most in (("time_limit_seconds", MAX_TIME_LIMIT_SECONDS), ("tolerance", 1.0)):
        value = options.get(key, most)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise ValueError(f"`{key}` = {value!r}: it must be a number above 0, {most:g} at most")
    if not isinstance(options.get("preamble", ""), str):
        raise ValueError(f"`preamble` must be code, not of type {type(options['preamble']).__name__}")


def _case(number: int, case: Any, given: str, kind: type, wanted: str, shown: str) -> tuple[Any, list[Any]]:
    """What the program gets in one case, and what is right."""
    if not (isinstance(case, dict) and set(case) in ({given, wanted}, {given, f"{wanted}s"}) and isinstance(case[given], kind)):
        raise ValueError(f"case {number} must hold `{given}` ({kind.__name__}) and `{wanted}` or `{wanted}s` alone: {shown!r}")
    right = case.get(f"{wanted}s", [case.get(wanted)])
    if not (isinstance(right, list) and right):
        raise ValueError(f"case {number}: `{wanted}s` must be a list of what is right: {shown!r}")
    return case[given], right


def _stdin_case(number: int, case: Any, shown: str) -> tuple[str, list[str]]:
    given, right = _case(number, case, "stdin", str, "stdout", shown)
    if not all(isinstance(text, str) for text in right):
        raise ValueError(f"case {number}: `stdout` must be a text: {shown!r}")
    return given, right


def _call_case(number: int, case: Any, shown: str) -> tuple[list[Any], list[Any]]:
    return _case(number, case, "arguments", list, "result", shown)


# ---------------------------------------------------------------------------------------------- comparison


def right_text(printed: bytes, right: list[str], tolerance: float) -> bool:
    """Is the output one of the texts? Line by line, without blanks at the ends of lines and of the text; within a line the
    number of blanks between words is free, and a word that is a float in the right text is held to the tolerance."""
    found = _lines(printed.decode(errors="replace"))
    return any(
        len(found) == len(lines) and all(_same_line(*pair, tolerance) for pair in zip(found, lines, strict=True))
        for lines in map(_lines, right)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _same_line(found: str, right: str, tolerance: float) -> bool:
    if found == right:
        return True
    words, right_words = found.split(), right.split()
    indented = len(found) - len(found.lstrip()) != len(right) - len(right.lstrip())
    return (
        not indented
        and len(words) == len(right_words)
        and all(
            word == other or _close(_float(word), _decimal(other), tolerance)
            for word, other in zip(words, right_words, strict=True)
        )
    )


def _decimal(word: str) -> float | None:
    """A number with a point or an exponent: a float; an integer is held to its digits."""
    return _float(word) if any(mark in word for mark in ".eE") else None


def _float(word: str) -> float | None:
    try:
        return float(word) if "_" not in word else None
    except ValueError:
        return None


def _close(value: float | None, right: float | None, tolerance: float) -> bool:
    if value is None or right is None or not (math.isfinite(value) and math.isfinite(right)):
        return False
    return abs(value - right) <= tolerance * max(1.0, abs(right))


def right_results(output: bytes, right: list[list[Any]], tolerance: float) -> bool:
    """Is the output the JSON list of one right result for each call?"""
    try:
        results = json.loads(output)
        return len(results) == len(right) and all(
            any(_same(value, one, tolerance) for one in allowed) for value, allowed in zip(results, right, strict=True)
        )
    except (ValueError, TypeError, OverflowError, RecursionError):  # untrusted: what is no such list is no result
        return False


def _same(value: Any, right: Any, tolerance: float) -> bool:
    """Equality of JSON values: 2.0 is 2, a float is held to the tolerance, and true is not 1."""
    if isinstance(right, list):
        return (
            isinstance(value, list)
            and len(value) == len(right)
            and all(_same(*pair, tolerance) for pair in zip(value, right, strict=True))
        )
    if isinstance(right, dict):
        return (
            isinstance(value, dict)
            and value.keys() == right.keys()
            and all(_same(value[key], right[key], tolerance) for key in value)
        )
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(right, float) and isinstance(value, int | float):
        return value == right or _close(float(value), right, tolerance)
    return value == right
