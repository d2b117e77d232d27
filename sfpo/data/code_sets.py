r"""Published sets of programming problems, as their authors lay them out: a record becomes a problem and its tests.

The gold is the JSON text of sfpo.rewards.code_gold; the problem's text says what the tests will ask for: a program that reads
stdin, or a function of that name. Layouts, and where each is described:
    livecodebench   livecodebench/code_generation_lite (arXiv 2403.07974); the private tests are packed: base64 of zlib of a
                    pickled text, which is read here without unpickling anything
    deepcoder       agentica-org/DeepCoder-Preview-Dataset: tests in the forms of TACO, PrimeIntellect and LiveCodeBench
    apps            codeparrot/apps (arXiv 2105.09938), BAAI/TACO (arXiv 2312.14852)
    human_eval      openai/openai_humaneval (arXiv 2107.03374)
    mbpp            google-research-datasets/mbpp, both its configurations (arXiv 2108.07732)
A record that cannot be read raises ValueError; all of it is untrusted text, of which nothing is run here.
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
"""Of one test, as in its own grader."""
TOLERANCES = {"stdin": 1e-6, "call": 1e-5}
"""What contests on stdin, and LeetCode, usually grant to floats; the sets do not say it problem by problem."""

_PICKLED_TEXT = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
_PICKLED_TEXT |= {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
"""All that a pickle of one text can consist of."""


@dataclass(frozen=True)
class CodeProblem:
    """One record, read."""

    problem: str
    tests: dict[str, Any]
    """The gold, before it becomes JSON text."""
    solution: str | None = None
    """A program that its authors call right."""


@dataclass(frozen=True)
class Layout:
    """How a set's records are read."""

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
    """Plain JSON in the first release, packed in the later ones."""
    if text.lstrip().startswith("["):
        return _json(text)
    return _json(pickled_text(inflate(base64.b64decode(text, validate=True))))


def pickled_text(data: bytes) -> str:
    """The text that a pickle of one text holds, found by reading its opcodes, none of which is carried out.

    Raises:
        ValueError: the pickle holds anything else: a global, a call, a container, a second value.
    """
    if len(data) > MAX_GOLD_BYTES:
        raise ValueError(f"a pickle of more than {MAX_GOLD_BYTES} bytes")
    texts, stream = [], io.BytesIO(data)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in _PICKLED_TEXT:
            raise ValueError(f"a pickle with {opcode.name}, where one text is due")
        if "UNICODE" in opcode.name:
            texts.append(str(argument))
    if len(texts) != 1 or stream.read(1):
        raise ValueError(f"a pickle of {len(texts)} texts, or with something behind it, where one is due")
    return texts[0]


# ---------------------------------------------------------------------------------------------- DeepCoder, APPS, TACO

Case = tuple[str | None, dict[str, Any]]
"""The function that is called (None: a program), and the case."""


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
    """TACO's '2.0 seconds', '1 second', '500 ms'; None where the set has none."""
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
    # Results often stand in a list of one, by the set's convention, and where all do, it cannot be told: both are right.
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
    raise ValueError(f"a test of the unknown kind {kind!r}")


def _lines(text: Any) -> str:
    """A text, or its lines, numbers among them."""
    if isinstance(text, list):
        return "\n".join(map(_lines, text))
    if not isinstance(text, str | int | float):
        raise ValueError(f"an input or output of type {type(text).__name__}")
    return str(text)


def _arguments(given: Any) -> list[Any]:
    """A list, or a text with one JSON value a line."""
    if isinstance(given, str):
        return [_json(line) for line in given.split("\n") if line.strip()]
    return given


def _problem(question: str, starter_code: str | None, cases: list[Case], seconds: float | None) -> CodeProblem:
    functions = {function for function, _ in cases}
    if len(functions) != 1:
        raise ValueError(f"tests of {len(functions)} kinds, where one is due")
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
    """The one name in the tests that the program must define."""
    nodes = [node for text in (tests, setup) for node in ast.walk(ast.parse(text))]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {
        alias.asname or alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    asked = used - bound - set(dir(builtins)) - sys.stdlib_module_names
    if not asked:  # a task may ask for another `sum`: what every test calls
        calls = [{node.func.id for node in ast.walk(test) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
                 for test in ast.parse(tests).body]  # fmt: skip
        asked = set.intersection(*calls) - bound if calls else set()
    if len(asked) != 1:
        raise ValueError(f"the tests use {', '.join(sorted(asked)) or 'no function'}, where one function is due")
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
        ValueError: it cannot be read: says why.
    """
    try:
        return LAYOUTS[layout].read(record)
    except (KeyError, TypeError, AttributeError, binascii.Error, RecursionError, MemoryError, SyntaxError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _json(text: Any) -> Any:
    """JSON out of a text; anything else as it is."""
    return json.loads(text) if isinstance(text, str | bytes) else text
