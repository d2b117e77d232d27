"""Generated problems: sums, differences, chains and word problems over two-digit numbers, and two tasks used only for testing.

The split of a problem depends only on its canonical form: positive terms, then negative ones, each sorted. So 37+48=?, 48+37=?
and a word problem about 37 apples and 48 more are in the same split in every task, and splits never share a problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from random import Random
from typing import Literal

from sfpo.data.rows import Row
from sfpo.schema import ConfigError
from sfpo.seeding import rng, seed_of

Split = Literal["train", "validation", "test"]
Terms = tuple[int, ...]
"""An expression as signed terms: 12+30-7 is (12, 30, -7). The first term and every partial result are at least 0."""
Signs = tuple[int, ...]
"""Signs of the terms after the first."""
Frames = dict[Signs, tuple[str, ...]]

OPERANDS = range(10, 100)
DRAWN_PROBLEMS = 12_000
"""Number of problems drawn for a task with too many to enumerate."""

STORIES: Frames = {
    (1,): (
        "{name} has {0} {things} and finds {1} more. How many {things} does {name} have now?",
        "{name} has {0} {things}. {friend} has {1}. How many {things} do they have together?",
        "There are {0} {things} in a box and {1} in a bag. How many {things} are there?",
        "{name} buys {0} {things} on Monday and {1} on Tuesday. How many {things} does {name} buy?",
    ),
    (-1,): (
        "{name} has {0} {things} and gives {1} to {friend}. How many {things} are left?",
        "There are {0} {things} on the table. {name} takes {1} of them. How many {things} are left?",
        "{name} has {0} {things}. {friend} has {1} fewer. How many {things} does {friend} have?",
        "{name} needs {0} {things} and has {1}. How many more {things} does {name} need?",
    ),
}
STORY_NAMES = ("Ana", "Ben", "Eva", "Leo", "Mia", "Sam", "Tom", "Zoe")
STORY_THINGS = ("apples", "balls", "books", "cards", "coins", "pens", "shells", "stamps")

NEW_STORY_NAMES = ("Ines", "Kofi", "Nora", "Omar", "Raj", "Yuki")
NEW_STORY_THINGS = ("crows", "ducks", "geese", "larks", "owls")


@dataclass(frozen=True)
class Task:
    """One kind of problem: its expressions, and the function that writes an expression as text."""

    expressions: Callable[[], list[Terms]]
    word: Callable[[Terms, Random], str]


def generate(task: str, split: Split, count: int) -> list[Row]:
    """The first ``count`` problems of a task's split: deterministic, without duplicates, and disjoint from the other splits.

    A longer list starts with the shorter one. Row ids are '<task>-<split>-<number>'.

    Raises:
        ConfigError: there is no such task, or its split has fewer problems.
    """
    expressions = _split(task, split)
    if count > len(expressions):
        raise ConfigError(f"task '{task}' has {len(expressions)} {split} problems; {count} were requested; lower the number")
    return [_row(task, f"{task}-{split}-{number:05d}", terms) for number, terms in enumerate(expressions[:count])]


def canonical(terms: Terms) -> str:
    """The canonical form, the same for equal problems: a+b-c with sorted positive terms, then sorted negative ones."""
    ordered = sorted(terms, key=lambda term: (term < 0, abs(term)))
    return _expression(ordered)


@cache
def _split(task: str, split: Split) -> list[Terms]:
    """A task's expressions in one split, shuffled. Buckets of canonical forms: 0 test, 1 validation, 2 to 9 train."""
    if task not in TASKS:
        raise ConfigError(f"there is no generated task '{task}'; available: {', '.join(TASKS)}")
    buckets = {"test": range(0, 1), "validation": range(1, 2), "train": range(2, 10)}[split]
    chosen = [terms for terms in TASKS[task].expressions() if seed_of("arithmetic split", canonical(terms)) % 10 in buckets]
    rng("arithmetic order", task, split).shuffle(chosen)
    return chosen


def _row(task: str, row_id: str, terms: Terms) -> Row:
    problem = TASKS[task].word(terms, rng("arithmetic words", task, canonical(terms)))
    return Row(id=row_id, problem=problem, answer=(str(sum(terms)),), solution=_worked(terms))


def _worked(terms: Terms) -> str:
    """Column arithmetic, ones before tens, one term after the other: 12+30-7 is '2+0=2 1+3=4 12-7=5 4-0-1=3 \\boxed{35}'.

    A carry is the '+1' of the tens; a borrow adds ten to the ones and is the '-1' of the tens. Each step is one fact about
    small numbers, so that a very small model learns it in seconds, and errors are local.
    """
    steps, result = [], terms[0]
    for term in terms[1:]:
        (tens, ones), (more_tens, more_ones) = divmod(result, 10), divmod(abs(term), 10)
        if term > 0:
            carry = ones + more_ones >= 10
            steps.append(f"{ones}+{more_ones}={ones + more_ones}")
            steps.append(f"{tens}+{more_tens}{'+1' if carry else ''}={tens + more_tens + carry}")
        else:
            borrow = ones < more_ones
            ones += 10 * borrow
            steps.append(f"{ones}-{more_ones}={ones - more_ones}")
            steps.append(f"{tens}-{more_tens}{'-1' if borrow else ''}={tens - more_tens - borrow}")
        result += term
    return " ".join([*steps, f"\\boxed{{{result}}}"])


def _expression(terms: Terms | list[int]) -> str:
    return str(terms[0]) + "".join(f"{term:+d}" for term in terms[1:])


def _as_expression(terms: Terms, _: Random) -> str:
    return f"{_expression(terms)}=?"


def _as_story(frames: Frames, names: tuple[str, ...], things: tuple[str, ...]) -> Callable[[Terms, Random], str]:
    def word(terms: Terms, draw: Random) -> str:
        frame = draw.choice(frames[tuple(1 if term > 0 else -1 for term in terms[1:])])
        name, friend = draw.sample(names, 2)
        return frame.format(*map(abs, terms), name=name, friend=friend, things=draw.choice(things))

    return word


def _sums() -> list[Terms]:
    """Every unordered pair once, the two operands in either order."""
    draw = rng("arithmetic operand order")
    return [tuple(draw.sample(pair, 2)) for pair in combinations_with_replacement(OPERANDS, 2)]


def _differences() -> list[Terms]:
    """Every pair with a result of at least 0."""
    return [(more, -less) for less, more in combinations_with_replacement(OPERANDS, 2)]


def _drawn(name: str, *patterns: Signs) -> Callable[[], list[Terms]]:
    """Different expressions with these signs, drawn at random."""

    def draw_all() -> list[Terms]:
        draw = rng("arithmetic pool", name)
        found: dict[str, Terms] = {}
        while len(found) < DRAWN_PROBLEMS:
            signs = (1, *draw.choice(patterns))
            terms = tuple(sign * draw.choice(OPERANDS) for sign in signs)
            if all(sum(terms[:end]) >= 0 for end in range(1, len(terms) + 1)):
                found.setdefault(canonical(terms), terms)
        return list(found.values())

    return draw_all


TASKS: dict[str, Task] = {
    "sums": Task(_sums, _as_expression),
    "differences": Task(_differences, _as_expression),
    "chains": Task(_drawn("chains", (1, -1)), _as_expression),
    "stories": Task(lambda: _sums() + _differences(), _as_story(STORIES, STORY_NAMES, STORY_THINGS)),
    "new_chains": Task(_drawn("new_chains", (-1, 1)), _as_expression),
    "new_stories": Task(lambda: _sums() + _differences(), _as_story(STORIES, NEW_STORY_NAMES, NEW_STORY_THINGS)),
}
"""In order of difficulty. The last two test generalization from training on the others."""
