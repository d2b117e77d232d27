r"""Readers of published sets of programming problems: each record is converted to a problem and its unit tests.

The gold is the JSON text of sfpo.rewards.code_gold; the problem's text states what the tests require: a program that reads
stdin, or a function of a given name. Formats, and their sources:
    livecodebench   livecodebench/code_generation_lite (arXiv 2403.07974); the private tests are a pickled string, compressed by
                    zlib, in base64; it is read here without unpickling
    deepcoder       agentica-org/DeepCoder-Preview-Dataset: tests in the forms of TACO, PrimeIntellect and LiveCodeBench
    apps            codeparrot/apps (arXiv 2105.09938), BAAI/TACO (arXiv 2312.14852)
    human_eval      openai/openai_humaneval (arXiv 2107.03374)
    mbpp            google-research-datasets/mbpp, both its configurations (arXiv 2108.07732)
A record that cannot be read raises ValueError. Records are untrusted; no code in them is run here.
"""

from __future__ import annotations

import ast
import base64
import binascii
import builtins
import io
import json
import pickletools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sfpo.data.tables import Record
from sfpo.rewards.code_gold import MAX_GOLD_BYTES, MAX_TIME_LIMIT_SECONDS, inflate

LIVECODEBENCH_SECONDS = 6
"""Time limit per test, as in LiveCodeBench's grader."""
TOLERANCES = {"stdin": 1e-6, "call": 1e-5}
"""Tolerances for floats that are usual in stdin contests and on LeetCode; the data sets do not give them per problem."""

_PICKLED_TEXT = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
_PICKLED_TEXT |= {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
"""The opcodes that a pickled string can contain."""


@dataclass(frozen=True)
class CodeProblem:
    """The content of one record."""

    problem: str
    tests: dict[str, Any]
    """The gold, before it is serialized to JSON."""
    solution: str | None = None
    """A reference program of the data set."""


@dataclass(frozen=True)
class Layout:
    """Columns and reader of a data set."""

    needed: tuple[str, ...]
    """Columns."""
    optional: tuple[str, ...]
    read: Callable[[Record], CodeProblem]


# ---------------------------------------------------------------------------------------------- LiveCodeBench


def _livecodebench(record: Record) -> CodeProblem:
    tests = [*_json(record["public_test_cases"]), *_private_tests(record["private_test_cases"])]
    metadata = _json(record["metadata"] or "{}")
    cases = [_typed_case(test, metadata) for test in tests]
    return _problem(record["question_content"], record["starter_code"], cases, LIVECODEBENCH_SECONDS)


def _private_tests(text: str) -> list[Any]:
    """Plain JSON in the first release, compressed in later ones."""
    if text.lstrip().startswith("["):
        return _json(text)
    return _json(pickled_text(inflate(base64.b64decode(text, validate=True))))


def pickled_text(data: bytes) -> str:
    """The string in a pickle that contains just one string, found by parsing its opcodes without executing them.

    Raises:
        ValueError: the pickle contains anything else (a global, a call, a container, a second value).
    """
    if len(data) > MAX_GOLD_BYTES:
        raise ValueError(f"a pickle of more than {MAX_GOLD_BYTES} bytes")
    texts, stream = [], io.BytesIO(data)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in _PICKLED_TEXT:
            raise ValueError(f"a pickle with opcode {opcode.name}, where one string is expected")
        if "UNICODE" in opcode.name:
            texts.append(str(argument))
    if len(texts) != 1 or stream.read(1):
        raise ValueError(f"a pickle of {len(texts)} strings, or with trailing data, where one string is expected")
    return texts[0]


# ---------------------------------------------------------------------------------------------- DeepCoder, APPS, TACO

Case = tuple[str | None, dict[str, Any]]
"""Name of the function under test (None: a whole program), and the test case."""


def _deepcoder(record: Record) -> CodeProblem:
    tests = _json(record["tests"])
    metadata = _json(record.get("metadata") or "{}")
    if isinstance(tests, dict) and "inputs" in tests:
        cases = _parallel_cases(tests)
    else:
        cases = [_typed_case(test, metadata) for test in (tests if isinstance(tests, list) else [tests])]
    return _problem(record["problem"], record.get("starter_code"), cases, None)


def _apps(record: Record) -> CodeProblem:
    cases = _parallel_cases(_json(record["input_output"]))
    solutions = _json(record.get("solutions") or "[]")
    seconds = _seconds(record.get("time_limit"))
    found = _problem(record["question"], record.get("starter_code"), cases, seconds)
    return CodeProblem(found.problem, found.tests, solutions[0] if solutions else None)


def _seconds(limit: Any) -> float | None:
    """Parses TACO's '2.0 seconds', '1 second', '500 ms'; None without a limit."""
    number = re.match(r"\s*(\d+(?:\.\d+)?)\s*(m?)s", str(limit))
    seconds = float(number[1]) / (1000 if number[2] else 1) if number else 0
    return min(seconds, MAX_TIME_LIMIT_SECONDS) or None


def _parallel_cases(tests: dict[str, Any]) -> list[Case]:
    """{"inputs": [...], "outputs": [...]}, with "fn_name" where a function is called."""
    inputs, outputs, function = tests["inputs"], tests["outputs"], tests.get("fn_name")
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs")
    if function is None:
        return [
            (None, {"stdin": _lines(given), "stdout": _lines(wanted)}) for given, wanted in zip(inputs, outputs, strict=True)
        ]
    # By convention results are often wrapped in a list of one. If all are, this is ambiguous, and both forms are accepted.
    wrapped = all(isinstance(wanted, list) and len(wanted) == 1 for wanted in outputs)
    rights = [[wanted[0], wanted] if wrapped else [wanted] for wanted in outputs]
    return [(function, {"arguments": _arguments(given), "results": right}) for given, right in zip(inputs, rights, strict=True)]


def _typed_case(test: dict[str, Any], metadata: dict[str, Any]) -> Case:
    """{"input", "output"} with the kind in "testtype" (LiveCodeBench) or "type" (PrimeIntellect)."""
    kind = test.get("testtype") or test.get("type") or "stdin"
    if kind in ("stdin", "stdin_stdout"):
        return None, {"stdin": _lines(test["input"]), "stdout": _lines(test["output"])}
    if kind == "functional":
        function = (test.get("metadata") or {}).get("func_name") or metadata.get("func_name")
        return function, {"arguments": _arguments(test["input"]), "result": _json(test["output"])}
    if kind == "function_call":
        return _parallel_cases({"inputs": [test["input"]], "outputs": [test["output"]], "fn_name": test["fn_name"]})[0]
    raise ValueError(f"a test of unknown type {kind!r}")


def _lines(text: Any) -> str:
    """A string, or a list of lines, which can be numbers."""
    if isinstance(text, list):
        return "\n".join(map(_lines, text))
    if not isinstance(text, str | int | float):
        raise ValueError(f"an input or output of type {type(text).__name__}")
    return str(text)


def _arguments(given: Any) -> list[Any]:
    """A list, or a string with one JSON value per line."""
    if isinstance(given, str):
        return [_json(line) for line in given.split("\n") if line.strip()]
    return given


def _problem(question: str, starter_code: str | None, cases: list[Case], seconds: float | None) -> CodeProblem:
    functions = {function for function, _ in cases}
    if len(functions) != 1:
        raise ValueError(f"the tests call {len(functions)} different functions or programs, where one is expected")
    (function,) = functions
    tests = {"cases": [case for _, case in cases], "tolerance": TOLERANCES["stdin" if function is None else "call"]}
    tests |= {} if function is None else {"function": function}
    tests |= {} if seconds is None else {"time_limit_seconds": seconds}
    asked = "Write a Python program that reads the input from stdin and prints the answer to stdout."
    if function is not None:
        asked = f"Write the Python function `{function}`."
        if starter_code and starter_code.strip():
            asked = f"Write `{function}` in Python, starting from this code:\n```python\n{starter_code.rstrip()}\n```"
    return CodeProblem(f"{question.strip()}\n\n{asked}" if question and question.strip() else "", tests)


# ---------------------------------------------------------------------------------------------- HumanEval, MBPP


def _human_eval(record: Record) -> CodeProblem:
    prompt = record["prompt"]
    tests = {"function": record["entry_point"], "check": record["test"], "preamble": prompt}
    problem = f"Complete this Python function:\n```python\n{prompt.rstrip()}\n```"
    solution = record.get("canonical_solution")
    return CodeProblem(problem if prompt.strip() else "", tests, solution and f"{prompt}{solution}")


def _mbpp(record: Record) -> CodeProblem:
    shown = "\n".join(record["test_list"])
    setup = "\n".join([*(record.get("test_imports") or []), record.get("test_setup_code") or ""]).strip()
    tests = {"function": _tested_function(shown, setup), "check": shown}
    tests |= {"preamble": setup} if setup else {}
    words = (record.get("text") or record.get("prompt") or "").strip()
    return CodeProblem(
        f"{words}\nYour function must pass these tests:\n```python\n{shown}\n```" if words else "", tests, record.get("code")
    )


def _tested_function(tests: str, setup: str) -> str:
    """The name in the tests that the program must define."""
    nodes = [node for text in (tests, setup) for node in ast.walk(ast.parse(text))]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {
        alias.asname or alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    asked = used - bound - set(dir(builtins)) - sys.stdlib_module_names
    if not asked:  # the function may shadow a builtin such as `sum`: take the name that every test calls
        calls = [{node.func.id for node in ast.walk(test) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
                 for test in ast.parse(tests).body]  # fmt: skip
        asked = set.intersection(*calls) - bound if calls else set()
    if len(asked) != 1:
        raise ValueError(f"the tests use {', '.join(sorted(asked)) or 'no function'}, where one function is expected")
    return asked.pop()


# ---------------------------------------------------------------------------------------------- all layouts

LAYOUTS: dict[str, Layout] = {
    "livecodebench": Layout(
        ("question_content", "starter_code", "public_test_cases", "private_test_cases", "metadata"), (), _livecodebench
    ),
    "deepcoder": Layout(("problem", "tests"), ("starter_code", "metadata"), _deepcoder),
    "apps": Layout(("question", "input_output"), ("starter_code", "solutions", "time_limit"), _apps),
    "human_eval": Layout(("prompt", "entry_point", "test"), ("canonical_solution",), _human_eval),
    "mbpp": Layout(("test_list",), ("text", "prompt", "code", "test_imports", "test_setup_code"), _mbpp),
}


def read_problem(layout: str, record: Record) -> CodeProblem:
    """One record of a set.

    Raises:
        ValueError: it cannot be read; the message gives the reason.
    """
    try:
        return LAYOUTS[layout].read(record)
    except (KeyError, TypeError, AttributeError, binascii.Error, RecursionError, MemoryError, SyntaxError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _json(text: Any) -> Any:
    """Parses a JSON string; returns any other value unchanged."""
    return json.loads(text) if isinstance(text, str | bytes) else text
