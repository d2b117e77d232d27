"""Filters rows: the gold must be one that the grader can read, and each problem is kept once."""

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
"""Timeout of Math-Verify, far above the half second that the longest gold takes: a busy machine must not change which rows are
kept."""

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
    """The text without formatting: lower case, no whitespace, `$`, punctuation, \\left or \\right, and \\frac for \\dfrac.

    Two problems with the same normalized text count as duplicates.
    """
    text = text.casefold().translate(_LOOKALIKES)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


@cache
def parsed(gold: str) -> list[Any]:
    """Math-Verify's parse of a gold (its timeout uses SIGALRM: call from the main thread). An empty list: it cannot be parsed;
    one string: it is not mathematics, and only the same text is accepted as an answer."""
    return parse(f"${gold}$", parsing_timeout=READING_SECONDS)


def is_integer(gold: str) -> bool:
    return re.fullmatch(r"-?\d+", gold) is not None


def invalid_reason(row: Row, max_problem_characters: int | None = None, grader: GraderName = "math") -> str | None:
    """Why a row is excluded, as report.json names it; None: the row is valid."""
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
    """Whether Math-Verify parses a gold of this (valid) row as plain text, not as mathematics."""
    return any(not is_integer(gold) and all(isinstance(reading, str) for reading in parsed(gold)) for gold in row.answer)


def in_a_sentence(row: Row) -> bool:
    """Whether a gold of this row is a sentence ('The answer is 5.'), so that the grader accepts no plain answer."""
    return any(equivalence.in_a_sentence(gold) for gold in row.answer)


def same_gold(one: Row, other: Row, grader: GraderName = "math") -> bool:
    """Whether the golds are equal up to formatting, or by Math-Verify. (Unit tests: whether they are the same text.)"""
    if grader == "code":
        return one.answer == other.answer
    if sorted(map(normalized, one.answer)) == sorted(map(normalized, other.answer)):
        return True
    if len(one.answer) != 1 or len(other.answer) != 1:
        return False
    left, right = parsed(one.answer[0]), parsed(other.answer[0])
    return verify(left, right, timeout_seconds=READING_SECONDS) or verify(right, left, timeout_seconds=READING_SECONDS)


def duplicate_groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups of two or more rows with the same normalized problem, each in the order of ``rows``."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(normalized(row.problem), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def duplicates_to_drop(rows: Iterable[Row], grader: GraderName = "math") -> dict[str, str]:
    """Id -> reason of every row to drop so that each problem is kept once: all duplicates but the first, or all of them where
    their golds disagree."""
    reasons: dict[str, str] = {}
    for group in duplicate_groups(rows):
        if all(same_gold(group[0], row, grader) for row in group[1:]):
            reasons |= {row.id: "duplicate" for row in group[1:]}
        else:
            reasons |= {row.id: "conflicting golds" for row in group}
    return reasons
