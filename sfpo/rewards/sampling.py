r"""Decides whether two formulas are equal by their values at sample points, to sixty digits.

- A point counts if both formulas have a real value in every intermediate step (complex if the imaginary unit occurs). If one
  has none, as \sqrt{a}\sqrt{b} for negative a and b, the point is skipped; but if |x| occurs, the formulas then differ.
- Letters denote positive quantities, as in physics, except x, y, z and a single letter without index: \sqrt{r_0^2} equals r_0,
  but \sqrt{x^2} does not equal x.
- Formulas with steps (floor, ceiling ...) are compared at many integers and other numbers; only at integers if the gold rounds
  and all letters are n, m or k: then \lceil n/2 \rceil equals \lfloor (n+1)/2 \rfloor.
- The relative difference must be at most 10^-25 (without letters 10^-45), or TOLERANCE if a decimal occurs; fractions and
  integers are exact.

The points are the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from sfpo.rewards.expression import Tree
from sfpo.rewards.numerals import TOLERANCE
from sfpo.rewards.values import (
    Evaluator,
    exact,
    exponential,
    fraction,
    functions_in,
    has_decimal,
    infinity_sign,
    rational,
    symbols,
)

_ENOUGH, _ENOUGH_WITH_STEPS = 8, 60
"""Number of valid points to compare if the formulas have letters; at least half of _ENOUGH must be found."""
_TRIES = 80
_WHOLE_TRIES = 160
_EXACT = 1e-25
_EXACT_CONSTANT = 1e-45
_ZERO = 1e-40
_SMALL = 1e-25
_MAX_POWER = 6
"""Maximum power of a letter in the factor between two equations."""
_WHOLE_LETTERS = frozenset("nmkNMK")
_STEPS = frozenset(("floor", "ceil", "max", "min", "sign"))


def equal_formulas(given: Tree, wanted: Tree) -> bool | None:
    """Whether both have the same value at all points where both are defined; None if there are too few such points.

    Raises:
        BudgetExceeded: the comparison needs more than the budget of operations.
    """
    names = sorted(symbols(given) | symbols(wanted))
    functions = functions_in(given) | functions_in(wanted)
    if "oo" in functions:
        return infinity_sign(given) is not None and infinity_sign(given) == infinity_sign(wanted)
    comparison = _Comparison(given, wanted, functions)
    if not names:
        left, right = rational(given), rational(wanted)
        if left is not None and right is not None and comparison.tolerance == _EXACT:
            return left == right
        if comparison.tolerance == _EXACT:
            comparison.tolerance = _EXACT_CONSTANT
        return comparison.at({})
    if functions_in(wanted) & {"floor", "ceil"} and names and set(names) <= _WHOLE_LETTERS:
        return comparison.over(whole_points(names))
    outcome = comparison.over(points(names, signed=comparison.whole_domain))
    if outcome is None or (outcome and comparison.steps):
        return comparison.over(whole_points(names))
    return outcome


class _Comparison:
    """Two formulas and the precision of their comparison."""

    def __init__(self, given: Tree, wanted: Tree, functions: set[str]) -> None:
        self.given, self.wanted = given, wanted
        self.evaluator = Evaluator(complex_values="i" in functions)
        self.tolerance = float(TOLERANCE) * (1 + 1e-6) if has_decimal(given) or has_decimal(wanted) else _EXACT
        self.whole_domain = "abs" in functions or "sign" in functions
        self.steps = bool(functions & _STEPS)
        self.informative = 0

    def over(self, candidates: Iterator[dict[str, Any]]) -> bool | None:
        counted = self.informative = 0
        for point in candidates:
            verdict = self.at(point)
            if verdict is False:
                return False
            counted += verdict is True
            if counted >= (_ENOUGH_WITH_STEPS if self.steps else _ENOUGH):
                break
        return True if self.informative >= _ENOUGH // 2 else None

    def at(self, point: dict[str, Any]) -> bool | None:
        """Whether the values are equal at this point; None if the point does not count."""
        left, right = self.evaluator.value(self.given, point), self.evaluator.value(self.wanted, point)
        if left is None or right is None:
            return False if self.whole_domain and (left is None) != (right is None) else None
        size = max(abs(left), abs(right))
        self.informative += bool(size > _SMALL)
        close = bool(abs(left - right) <= self.tolerance * abs(right))
        return close or (bool(point) and bool(size < _ZERO))


def proportional(given: Tree, wanted: Tree) -> int | None:
    """The sign of the factor by which one formula is a multiple of the other at every point; None if there is no such factor.

    The factor is a number or, with at least three letters, a product of powers of quantities (PV - nRT is V times P - nRT/V).

    Raises:
        BudgetExceeded: the comparison needs more than the budget of operations.
    """
    names = sorted(symbols(given) | symbols(wanted))
    functions = functions_in(given) | functions_in(wanted)
    if not names or "oo" in functions:
        return None
    tolerance = float(TOLERANCE) if has_decimal(given) or has_decimal(wanted) else _EXACT
    evaluator = Evaluator(complex_values="i" in functions)

    def ratio(point: dict[str, Any]) -> Any | None:
        left, right = evaluator.value(given, point), evaluator.value(wanted, point)
        if left is None or right is None or abs(right) <= _SMALL or abs(left) <= _SMALL:
            return None
        return left / right

    signed = "abs" in functions or "sign" in functions
    known = ((point, value) for point in points(names, signed) if (value := ratio(point)) is not None)
    found = list(islice(known, _ENOUGH + len(names)))
    if len(found) < _ENOUGH // 2:
        return None
    first, start = found[0]
    quantities = [name for name in names if not (signed or len(names) < 3 or _may_be_negative(name, names))]
    powers = _powers(ratio, first, start, quantities)
    for point, value in found:
        expected = start
        for name, power in powers.items():
            expected *= (point[name] / first[name]) ** power
        if abs(value - expected) > tolerance * abs(expected):
            return None
    return None if getattr(start, "imag", 0) else 1 if start.real > 0 else -1


def _powers(
    ratio: Callable[[dict[str, Any]], Any | None], point: dict[str, Any], start: Any, names: list[str]
) -> dict[str, int]:
    """The integer power of each letter with which the ratio scales, determined by doubling that letter."""
    found = {}
    for name in names:
        value = ratio(point | {name: 2 * point[name]})
        for power in range(-_MAX_POWER, _MAX_POWER + 1):
            if value is not None and abs(value - start * exact(2) ** power) < _SMALL * abs(value):
                found[name] = power
    return found


# ---------------------------------------------------------------------------------------------- points


def _may_be_negative(name: str, names: list[str]) -> bool:
    """Whether the letter may be negative: x, y, z, or a single letter without index. Other names denote positive quantities."""
    return re.match(r"[xyz](?![a-z])", name) is not None or (len(names) == 1 and re.fullmatch(r"[A-Za-z]", name) is not None)


def points(names: list[str], signed: bool) -> Iterator[dict[str, Any]]:
    """Sample points (letter -> value): first around 1, then further out, so that formulas with small or large domains are
    covered.

    Args:
        signed: whether every letter may be negative.
    """
    for number in range(_TRIES):
        spread = (2, 4, 8)[number * 3 // _TRIES]
        point = {}
        for name in names:
            value = exponential(spread * (fraction(name, number, 1) - exact(11) / 20))
            negative = (signed or _may_be_negative(name, names)) and fraction(name, number, 2) < 0.5
            point[name] = -value if negative else value
        yield point


def whole_points(names: list[str]) -> Iterator[dict[str, Any]]:
    """Integer sample points. For a single letter, the first integers in order, then others up to a million."""
    for number in range(_WHOLE_TRIES):
        if len(names) == 1 and number < _WHOLE_TRIES // 2:
            yield {names[0]: exact(number + 1)}
        else:
            top = 12 if number < 110 else 10**6
            yield {name: exact(1 + int(fraction(name, number, 3) * top)) for name in names}
