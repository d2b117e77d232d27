"""Generated programming problems for very small models: functions of one or two small integers, with their tests.

The split of a problem depends only on the values of its function on a grid of arguments: problems with equal functions are in
the same split in every task, so splits never share a problem.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product, starmap

from sfpo.data.arithmetic import Split
from sfpo.data.rows import Row
from sfpo.schema import ConfigError
from sfpo.seeding import rng, seed_of

Arguments = tuple[int, ...]

PAIRS: tuple[Arguments, ...] = ((0, 0), (1, 0), (0, 1), (2, 5), (5, 2), (3, 3), (-4, 7), (9, -6))
"""Tests of a function of x and y: both sides of x < y, and the line between."""
COUNTS: tuple[Arguments, ...] = tuple((n,) for n in (*range(1, 11), 20))
"""Tests of a function of n: the values up to 10 distinguish every start and step of a loop."""


@dataclass(frozen=True)
class Problem:
    """One function to write."""

    words: str
    program: str
    function: Callable[..., int]
    """Reference implementation, independent of the program."""
    tested: tuple[Arguments, ...]


def generate(task: str, split: Split, count: int) -> list[Row]:
    """The first ``count`` problems of a task's split: deterministic, without duplicates, and disjoint from the other splits.

    A longer list starts with the shorter one. Row ids are '<task>-<split>-<number>'. The gold is the JSON text of the tests
    (sfpo.rewards.code_tests), the solution a fenced program that passes them.

    Raises:
        ConfigError: there is no such task, or its split has fewer problems.
    """
    problems = _split(task, split)
    if count > len(problems):
        raise ConfigError(f"task '{task}' has {len(problems)} {split} problems; {count} were requested; lower the number")
    return [_row(f"{task}-{split}-{number:05d}", problem) for number, problem in enumerate(problems[:count])]


def canonical(problem: Problem) -> str:
    """The values on a grid of arguments, the same for equal functions."""
    numbers = range(-15, 16) if len(problem.tested[0]) == 2 else range(31)
    return str(list(starmap(problem.function, product(numbers, repeat=len(problem.tested[0])))))


@cache
def _split(task: str, split: Split) -> list[Problem]:
    """A task's problems in one split, shuffled. Buckets of canonical forms: 0 test, 1 validation, 2 to 9 train."""
    buckets = {"test": range(0, 1), "validation": range(1, 2), "train": range(2, 10)}[split]
    chosen = [problem for form, problem in _all(task).items() if seed_of("programs split", form) % 10 in buckets]
    rng("programs order", task, split).shuffle(chosen)
    return chosen


@cache
def _all(task: str) -> dict[str, Problem]:
    """Canonical form -> problem; of equal functions the first."""
    if task not in TASKS:
        raise ConfigError(f"there is no generated task '{task}'; available: {', '.join(TASKS)}")
    found: dict[str, Problem] = {}
    for problem in TASKS[task]():
        found.setdefault(canonical(problem), problem)
    return found


def _row(row_id: str, problem: Problem) -> Row:
    cases = [{"arguments": list(point), "result": problem.function(*point)} for point in problem.tested]
    tests = json.dumps({"function": "f", "cases": cases})
    return Row(id=row_id, problem=problem.words, answer=(tests,), solution=f"```python\n{problem.program}\n```")


# ---------------------------------------------------------------------------------------------- tasks


def _formulas() -> Iterator[Problem]:
    """a x + b y + c, with a from 1 to 9, b to 9 and c to 12 of either sign."""
    for a, b, c in product(range(1, 10), [*range(-9, 0), *range(1, 10)], range(-12, 13)):
        words = f"{_times(a, 'x')} {'plus' if b > 0 else 'minus'} {_times(abs(b), 'y')}"
        code = f"{_product(a, 'x')} {'+' if b > 0 else '-'} {_product(abs(b), 'y')}"
        yield Problem(
            f"Write f(x, y): {words}{',' if c else ''}{_plus(c)}.",
            f"def f(x, y):\n    return {code}{_sum(c)}",
            lambda x, y, a=a, b=b, c=c: a * x + b * y + c,
            PAIRS,
        )


def _branches() -> Iterator[Problem]:
    """x or y plus a constant, depending on which of the two is larger."""
    leaves = list(product("xy", range(-12, 13)))
    for less, (first, m), (second, n) in product([False, True], leaves, leaves):
        if (first, m) == (second, n):
            continue
        yield Problem(
            f"Write f(x, y): if x is {'less' if less else 'greater'} than y, {first}{_plus(m)}, otherwise {second}{_plus(n)}.",
            f"def f(x, y):\n    if x {'<' if less else '>'} y:\n        return {first}{_sum(m)}\n    return {second}{_sum(n)}",
            partial(_branch, less, (first, m), (second, n)),
            PAIRS,
        )


def _branch(less: bool, first: tuple[str, int], second: tuple[str, int], x: int, y: int) -> int:
    name, number = first if (x < y if less else x > y) else second
    return (x if name == "x" else y) + number


def _loops() -> Iterator[Problem]:
    """The sum of a k + b over k from a start to n by a step."""
    for a, b, start, step in product(range(1, 10), range(-9, 10), range(1, 6), range(1, 6)):
        by, stride = (f" by {step}", f", {step}") if step > 1 else ("", "")
        term = f"{_product(a, 'k')}{_sum(b)}"
        yield Problem(
            f"Write f(n): the sum of {_times(a, 'k')}{_plus(b)}, k from {start} to n{by}.",
            f"def f(n):\n    s = 0\n    for k in range({start}, n + 1{stride}):\n        s += {term}\n    return s",
            lambda n, a=a, b=b, start=start, step=step: sum(a * k + b for k in range(start, n + 1, step)),
            COUNTS,
        )


def _times(factor: int, name: str) -> str:
    return name if factor == 1 else f"{factor} times {name}"


def _product(factor: int, name: str) -> str:
    return name if factor == 1 else f"{factor} * {name}"


def _plus(number: int) -> str:
    return f" {'plus' if number > 0 else 'minus'} {abs(number)}" if number else ""


def _sum(number: int) -> str:
    return f" {'+' if number > 0 else '-'} {abs(number)}" if number else ""


TASKS: dict[str, Callable[[], Iterator[Problem]]] = {"formulas": _formulas, "branches": _branches, "loops": _loops}
"""In order of program length."""
