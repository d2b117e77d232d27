r"""The gold of a code task is its tests, as a JSON string. This module parses it, and compares a program's outputs with it.

Three formats:
    {"function": "f", "cases": [{"arguments": [3, 4], "result": 7}, ...]}     function f, or method f of a class Solution
    {"cases": [{"stdin": "3 4\n", "stdout": "7\n"}, ...]}                     a program that reads stdin and prints
    {"function": "f", "check": "def check(candidate): assert candidate(3, 4) == 7"}     f, by code that calls it

If several outputs are correct, a case has a list `results` instead of `result`, or `stdouts` instead of `stdout`. Optional
keys:
    time_limit_seconds   CPU time limit of one case; default: the grader's limit for a whole run
    tolerance            for floats: |a - b| <= tolerance * max(1, |b|); default 1e-9
    preamble             code that runs before the program: imports and helpers that the problem statement provides
A long gold may be stored compressed: 'zlib:' followed by the base64 of its zlib stream (``compressed``).
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
"""Maximum size of a decompressed gold, in bytes."""
COMPRESSED_FROM = 64 * 2**10
"""Number of characters from which a gold is stored compressed."""
_COMPRESSED = "zlib:"
_OPTIONS = {"time_limit_seconds", "tolerance", "preamble"}


@dataclass(frozen=True)
class CodeTests:
    """The tests of one problem, grouped into runs of the program: one run per stdin; all calls of a function in one run, or one
    run per call if the gold has a time limit per case."""

    function: str | None
    """Function under test; None if the tests run a whole program on stdin."""
    requests: tuple[dict[str, Any], ...]
    """Input of each run."""
    expected: tuple[Any, ...]
    """For each run: the list of correct outputs, or, for each call of the run, the list of correct results."""
    check: str | None = None
    """Code that defines ``check(candidate)``, or calls the function by its name; it raises if the program is wrong."""
    preamble: str | None = None
    tolerance: float = TOLERANCE
    time_limit_seconds: float | None = None

    @property
    def reads(self) -> bool:
        """Whether any run has input on stdin."""
        return any(request.get("stdin", "").strip() for request in self.requests)

    @property
    def longest_output(self) -> int:
        """Number of characters of the longest correct output."""
        if self.function is None:
            return max((len(text) for texts in self.expected for text in texts), default=0)
        return max((len(json.dumps(results)) for results in self.expected), default=0)


def compressed(gold: str) -> str:
    """The gold in its stored form: compressed if it has at least COMPRESSED_FROM characters."""
    if len(gold) < COMPRESSED_FROM:
        return gold
    return _COMPRESSED + base64.b64encode(zlib.compress(gold.encode())).decode()


def inflate(data: bytes, limit: int = MAX_GOLD_BYTES) -> bytes:
    """Decompress a zlib stream.

    Raises:
        ValueError: it is corrupt, or decompresses to more than ``limit`` bytes.
    """
    try:
        machine = zlib.decompressobj()
        content = machine.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"not a zlib stream ({error})") from None
    if machine.unconsumed_tail:
        raise ValueError(f"zlib stream decompresses to more than {limit} bytes")
    if not machine.eof:
        raise ValueError("truncated zlib stream")
    return content


@lru_cache(maxsize=64)
def check_tests(text: str) -> CodeTests:
    """Parse and validate a gold.

    Raises:
        ValueError: it has none of the formats above, or a program that does nothing would pass.
    """
    tests = _json(text)
    shown = text[:80]
    if not isinstance(tests, dict) or ("check" in tests) == ("cases" in tests):
        raise ValueError(f"tests must be an object with a list `cases`, or with `function` and `check`: {shown!r}")
    if unknown := set(tests) - _OPTIONS - {"function", "check", "cases"}:
        raise ValueError(f"tests have a key '{min(unknown)}'; allowed besides `cases`: {', '.join(sorted(_OPTIONS))}")
    function, options = tests.get("function"), {key: tests[key] for key in _OPTIONS & set(tests)}
    _check_options(options)
    if (function is not None or "check" in tests) and not (isinstance(function, str) and function.isidentifier()):
        raise ValueError(f"`function` must be a name: {shown!r}")
    if "check" in tests:
        if not (isinstance(tests["check"], str) and tests["check"].strip()):
            raise ValueError(f"`check` must be a non-blank string of code: {shown!r}")
        return CodeTests(function, (), (), tests["check"], **options)
    if not (isinstance(tests["cases"], list) and tests["cases"]):
        raise ValueError(f"tests must have a non-empty list `cases`: {shown!r}")
    read = _stdin_case if function is None else _call_case
    cases = [read(number, case, shown) for number, case in enumerate(tests["cases"])]
    expected = [right for _, right in cases]
    if function is None:
        if not any(text.strip() for texts in expected for text in texts):
            raise ValueError(f"every `stdout` must be a non-blank string, or a program that does nothing would pass: {shown!r}")
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
            raise ValueError(f"`{key}` = {value!r}: it must be a number above 0 and at most {most:g}")
    if not isinstance(options.get("preamble", ""), str):
        raise ValueError(f"`preamble` must be a string of code, not of type {type(options['preamble']).__name__}")


def _case(number: int, case: Any, given: str, kind: type, wanted: str, shown: str) -> tuple[Any, list[Any]]:
    """(input of one case, list of its correct outputs)."""
    if not (isinstance(case, dict) and set(case) in ({given, wanted}, {given, f"{wanted}s"}) and isinstance(case[given], kind)):
        raise ValueError(f"case {number} must have only `{given}` ({kind.__name__}) and `{wanted}` or `{wanted}s`: {shown!r}")
    right = case.get(f"{wanted}s", [case.get(wanted)])
    if not (isinstance(right, list) and right):
        raise ValueError(f"case {number}: `{wanted}s` must be a non-empty list of correct outputs: {shown!r}")
    return case[given], right


def _stdin_case(number: int, case: Any, shown: str) -> tuple[str, list[str]]:
    given, right = _case(number, case, "stdin", str, "stdout", shown)
    if not all(isinstance(text, str) for text in right):
        raise ValueError(f"case {number}: `stdout` must be a string: {shown!r}")
    return given, right


def _call_case(number: int, case: Any, shown: str) -> tuple[list[Any], list[Any]]:
    return _case(number, case, "arguments", list, "result", shown)


# ---------------------------------------------------------------------------------------------- comparison


def output_matches(printed: bytes, right: list[str], tolerance: float) -> bool:
    """Whether the output equals one of the ``right`` texts. Compared line by line; amounts of whitespace between words and
    trailing whitespace and lines are ignored; words that are floats in the right text are compared with the tolerance."""
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
    """The value of a word with a decimal point or an exponent; None for others, since integers are compared as text."""
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


def results_match(output: bytes, right: list[list[Any]], tolerance: float) -> bool:
    """Whether the output is a JSON list with one correct result per call (``right``: the correct results of each call)."""
    try:
        results = json.loads(output)
        return len(results) == len(right) and all(
            any(_same(value, one, tolerance) for one in allowed) for value, allowed in zip(results, right, strict=True)
        )
    except (ValueError, TypeError, OverflowError, RecursionError):  # untrusted output: anything else than such a list is wrong
        return False


def _same(value: Any, right: Any, tolerance: float) -> bool:
    """Equality of JSON values: 2.0 equals 2, floats are compared with the tolerance, and true does not equal 1."""
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
