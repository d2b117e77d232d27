r"""Whether two formulas are equal: their values at points, to sixty digits.

What is compared, and where:
- A point counts where both formulas have a real value in every step (complex values where the imaginary unit is in one). Where
  one has none, as \sqrt{a}\sqrt{b} for negative a and b, the point says nothing, unless |x| is in one: then it differs.
- Letters stand for positive quantities, as in physics, but for x, y and z, and a lone letter without index: \sqrt{r_0^2} is
  r_0, and \sqrt{x^2} is not x.
- Formulas with steps (floor, ceiling ...) are compared at many whole and other numbers; at whole ones alone where the gold
  rounds and all letters are n, m or k: there \lceil n/2 \rceil is \lfloor (n+1)/2 \rfloor.
- The relative difference may be 10^-25 (without letters 10^-45), or TOLERANCE where a decimal is written; fractions and whole
  numbers are exact.
The points are the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from sfpo.rewards.expression import Tree
from sfpo.rewards.numerals import TOLERANCE
from sfpo.rewards.values import Evaluator, exact, exponential, fraction, has_decimal, heads, infinity_sign, rational, symbols

_ENOUGH, _ENOUGH_WITH_STEPS = 8, 60
"""Points that count, where letters are in the formulas; at least half of _ENOUGH must be found."""
_TRIES = 80
_WHOLE_TRIES = 160
_EXACT = 1e-25
_EXACT_CONSTANT = 1e-45
_ZERO = 1e-40
_SMALL = 1e-25
_MAX_POWER = 6
"""Of a letter, in the factor between two equations."""
_WHOLE_LETTERS = frozenset("nmkNMK")
_STEPS = frozenset(("floor", "ceil", "max", "min", "sign"))


def equal_formulas(given: Tree, wanted: Tree) -> bool | None:
    """Whether both have the same value wherever both have one. None: they have too few common points to say.

    Raises:
        GaveUp: the budget of operations is used up.
    """
    names = sorted(symbols(given) | symbols(wanted))
    functions = heads(given) | heads(wanted)
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
    if heads(wanted) & {"floor", "ceil"} and names and set(names) <= _WHOLE_LETTERS:
        return comparison.over(whole_points(names))
    outcome = comparison.over(points(names, signed=comparison.whole_domain))
    if outcome is None or (outcome and comparison.steps):
        return comparison.over(whole_points(names))
    return outcome


class _Comparison:
    """Two formulas, and how closely they are compared."""

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
        """None: the point says nothing."""
        left, right = self.evaluator.value(self.given, point), self.evaluator.value(self.wanted, point)
        if left is None or right is None:
            return False if self.whole_domain and (left is None) != (right is None) else None
        size = max(abs(left), abs(right))
        self.informative += bool(size > _SMALL)
        close = bool(abs(left - right) <= self.tolerance * abs(right))
        return close or (bool(point) and bool(size < _ZERO))


def proportional(given: Tree, wanted: Tree) -> int | None:
    """The sign of the factor that one formula is times the other at every point; None: there is no such factor.

    The factor is a number, or, with three letters and more, a product of powers of quantities (PV - nRT is V times P - nRT/V).

    Raises:
        GaveUp: the budget of operations is used up.
    """
    names = sorted(symbols(given) | symbols(wanted))
    functions = heads(given) | heads(wanted)
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
    """By what power of each letter the ratio grows, where it is a whole one: told from the point with this letter doubled."""
    found = {}
    for name in names:
        value = ratio(point | {name: 2 * point[name]})
        for power in range(-_MAX_POWER, _MAX_POWER + 1):
            if value is not None and abs(value - start * exact(2) ** power) < _SMALL * abs(value):
                found[name] = power
    return found


# ---------------------------------------------------------------------------------------------- points


def _may_be_negative(name: str, names: list[str]) -> bool:
    """x, y, z, and a lone letter without index. What is written otherwise is a quantity."""
    return re.match(r"[xyz](?![a-z])", name) is not None or (len(names) == 1 and re.fullmatch(r"[A-Za-z]", name) is not None)


def points(names: list[str], signed: bool) -> Iterator[dict[str, Any]]:
    """Values of all letters: first around 1, later further out, so that small and large domains are both met.

    Args:
        signed: every letter may be negative.
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
    """Whole numbers: of one letter the first ones all, then others up to a million."""
    for number in range(_WHOLE_TRIES):
        if len(names) == 1 and number < _WHOLE_TRIES // 2:
            yield {names[0]: exact(number + 1)}
        else:
            top = 12 if number < 110 else 10**6
            yield {name: exact(1 + int(fraction(name, number, 3) * top)) for name in names}
