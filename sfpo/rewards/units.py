r"""Units of quantities. They may be omitted; 5 cm does not equal 5 m, nor 5 J 5 eV, and units are not converted."""

from __future__ import annotations

import re

DEGREE = r"\text{degree}"
"""The normalized unit of angles in degrees."""
_UNIT_WORDS = (
    "mm millimeter|cm centimeter|m meter metre|km kilometer|in inch|ft foot feet|yd yard|mi mile|g gram|kg kilogram"
    "|lb pound|oz ounce|s sec second|min minute|h hr hour|day|week|month|year|cent|usd dollar|euro|degree|rad radian|liter"
    "|gallon|unit|am|pm"
)
_UNITS = {
    word + ending: words.split()[0] for words in _UNIT_WORDS.split("|") for word in words.split() for ending in ("", "s", "es")
}
_SYMBOLS = {
    prefix + base: prefix + base
    for prefix in ("", "k", "M", "G", "T", "m", "n", "p")
    for base in ("J", "eV", "N", "W", "V", "A", "Hz", "Pa", "K", "C", "F", "mol", "L", "pc", "bit", "byte", "cal")
} | {"ms": "ms", "ns": "ns", "nm": "nm", "mg": "mg", "T": "T", "bar": "bar", "atm": "atm", "erg": "erg"}
_SYMBOLS |= {
    name + ending: symbol
    for name, symbol in (
        ("joule", "J"), ("electronvolt", "eV"), ("newton", "N"), ("watt", "W"), ("volt", "V"), ("ampere", "A"), ("amp", "A"),
        ("hertz", "Hz"), ("pascal", "Pa"), ("kelvin", "K"), ("coulomb", "C"), ("mole", "mol"), ("tesla", "T"),
        ("calorie", "cal"),
    )
    for ending in ("", "s")
}  # fmt: skip
_BARE_UNITS = "|".join(sorted(word for word in _UNITS if len(word) > 2 or word in {"mm", "cm", "km", "in", "ft", "kg", "lb"}))
_NO_UNIT = "or|and|not|wrong|squared|cubed|factorial|choose|dozens?|more|less|fewer|least|most|greater|plus|minus"
"""Words that change the meaning of the number before them, so they are not units."""
_WORDS = rf"\\text\{{(?!(?:if|is|for|when|where|even|odd)\b|[^{{}}]*\b(?:{_NO_UNIT})\b)[^{{}}]*\}}(?: ?\^ ?\{{-?\d\}})? ?"
_UNIT = re.compile(
    rf"(?<=[\w}}!)\]%]) ?((?:(?:\\cdot|/)? ?(?:{_WORDS}|\\frac ?\{{(?: ?{_WORDS})++\}} ?\{{(?: ?{_WORDS})++\}} ?))++)$"
    rf"|(?<=[\d}}]) ?((?:(?:square|sq|cubic|cu)\.? )?(?:{_BARE_UNITS})(?: ?\^ ?\{{[23]\}})?)$"
    rf"|(?<=\d)((?: (?!(?:{_NO_UNIT})\b)[a-z]{{3,}}\.?)+)$|(?<=:\d\d) ?((?i:[ap]\.?m\.?))$"
)
"""A unit after a quantity: \\text{ cm}^2 and any other text; cm^2; the words of '7 distinct ways'; the p.m. of 8:34 p.m."""


_POWERS = frozenset(("^2", "^3"))


def split_unit(body: str) -> tuple[str, frozenset[str]]:
    r"""Split off the unit at the end: (body, known units in it), such as ('5', {'cm', '^2'}) for '5\text{cm}^{2}'."""
    if (unit := _UNIT.search(body)) is None:
        return body, frozenset()
    text = re.sub(r"\\(?:text|cdot)(?![a-z])|\.", "", unit[0])
    known = (_SYMBOLS.get(word) or _UNITS.get(word.lower()) for word in re.findall("[A-Za-z]+", text))
    powers = [
        mark
        for mark, word in (("^2", r"\^ ?\{?2|\bsq(?:uare)?\b"), ("^3", r"\^ ?\{?3|\bcu(?:bic)?\b"))
        if re.search(word, text)
    ]
    return body[: unit.start()], frozenset([*filter(None, known), *powers])


def units_differ(given: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether two units certainly differ: no unit in common, or different powers. J and kg m^2/s^2 are not compared, nor cm and
    cm^2."""
    powers, wanted_powers = given & _POWERS, wanted & _POWERS
    if powers and wanted_powers and powers != wanted_powers:
        return True
    given, wanted = given - _POWERS, wanted - _POWERS
    return bool(given and wanted) and not given & wanted and (len(given) > 1) == (len(wanted) > 1)


def in_radians(source: str) -> str:
    """An answer's ``source`` with degrees converted to radians, and without the word radians."""
    without_unit = re.sub(r" ?(?:\\text\{ ?rad(?:ians?)?\.? ?\}|(?<![A-Za-z\\])rad(?:ians?)?$)", "", source)
    without_unit = re.sub(r"(?<![\d.])0 ?\\text\{degree\}", "0", without_unit)
    bracketed = re.sub(r"(\d+(?:\.\d+)?) ?\\text\{degree\}", r"(\1\\cdot\\frac{\\pi}{180})", without_unit)
    return bracketed.replace(DEGREE, r"\cdot\frac{\pi}{180}")
