"""Runs inside the sandbox's innermost process: the program of a response, or the checking code that calls it. Imports only the
standard library.

Values are exchanged as JSON with tags for other plain types (``pack``), so that a program can only return plain data.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import choice  # in the same folder, which is the only one on the path

RESULTS = 3
"""File descriptor for a function's results; for checking code, for its calls."""
REPLIES = 4
"""File descriptor from which checking code reads the results of its calls."""
RECURSION_LIMIT = 50_000
_MODULES = (
    "bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator, os, random, re, statistics, "
    "string, sys, time, typing"
)
_STARRED = "string re datetime collections heapq bisect copy math random statistics itertools functools operator typing"
"""Modules that are star-imported, in this order."""


def prelude() -> dict[str, Any]:
    """Names that a program may use without importing them, as on LeetCode and in LiveCodeBench's grader: `List`, `deque`,
    `gcd`, `math` ..., and `exit`, which Python's site module would define."""
    names: dict[str, Any] = {"exit": sys.exit, "quit": sys.exit}
    lines = [f"from {module} import *" for module in _STARRED.split()]
    exec("\n".join([*lines, "from builtins import *", f"import {_MODULES}"]), names)
    return names


PRELUDE = prelude()
"""Built once per process; programs run in forks of it."""

# `threading.stack_size(...); Thread(target=main).start()` is a common idiom for deep recursion. The sandbox forbids threads, so
# start() runs the target directly.
threading.Thread.start = lambda self: self.run()  # type: ignore[method-assign]  # on purpose, as said above
threading.Thread.join = lambda self, timeout=None: None  # type: ignore[method-assign]  # as above
threading.stack_size = lambda size=0: 0


# ---------------------------------------------------------------------------------------------- the program


def execute(job: dict[str, Any], request: dict[str, Any]) -> int:
    """Run the program, and call its function if the request has arguments.

    Returns:
        The exit status.
    """
    sys.setrecursionlimit(RECURSION_LIMIT)
    main = sys.modules["__main__"] = ModuleType("__main__")
    if "check" in job:
        return _check(job, main.__dict__)
    status = _load(job, main)
    if "arguments" in request:
        called = _function(job["function"], main)
        _write(RESULTS, json.dumps([called(*one) for one in request["arguments"]]).encode())
    elif "call" in request:
        arguments, named = unpack(request["call"])
        _write(RESULTS, json.dumps(pack(_function(job["function"], main)(*arguments, **named))).encode())
    atexit._run_exitfuncs()  # some programs buffer their output and print it in an exit handler
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not getattr(stream, "closed", False):  # like Python itself at exit
            stream.flush()
    return status & 255


def _load(job: dict[str, Any], main: ModuleType) -> int:
    """Run the selected blocks in the namespace of ``main``."""
    function, preamble = job["function"], job.get("preamble")
    main.__dict__.update({name: value for name, value in PRELUDE.items() if name != function})
    if preamble is not None:
        exec(compile(preamble, "preamble.py", "exec", dont_inherit=True), main.__dict__)
        main.__dict__.pop(function, None)  # the stub from the problem's preamble
    status = 0
    try:
        for part in choice.choose(job["blocks"], function, job["reads"], preamble):
            exec(compile(part, "program.py", "exec", dont_inherit=True), main.__dict__)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except EOFError:  # a usage example after the function asked for input, but there is none
        if function is None:
            raise
    return 0 if function is not None else status


def _function(name: str, main: ModuleType) -> Callable[..., Any]:
    solution = getattr(main, "Solution", None)
    if solution is not None and hasattr(solution, name):
        return getattr(solution(), name)
    return getattr(main, name)


def _write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


# ---------------------------------------------------------------------------------------------- the check


class ProgramFailed(Exception):
    """The program failed when the checking code called its function."""


def _check(job: dict[str, Any], names: dict[str, Any]) -> int:
    """Run the checking code. Each call of the function is sent as a message, and its result is received as one."""
    names.update(PRELUDE)
    exec(compile(job.get("preamble") or "", "preamble.py", "exec", dont_inherit=True), names)
    names[job["function"]] = _call
    exec(compile(job["check"], "check.py", "exec", dont_inherit=True), names)
    check = names.get("check")
    if callable(check) and check is not _call:  # the function under test may itself be called check
        check(_call)
    return 0


def _call(*arguments: Any, **named: Any) -> Any:
    text = json.dumps(pack((arguments, named))).encode()
    _write(RESULTS, b"%d\n%s" % (len(text), text))
    reply = read_message(REPLIES)
    if not reply:
        raise ProgramFailed
    return unpack(json.loads(reply))


def read_message(descriptor: int, limit: int = sys.maxsize) -> bytes:
    """Read the next message, which is preceded by a line with its length; empty at the end of the stream. Reads no further.

    Raises:
        ValueError: malformed message, or longer than ``limit`` bytes.
    """
    size = b""
    while len(size) < 20 and (byte := os.read(descriptor, 1)) not in (b"\n", b""):
        size += byte
    if int(size or 0) > limit:
        raise ValueError(f"message of {int(size)} bytes exceeds the limit of {limit}")
    message = bytearray()
    while len(message) < int(size or 0) and (part := os.read(descriptor, int(size) - len(message))):
        message += part
    return bytes(message)


# ---------------------------------------------------------------------------------------------- values as text

_TAGS: dict[type[Any], str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}


def pack(value: Any) -> Any:
    """Convert a value for JSON: strings, numbers, booleans, None and lists unchanged, other plain types as {tag: ...}.

    Raises:
        TypeError: it is or contains something other than plain data.
    """
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, list):
        return [pack(one) for one in value]
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(one)] for key, one in value.items()]}
    for kind, tag in _TAGS.items():
        if isinstance(value, kind):
            return {tag: [pack(one) for one in value]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": list(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if value in _TYPES.values():
        return {"type": value.__name__}
    raise TypeError(f"a value of type {type(value).__name__} is not plain data")


def unpack(value: Any) -> Any:
    """The inverse of ``pack``."""
    if isinstance(value, list):
        return [unpack(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    match tag:
        case "dict":
            return {unpack(key): unpack(one) for key, one in content}
        case "bytes":
            return bytes(content)
        case "complex":
            return complex(*content)
        case "type":
            return _TYPES[content]
    return next(kind for kind, name in _TAGS.items() if name == tag)(map(unpack, content))
