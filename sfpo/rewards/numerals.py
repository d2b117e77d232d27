"""Parses explicit numbers in LaTeX into exact fractions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_DIGITS = 1_000
"""Maximum number of digits of a power that is computed."""
TOLERANCE = Fraction(1, 10**6)
"""Largest absolute and relative difference between a decimal and another number (0.333333 equals 1/3)."""

_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:\ \d{3})+|\d+)"  # 0,001 is not an integer
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"""(?P<sign>[+-]?)\ ?(?:
      (?P<power>\d+)\ ?\^\ ?\{{(?P<power_exponent>[+-]?\d+)\}}
    | (?P<whole>{_INTEGER})?\ ?\\frac\ ?\{{(?P<top>-?{_DECIMAL})\}}\ ?\{{(?P<bottom>-?{_DECIMAL})\}}
    | (?P<start>\d*\.\d*)\\(?:overline|bar|dot)\ ?\{{(?P<cycle>\d+)\}}
    | (?P<decimal>{_DECIMAL})
      (?:\ ?(?:\\times|\\cdot|\*|x)\ ?10\ ?\^\ ?\{{(?P<ten_exponent>[+-]?\d+)\}}|[eE](?P<e_exponent>[+-]?\d+))?
    )(?P<percent>%?)(?:\ ?_\ ?\{{?(?P<base>\d+)\}}?)?""",
    re.ASCII | re.VERBOSE,
)


@dataclass(frozen=True)
class Number:
    """An explicit number."""

    value: Fraction
    decimal: bool
    """It has a decimal point, so it may have been rounded."""
    percent: bool
    base: str
    """The base given as an index, as in 52_8; '' if there is none. ``value`` interprets the digits in base 10 regardless."""


@lru_cache(maxsize=4096)
def number(body: str) -> Number | None:
    """Parse normalized integers (1,234), decimals, fractions, mixed numbers, powers, 4.5e33, 5%, 52_8; None for others."""
    match = _NUMBER.fullmatch(body)
    if not match:
        return None
    part = {name: re.sub("[, ]", "", text or "") for name, text in match.groupdict().items()}
    exponent = int(part["power_exponent"] or part["ten_exponent"] or part["e_exponent"] or 0)
    if abs(exponent) * max(1, len(part["power"])) > MAX_DIGITS:
        return None
    try:
        if part["power"]:
            value = Fraction(part["power"]) ** exponent
        elif part["bottom"]:
            value = Fraction(part["top"]) / Fraction(part["bottom"]) + int(part["whole"] or 0)
        elif part["cycle"]:
            unit = Fraction(1, 10 ** len(part["start"].split(".")[1]))
            value = Fraction(f"0{part['start']}0") + unit * Fraction(int(part["cycle"]), 10 ** len(part["cycle"]) - 1)
        else:
            value = Fraction(part["decimal"]) * Fraction(10) ** exponent
    except ZeroDivisionError:
        return None
    decimal = "." in part["decimal"] + part["top"] + part["bottom"]
    return Number(-value if part["sign"] == "-" else value, decimal, bool(part["percent"]), part["base"])


def equal_numbers(answer: Number, gold: Number) -> bool:
    """Equal exactly, or within TOLERANCE if either is a decimal. A percent sign may be a unit (10% equals 10) or a factor (10%
    equals 0.1).

    If the gold is below 1, it can only be a factor: 0.5% does not equal 0.5.
    """
    if answer.base and answer.base != (gold.base or "10"):
        return False
    pairs = [] if answer.percent and not gold.percent and abs(gold.value) < 1 else [(answer.value, gold.value)]
    if answer.percent != gold.percent:
        pairs.append((answer.value / (100 if answer.percent else 1), gold.value / (100 if gold.percent else 1)))
    tolerance = TOLERANCE if answer.decimal or gold.decimal else 0
    return any(abs(left - right) <= tolerance * min(Fraction(1), abs(right)) for left, right in pairs)


RATIO = re.compile(r"(\d+(?:\.\d+)?(?:(?::\d+(?:\.\d+)?)+))")
_TIME = re.compile(r"\d{1,2}:[0-5]\d")


def equal_ratios(given: str, wanted: str) -> bool | None:
    """Whether two ratios are equal: 3:4 equals 6:8 and 3/4, unless it may be a time of day. None if neither is a ratio."""
    left, right = _terms(given), _terms(wanted)
    if not any(len(terms or ()) > 1 for terms in (left, right)) or any(map(_TIME.fullmatch, (given, wanted))):
        return None
    if left is None or right is None or not all([*left, *right]):
        return False
    left, right = ([*terms, Fraction(1)] if len(terms) == 1 else terms for terms in (left, right))
    return len(left) == len(right) and all(one * right[0] == other * left[0] for one, other in zip(left, right, strict=True))


def _terms(body: str) -> list[Fraction] | None:
    if RATIO.fullmatch(body):
        return [Fraction(term) for term in body.split(":")]
    return [found.value] if (found := number(body)) and not found.base and not found.percent else None
