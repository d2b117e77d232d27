"""Evaluates formulas at points, to sixty digits. All operations are counted, and the sizes of numbers are bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any, TypeVar

from mpmath import MPContext
from mpmath.libmp import NoConvergence

from sfpo.rewards.expression import BudgetExceeded, Tree, number_tree
from sfpo.rewards.notation import INVERSES

MAX_OPERATIONS = 40_000
"""Maximum number of evaluated nodes for one answer, over all comparisons with its golds. Real golds and equivalent forms of
them need fewer than 3,000."""
MAX_BITS = 20_000
"""Maximum size of an integer that is computed exactly."""

T = TypeVar("T")

_ZERO = 1e-45
_mp = MPContext()
_mp.dps = 60
_MAX_EXPONENT = _mp.mpf(10) ** 6

_operations: ContextVar[list[int]] = ContextVar("operations")
"""Remaining number of operations, in a list of one element so that it can be changed in place."""


@contextmanager
def budget(operations: int = MAX_OPERATIONS) -> Iterator[None]:
    """Limit the operations of all comparisons in this context; beyond it BudgetExceeded is raised, on every machine alike."""
    token = _operations.set([operations])
    try:
        yield
    finally:
        _operations.reset(token)


class Undefined(ArithmeticError):
    """The formula is undefined at this point."""


# ---------------------------------------------------------------------------------------------- trees


def _walk(tree: Tree) -> Iterator[Tree]:
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack += [part for part in node if isinstance(part, tuple)]


def symbols(tree: Tree) -> set[str]:
    return {node[1] for node in _walk(tree) if node[0] == "sym"}


def functions_in(tree: Tree) -> set[str]:
    """Names of all functions and constants in the tree."""
    return {node[1] for node in _walk(tree) if node[0] in ("fn", "const")}


def has_decimal(tree: Tree) -> bool:
    return any(node[0] == "num" and node[2] for node in _walk(tree))


def is_uncomputed(tree: Tree) -> bool:
    """Whether it consists only of plain numbers and the four basic operations: 12+34, but not 10! or 2^5."""
    if tree[0] == "pow":
        return tree[2] == number_tree(-1) and is_uncomputed(tree[1])
    return tree[0] == "num" or (tree[0] in ("add", "mul") and all(map(is_uncomputed, tree[1:])))


# ---------------------------------------------------------------------------------------------- values


class Evaluator:
    """Evaluates trees at points. Every node counts toward the current ``budget``."""

    def __init__(self, complex_values: bool) -> None:
        self.complex_values = complex_values
        self.left = _operations.get([MAX_OPERATIONS])

    def value(self, tree: Tree, point: dict[str, Any]) -> Any | None:
        """The value at this point; None if it is undefined there."""
        try:
            value = self._value(tree, point)
        except (ArithmeticError, ValueError, TypeError, NoConvergence):
            return None
        return value if _mp.isfinite(value) else None

    def _value(self, tree: Tree, point: dict[str, Any]) -> Any:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise BudgetExceeded
        head = tree[0]
        if head == "num":
            return _mp.mpf(tree[1].numerator) / tree[1].denominator
        if head == "sym":
            return point[tree[1]]
        if head == "const":
            return {"pi": _mp.pi, "e": _mp.e, "i": _mp.j}[tree[1]] * 1
        parts = [self._value(part, point) for part in tree[1:] if isinstance(part, tuple)]
        if head == "add":
            return _snapped(_mp.fsum(parts), max(map(abs, parts)))
        if head == "mul":
            return _mp.fprod(parts)
        if head == "pow":
            return self._power(*parts)
        if head == "root":
            return self._power(parts[0], 1 / parts[1], self._odd(tree[2]))
        return self._checked(_FUNCTION_VALUES.get(tree[1], _opaque(tree[1])), parts)

    @staticmethod
    def _odd(degree: Tree) -> bool:
        return degree[0] == "num" and degree[1].denominator == 1 and degree[1] % 2 == 1

    def _power(self, base: Any, exponent: Any, odd_root: bool = False) -> Any:
        if base == 0:
            if _mp.re(exponent) <= 0:
                raise Undefined
            return base
        if abs(exponent * _mp.log(abs(base))) > _MAX_EXPONENT or abs(exponent) > 10**9:
            raise Undefined
        if self.complex_values or _mp.im(base) or _mp.re(base) > 0 or _mp.isint(exponent):
            return base**exponent
        if odd_root:
            return -((-base) ** exponent)
        for bottom in (3, 5, 7, 9):  # x^{2/3}: the real root
            top = exponent * bottom
            if abs(top - _mp.nint(top)) < 1e-40:
                return (-1) ** int(_mp.nint(top)) * (-base) ** exponent
        raise Undefined

    def _checked(self, function: Callable[..., Any], parts: list[Any]) -> Any:
        if any(abs(part) > 10**9 for part in parts):
            raise Undefined
        value = function(*parts)
        if function in _WITH_ZEROS:
            value = _snapped(value, max(map(abs, parts)))
        if not self.complex_values and _mp.im(value):
            raise Undefined
        return _mp.re(value) if not self.complex_values else value


def _snapped(value: Any, size: Any) -> Any:
    r"""Replace a value that is only rounding error, relative to ``size``, by zero, as in \sin \pi and 2 - \sqrt{2}^2."""
    return value * 0 if abs(value) < _ZERO * size else value


def _opaque(name: str) -> Callable[..., Any]:
    """Stand-in for an unknown function: a smooth function that depends only on the name."""
    shift = fraction(name, 0, 4)
    return lambda *parts: _mp.fsum(_mp.sin((k + 1) * part + shift) + part * part * shift for k, part in enumerate(parts)) + 3


def _rounded(step: Callable[[Any], Any], nudge: float) -> Callable[[Any], Any]:
    return lambda x: step(x + _mp.mpf(nudge)) if not _mp.im(x) else _fail()


def _fail() -> Any:
    raise Undefined


def _real(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *parts: _fail() if any(_mp.im(part) for part in parts) else function(*map(_mp.re, parts))


def _factorial(x: Any) -> Any:
    return _mp.factorial(x) if abs(x) < 10**5 else _fail()


def _binomial(n: Any, k: Any) -> Any:
    return _mp.binomial(n, k) if max(abs(n), abs(k)) < 10**5 else _fail()


def _whole(x: Any) -> int:
    return int(x) if _mp.isint(x) else _fail()


def _log(x: Any, base: Any = 10) -> Any:
    return _mp.log(x) / _mp.log(base) if x != 0 and base not in (0, 1) else _fail()


def _acot(x: Any) -> Any:
    """acot for positive numbers, where its two conventions agree."""
    return _mp.acot(x) if _mp.re(x) > 0 else _fail()


_FUNCTION_VALUES: dict[str, Callable[..., Any]] = {
    **{name: getattr(_mp, name) for name in (*INVERSES, *INVERSES.values(), "exp")},
    "ln": lambda x: _mp.log(x) if x != 0 else _fail(),
    "log": _log,
    "acot": _acot,
    "abs": abs,
    "re": _mp.re,
    "im": _mp.im,
    "sign": _real(_mp.sign),
    "floor": _rounded(_mp.floor, 1e-30),
    "ceil": _rounded(_mp.ceil, -1e-30),
    "max": _real(max),
    "min": _real(min),
    "factorial": _factorial,
    "binomial": _binomial,
    "gcd": lambda *parts: _mp.mpf(math.gcd(*map(_whole, parts))),
    "lcm": lambda *parts: _mp.mpf(math.lcm(*map(_whole, parts))),
}
_WITH_ZEROS = frozenset(_FUNCTION_VALUES[name] for name in ("sin", "cos", "tan", "cot", "ln", "log", "acos", "acosh"))


# ---------------------------------------------------------------------------------------------- constants


def constant(tree: Tree) -> Any | None:
    """The real value of a formula without letters; None if it has letters or no real value."""
    if symbols(tree) or "oo" in functions_in(tree):
        return None
    return Evaluator(complex_values=False).value(tree, {})


def rational(tree: Tree) -> Fraction | None:
    """The exact value of a formula made of rational operations; None if it is not, or too large."""
    if tree[0] == "num":
        return tree[1]
    if tree[0] not in ("add", "mul", "pow") and tree[1] not in ("factorial", "binomial"):
        return None
    parts = all_or_none([rational(part) for part in tree[1:] if isinstance(part, tuple)])
    if parts is None or any(max(part.numerator.bit_length(), part.denominator.bit_length()) > MAX_BITS for part in parts):
        return None
    if tree[0] == "add":
        return sum(parts, Fraction())
    if tree[0] == "mul":
        return math.prod(parts, start=Fraction(1))
    if tree[0] == "pow":
        base, exponent = parts
        size = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
        return None if exponent.denominator != 1 or size > MAX_BITS or (not base and exponent <= 0) else base ** int(exponent)
    if any(part.denominator != 1 or not 0 <= part <= 2_000 for part in parts):
        return None
    return Fraction((math.factorial if tree[1] == "factorial" else math.comb)(*map(int, parts)))


def all_or_none(found: list[T | None]) -> list[T] | None:
    """The list itself; None if any element is None."""
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else None


def real_constant(tree: Tree) -> Any | None:
    """Like ``constant``, but also accepts infinity."""
    if (infinity := infinity_sign(tree)) is not None:
        return infinity * _mp.inf
    return constant(tree)


def infinity_sign(tree: Tree) -> int | None:
    if tree == ("const", "oo"):
        return 1
    if tree[0] == "mul" and len(tree) == 3 and tree[2] == ("const", "oo") and tree[1][0] == "num":
        return 1 if tree[1][1] > 0 else -1
    return None


def exact(value: int) -> Any:
    """An integer without rounding."""
    return _mp.mpf(value)


def exponential(value: Any) -> Any:
    return _mp.exp(value)


def whole_part(value: Any) -> int:
    return int(_mp.floor(value))


def fraction(name: str, number: int, salt: int) -> Any:
    """A pseudo-random number in [0, 1) that is the same on every machine: FNV-1a hash of the name, the sample number and a
    salt."""
    digest = 0xCBF29CE484222325
    for byte in f"{salt}/{number}/{name}".encode():
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    digest = (digest ^ (digest >> 29)) * 0xBF58476D1CE4E5B9 % 2**64
    return _mp.mpf(digest ^ (digest >> 32)) / 2**64
