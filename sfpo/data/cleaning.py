"""Which rows can be used: golds that the grader can read, problems that are there once."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from math_verify import parse, verify

from sfpo.rewards import equivalence
from sfpo.rewards.code_gold import check_tests
from sfpo.rewards.spelling import plain_unicode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfpo.config import GraderName
    from sfpo.data.rows import Row

READING_SECONDS = 120
"""Math-Verify takes half a second for the longest gold; which rows are kept must not depend on how busy the machine is."""

_LOOKALIKES = str.maketrans("，。．？：；（）’‘“”−–", ",..?:;()''\"\"--")
_FORMATTING = (
    (r"\\[dt]frac(?![a-z])", r"\\frac"),
    (r"\\(left|right)(?![a-z])", ""),
    (r"\{,\}", ","),
    (r"(?<!\\)\\[][()]", ""),  # display and inline mathematics: \[ \] \( \)
    (r"(?<!\\)\\([ ,;:!]|quad(?![a-z])|qquad(?![a-z]))|~", ""),
    (r"\\?\$", ""),
    (r"\s+", ""),
    (r"\.(?!\d)|(?<!\d)[,:]|[,:](?!\d)|[;?\"`]", ""),  # keeps 1.5, .5, 1,2 and 3:4, and the signs ! and ' of mathematics
)
_RULES = [(re.compile(pattern), replacement) for pattern, replacement in _FORMATTING]


def normalized(text: str) -> str:
    """The text without what only formats it: case, blanks, `$`, punctuation, \\left, \\right, \\dfrac for \\frac.

    Two problems with one normalized text count as one problem.
    """
    text = text.casefold().translate(_LOOKALIKES)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


@cache
def parsed(gold: str) -> list[Any]:
    """What Math-Verify reads in a gold (with a limit by SIGALRM: main thread only). Empty: it reads nothing; one text: it reads
    no mathematics, and only the same text will be accepted as an answer."""
    return parse(f"${gold}$", parsing_timeout=READING_SECONDS)


def is_integer(gold: str) -> bool:
    return re.fullmatch(r"-?\d+", gold) is not None


def fault(row: Row, max_problem_characters: int | None = None, grader: GraderName = "math") -> str | None:
    """Why a row cannot be used, in the words of the report; None: it can."""
    if not row.problem:
        return "empty problem"
    if grader == "math" and (not row.answer or not all(plain_unicode(gold).strip() for gold in row.answer)):
        return "empty gold"
    if max_problem_characters is not None and len(row.problem) > max_problem_characters:
        return "problem too long"
    if grader == "code":
        return _faulty_tests(row)
    if any(re.fullmatch(r"[+-]?(nan|inf)", gold.casefold()) for gold in row.answer):
        return "gold is NaN or infinite"
    if not all(is_integer(gold) or parsed(gold) for gold in row.answer):
        return "unparsable gold"
    return None


def _faulty_tests(row: Row) -> str | None:
    try:
        (tests,) = row.answer
        check_tests(tests)
    except ValueError:
        return "faulty tests"
    return None


def read_as_text(row: Row) -> bool:
    """Math-Verify reads a gold of this (usable) row as a text only, not as mathematics."""
    return any(not is_integer(gold) and all(isinstance(reading, str) for reading in parsed(gold)) for gold in row.answer)


def in_a_sentence(row: Row) -> bool:
    """A gold of this row says more than an answer does ('The answer is 5.'), so that the grader accepts no plain one."""
    return any(equivalence.in_a_sentence(gold) for gold in row.answer)


def same_gold(one: Row, other: Row, grader: GraderName = "math") -> bool:
    """The golds are the same text but for formatting, or Math-Verify holds them equal (tests of programs: the same text)."""
    if grader == "code":
        return one.answer == other.answer
    if sorted(map(normalized, one.answer)) == sorted(map(normalized, other.answer)):
        return True
    if len(one.answer) != 1 or len(other.answer) != 1:
        return False
    left, right = parsed(one.answer[0]), parsed(other.answer[0])
    return verify(left, right, timeout_seconds=READING_SECONDS) or verify(right, left, timeout_seconds=READING_SECONDS)


def repeats(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups of two or more rows with one normalized problem, each in the order of ``rows``."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(normalized(row.problem), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def surplus(rows: Iterable[Row], grader: GraderName = "math") -> dict[str, str]:
    """Id -> reason of every row to leave out, so that each problem is there once: of copies all but the first, and where their
    golds disagree, all."""
    reasons: dict[str, str] = {}
    for group in repeats(rows):
        if all(same_gold(group[0], row, grader) for row in group[1:]):
            reasons |= {row.id: "duplicate" for row in group[1:]}
        else:
            reasons |= {row.id: "conflicting golds" for row in group}
    return reasons
