r"""Families of solutions with an integer parameter: \frac{\pi}{3} + k\pi for all integers k, whatever the parameter's name.

A gold is a family if it says so (k \in \mathbb{Z}, "k is an integer"), or if it is a constant plus one of the letters k, n, m,
l, j times a multiple of \pi. Two families are equal if they have the same values; these are enumerated within one common
period.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sfpo.rewards.expression import ParseError, Tree, parse
from sfpo.rewards.values import Evaluator, all_or_none, exact, symbols, whole_part

_LETTER = r"(?P<letter>[A-Za-z])"
_SET = r"(?:\\(?:mathbb|mathbf)(?![A-Za-z]) ?\{? ?|\\)?(?P<set>[A-Z]) ?\}?(?P<sign> ?[\^_] ?(?:\{[^{}]*\}|.))?"
_CONDITION = re.compile(
    r"(?:[,;]|\(|\\mid(?![A-Za-z])|[|:])? ?(?:for|where|with|when|\\forall(?![A-Za-z]))? ?(?:all|any|every|each|some)? ?(?:"
    rf"{_LETTER} ?\\in ?{_SET}"
    r"|(?P<word>[A-Za-z]) ?(?:is|are|be|being|=|\\in|for|any|in)? ?(?:an?|any|all|some|the)?(?: ?arbitrary)?"
    r" ?(?P<kind>(?:positive |nonnegative |non-negative |natural |whole )*(?:integers?|numbers?))"
    r"|(?P<kind_before>(?:positive |nonnegative |non-negative |natural |whole )*(?:integers?|numbers?))"
    r" (?P<word_after>[A-Za-z])"
    r"|(?P<counted>[A-Za-z]) ?= ?0 ?, ?\\pm ?(?:\{1\}|1) ?(?:, ?\\pm ?(?:\{2\}|2) ?)?, ?(?:\\[lc]?dots|\.\.\.)"
    r") ?(?:\)|\\\})? ?\.?$"
)
_LETTERS = frozenset("knmlj")
MAX_VALUES = 400
"""Maximum number of values within one period."""
_ZERO = 1e-20


@dataclass(frozen=True)
class Condition:
    """The condition on a family's parameter."""

    letter: str
    whole: bool
    """The parameter ranges over all integers; if False, over the natural numbers or some other set."""


def split_condition(text: str) -> tuple[str, Condition | None]:
    r"""Split a text into formula and condition: ('k\pi', Condition('k', whole=True)) for 'k\pi, k \in \mathbb{Z}'."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    plain = re.sub(r" +", " ", plain).rstrip(" .")
    if (match := _CONDITION.search(plain)) is None or not match.start():
        return text, None
    letter = next(match[name] for name in ("letter", "word", "word_after", "counted") if match[name])
    kind = match["kind"] or match["kind_before"]
    whole = match["counted"] is not None or (kind is not None and re.fullmatch("integers?", kind) is not None)
    if match["letter"]:
        whole = match["set"] == "Z" and not match["sign"]
    family = plain[: match.start()].rstrip(" ,;(")
    return family.removeprefix(r"\{").strip(" ") if family.count(r"\{") > family.count(r"\}") else family, Condition(
        letter, whole
    )


def renamed(items: list[str], letter: str, new: str) -> list[str]:
    """Rename the parameter in the items; unchanged if an item already contains the new letter."""
    if letter == new or any(re.search(rf"(?<![A-Za-z\\]){new}(?![A-Za-z])", item) for item in items):
        return items
    return [re.sub(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", new, item) for item in items]


def same_family(
    given: list[str], given_condition: Condition | None, wanted: list[str], wanted_condition: Condition | None
) -> bool | None:
    """Whether two lists of formulas, each with its condition, have the same values; None if the gold is not a family."""
    if wanted_condition and not wanted_condition.whole:
        return None
    try:
        gold = [parse(item) for item in wanted]
    except ParseError:
        return None
    letter = wanted_condition.letter if wanted_condition else _letter(gold)
    if letter is None or not any(letter in symbols(tree) for tree in gold):
        return None
    if wanted_condition is None and not _is_implicit_family(gold, letter, bool(given_condition and given_condition.whole)):
        return None
    try:
        answer = [parse(item) for item in given]
    except ParseError:
        return None
    given_letter = given_condition.letter if given_condition else _letter(answer, letter)
    if given_letter is None or (given_condition and not given_condition.whole):
        return False
    left, right = _families(answer, given_letter), _families(gold, letter)
    if left is None or right is None:
        return None
    return _same_values(left, right)


def _letter(trees: list[Tree], preferred: str | None = None) -> str | None:
    """The only variable of the formulas, if it is a letter that usually denotes integers."""
    found = set().union(*map(symbols, trees))
    if len(found) != 1:
        return None
    (letter,) = found
    return letter if letter in _LETTERS or letter == preferred or letter == "N" else None


def _is_implicit_family(trees: list[Tree], letter: str, answer_says_so: bool) -> bool:
    """Whether formulas without a condition are a family: each adds a rational multiple of pi for every step of the letter, and
    some constant term is a fraction of pi; without such a term, only if the answer states the condition."""
    families = _families(trees, letter)
    if families is None:
        return False
    pi = Evaluator(complex_values=False).value(("const", "pi"), {})
    if any(_rational(step / pi) is None for _, step in families):
        return False
    starts = [_rational(start / pi) for values, _ in families for start in values if abs(start) > _ZERO]
    return answer_says_so or any(start is not None and start.denominator > 1 for start in starts)


Family = tuple[list[Any], Any]
"""(values within the first period, length of the period)."""


def _families(trees: list[Tree], letter: str) -> list[Family] | None:
    """The family of each formula f, whose f(n + period) - f(n) must be constant; None if one has no letter or no such
    period."""
    found = []
    for tree in trees:
        if symbols(tree) != {letter}:
            return None
        evaluator = Evaluator(complex_values=False)
        values = all_or_none([evaluator.value(tree, {letter: exact(n)}) for n in range(-4, 9)])
        if values is None:
            return None
        for period in (1, 2, 3, 4):
            steps = [after - before for before, after in zip(values, values[period:], strict=False)]
            if all(abs(step - steps[0]) < _ZERO * (1 + abs(steps[0])) for step in steps) and abs(steps[0]) > _ZERO:
                found.append((values[:period], abs(steps[0])))
                break
        else:
            return None
    return found


def _same_values(left: list[Family], right: list[Family]) -> bool:
    unit = right[0][1]
    ratios = all_or_none([_rational(step / unit) for _, step in left + right])
    if ratios is None:
        return False
    bottom = math.lcm(*(ratio.denominator for ratio in ratios))
    period = Fraction(math.lcm(*(ratio.numerator * (bottom // ratio.denominator) for ratio in ratios)), bottom)
    given, wanted = _within(left, ratios[: len(left)], period, unit), _within(right, ratios[len(left) :], period, unit)
    if given is None or wanted is None or len(given) != len(wanted):
        return False
    return all(abs(one - other) < 1e-15 for one, other in zip(given, wanted, strict=True))


def _within(families: list[Family], ratios: list[Fraction], period: Fraction, unit: Any) -> list[Any] | None:
    """All distinct values within one common period, sorted, in units of the first step."""
    found: list[Any] = []
    length = exact(period.numerator) / period.denominator
    for (starts, step), ratio in zip(families, ratios, strict=True):
        count = period / ratio
        if count.denominator != 1 or count * len(starts) > MAX_VALUES:
            return None
        for start in starts:
            for index in range(int(count)):
                value = (start + index * step) / unit
                value -= length * whole_part(value / length)
                found.append(value if length - value > 1e-15 else value * 0)
    found.sort()
    return [value for index, value in enumerate(found) if index == 0 or value - found[index - 1] > 1e-15]


def _rational(value: Any) -> Fraction | None:
    """The absolute value as a fraction with a small denominator; None if it is not one."""
    fraction = Fraction(float(abs(value))).limit_denominator(720)
    close = abs(abs(value) * fraction.denominator - fraction.numerator) < _ZERO * max(1, fraction.numerator)
    return fraction if fraction and close else None
