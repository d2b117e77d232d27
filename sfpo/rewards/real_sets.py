r"""Compares sets of real numbers in any notation: intervals, inequalities, set-builders, unions, differences, single points.

``same_set`` parses both texts into sorted, merged intervals and compares these: (-1, 4), -1 < x < 4, \{x \mid -1 < x < 4\} and
(-1, 2) \cup [2, 4) are the same set, [-1, 4) is another. Bounds must be constants; texts with variables in bounds, with sets of
integers, or with two variables are not parsed here (None).
"""

from __future__ import annotations

import re
from typing import Any

from sfpo.rewards.expression import ParseError, parse
from sfpo.rewards.intervals import EVERYTHING, INFINITE, Interval, Intervals, Line
from sfpo.rewards.numerals import TOLERANCE
from sfpo.rewards.values import real_constant

_LIKE_A_SET = re.compile(
    r"\\(?:cup|cap|setminus|backslash|mathbb|le|ge|ne|mid|in|infty)(?![A-Za-z])|[<>]|^[\[(].*,.*[\])]$|\\\{.*[:|]"
)
_BUILDER = re.compile(
    r"\\\{ ?(?P<name>[A-Za-z])(?: ?\\in ?(?P<domain>.*?))? ?(?:\\(?:mid|vert|colon)(?![A-Za-z])|\\text\{ ?such that ?\}|[:|]) ?"
    r"(?P<condition>.*)\\\}",
    re.DOTALL,
)
_BUILDER_WITHOUT_BRACES = re.compile(
    r"[A-Za-z](?: ?\\in ?[^|:]*?)? ?(?:\\mid(?![A-Za-z])|[|:])(?=.*(?:[<>=]|\\(?:le|ge|ne|in)(?![A-Za-z]))).*", re.DOTALL
)
_REALS = re.compile(
    r"R|\\(?:mathbb|mathbf|Bbb) ?\{? ?R ?\}?|\\R(?![A-Za-z])|(?:\\text\{ ?)?(?:all )?real numbers?(?: ?\})?"
    r"|(?:\\text\{ ?)?all reals?(?: ?\})?",
    re.IGNORECASE,
)
_EXCEPT = re.compile(r"(.*?),? ?(?:\\text\{ ?)?(?:,? ?except(?: for)?)(?: ?\})? ?(.*)", re.DOTALL)
_RELATION = re.compile(r"\\(le|ge|ne)(?![A-Za-z])|([<>=])")
_OR = re.compile(r"\\text\{,? ?or ?\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])")
_AND = re.compile(r"\\text\{,? ?and ?\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![A-Za-z])")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_WHOLE_NUMBERS = re.compile(r"\\(?:mathbb|mathbf) ?\{? ?[ZN] ?\}?|\\[ZN](?![A-Za-z])")


def same_set(answer: str, gold: str) -> bool | None:
    """Whether two normalized texts denote the same set of real numbers; None if either cannot be parsed as one."""
    if not _LIKE_A_SET.search(gold) and not _BUILDER.fullmatch(_bare(answer)):
        return None
    if _tuple_like(gold) and _tuple_like(answer):
        return None  # (1,2) may be a point; sfpo.rewards.equivalence compares it as a tuple
    tolerance = float(TOLERANCE) if re.search(r"\d\.\d", answer + gold) else 1e-15
    try:
        given, wanted = _Reader(tolerance), _Reader(tolerance)
        left, right = given.read(answer), wanted.read(gold)
    except (ParseError, RecursionError):
        return None
    if given.name and wanted.name and given.name != wanted.name:
        return False
    left, right = given.merged(left), wanted.merged(right)
    return len(left) == len(right) and all(given.same(*pair) for pair in zip(left, right, strict=True))


_CHAIN = re.compile(r"(.+?)(<|\\le(?![A-Za-z]))(.+?)(<|\\le(?![A-Za-z]))(.+)")
_FALLING = re.compile(r"(.+?)(>|\\ge(?![A-Za-z]))(.+?)(>|\\ge(?![A-Za-z]))(.+)")


def as_interval(text: str) -> str | None:
    r"""Convert a chain of inequalities to an interval: '(a,b]' for 'a < x \le b' (bounds may have letters); None for others."""
    if match := _FALLING.fullmatch(text):
        text = "".join(part.replace(">", "<").replace(r"\ge", r"\le") for part in reversed(match.groups()))
    match = _CHAIN.fullmatch(text)
    if not match or not _is_name(match[3].strip()) or _RELATION.search(match[1] + " " + match[5]):
        return None
    return f"{'(' if match[2] == '<' else '['}{match[1]},{match[5]}{')' if match[4] == '<' else ']'}"


def _tuple_like(text: str) -> bool:
    return re.fullmatch(r"[\[(][^\[\]()\\<>]*(?:\\(?!cup|cap|le|ge|ne|setminus)[^\[\]()<>]*)*[\])]", text) is not None


class _Reader(Line):
    """Parser of one text; stores the name of its variable."""

    def __init__(self, tolerance: float) -> None:
        super().__init__(tolerance)
        self.name: str | None = None

    def read(self, text: str) -> Intervals:
        text = _bare(text)
        if len(_split(text, _CUP)) > 1 and not _OR.search(text):
            return self.union(text)
        if _BUILDER_WITHOUT_BRACES.fullmatch(text):
            text = rf"\{{{text}\}}"
        if match := _BUILDER.fullmatch(text):
            inner = _Reader(self.tolerance)
            inner.name = match["name"]
            condition = inner.read(match["condition"])
            if whole := _WHOLE_NUMBERS.fullmatch(match["domain"] or ""):
                return self.integers(condition, natural="N" in whole[0])
            return self.intersect(self.read(match["domain"]) if match["domain"] else EVERYTHING, condition)
        if match := re.fullmatch(r"([A-Za-z](?:_ ?\w)?) ?\\in(?![A-Za-z])(.*)", text, re.DOTALL):
            self.named(match[1])
            if len(parts := _split(match[2], re.compile(","))) > 1 and not match[2].lstrip().startswith(("(", "[")):
                return self.intersect(self.read(parts[0]), self.conditions(match[2][len(parts[0]) + 1 :]))
            return self.read(match[2])
        if match := _EXCEPT.fullmatch(text):
            return self.intersect(self.read(match[1]), self.complement(self.points(match[2])))
        if _RELATION.search(text) or _OR.search(text):
            return self.conditions(text)
        return self.union(text)

    # ------------------------------------------------------------------ what is written with set signs

    def union(self, text: str) -> Intervals:
        found: Intervals = []
        for part in _split(text, _CUP):
            rest = _split(part, re.compile(r"\\(?:setminus|backslash)(?![A-Za-z])|(?<=[\]})]) ?- ?(?=\\\{)"))
            intervals = self.intersection(rest[0])
            for removed in rest[1:]:
                intervals = self.intersect(intervals, self.complement(self.intersection(removed)))
            found += intervals
        return found

    def intersection(self, text: str) -> Intervals:
        found = EVERYTHING
        for part in _split(text, re.compile(r"\\cap(?![A-Za-z])")):
            found = self.intersect(found, self.atom(part.strip(" .")))
        return found

    def atom(self, text: str) -> Intervals:
        if _REALS.fullmatch(text):
            return EVERYTHING
        if re.fullmatch(r"\\emptyset|\\\{ ?\\\}", text):
            return []
        if text.startswith(r"\{") and text.endswith(r"\}"):
            return self.read(text) if _BUILDER.fullmatch(text) else self.points(text[2:-2])
        if text.startswith("{") and text.endswith("}"):
            return self.points(text[1:-1])
        if text[:1] in "([" and text[-1:] in ")]" and len(text) > 1:
            ends = _split(text[1:-1], re.compile("[,;]"))
            if len(ends) == 2:
                low, high = map(_bound, ends)
                if low < high or (low == high and text[0] == "[" and text[-1] == "]"):
                    return [Interval(low, text[0] == "[", high, text[-1] == "]")]
            elif len(ends) == 1 and re.search(r"\\(?:cup|cap|setminus)", text):
                return self.union(text[1:-1])
        raise ParseError("not a set of real numbers")

    def points(self, text: str) -> Intervals:
        text = _bare(text)
        inner = text[2:-2] if text.startswith(r"\{") and text.endswith(r"\}") else text
        values = [_bound(part) for part in _split(_AND.sub(",", inner), re.compile("[,;]")) if part.strip()]
        if not values or any(abs(value) == INFINITE for value in values):
            raise ParseError("no points")
        return [Interval(value, True, value, True) for value in values]

    # ------------------------------------------------------------------ what is written with inequalities

    def conditions(self, text: str) -> Intervals:
        found: Intervals = []
        for case in _split(text, _OR):
            intervals = EVERYTHING
            for part in _split(case, _AND):
                intervals = self.intersect(intervals, self.enumeration(part))
            found += intervals
        return found

    def enumeration(self, text: str) -> Intervals:
        """Conditions separated by commas: their intersection, or their union if the intersection is empty (x < 1, x > 3)."""
        parts = [self.condition(part) for part in _split(text, re.compile("[,;]")) if part.strip()]
        if not parts:
            raise ParseError("no condition")
        intervals = EVERYTHING
        for part in parts:
            intervals = self.intersect(intervals, part)
        return intervals if intervals or len(parts) == 1 else [interval for part in parts for interval in part]

    def condition(self, text: str) -> Intervals:
        text = _bare(text)
        if text.count(r"\pm") == 1 and (match := re.fullmatch(r"(.*?)(=|\\ne)(.*?)\\pm(.*)", text)):
            plus, minus = (self.condition(f"{match[1]}{match[2]} {match[3]}{sign}{match[4]}") for sign in "+-")
            return plus + minus if match[2] == "=" else self.intersect(plus, minus)
        signs = [match[1] or match[2] for match in _RELATION.finditer(text)]
        sides = [_bare(side) for side in _split(text, _RELATION)]
        if not signs:
            return self.read(text) if r"\in" in text else self.union(text)
        if len(sides) != len(signs) + 1 or len(signs) > 2:
            raise ParseError("not a chain of inequalities")
        intervals = EVERYTHING
        for left, sign, right in zip(sides[:-1], signs, sides[1:], strict=True):
            intervals = self.intersect(intervals, self.inequality(left, sign, right))
        if len(signs) == 2 and not _is_name(_without_bars(sides[1])):
            raise ParseError("not a chain of inequalities in one variable")
        return intervals

    def inequality(self, left: str, sign: str, right: str) -> Intervals:
        if not _is_name(_without_bars(left)):
            left, right = right, left
            sign = {"<": ">", ">": "<", "le": "ge", "ge": "le"}.get(sign, sign)
        variable = _without_bars(left)
        if not _is_name(variable):
            raise ParseError("not an inequality in one variable")
        self.named(variable)
        bound = _bound(right)
        if variable == left:
            return self.ray(bound, sign)
        if bound < 0 or sign not in ("<", "le", ">", "ge", "="):
            raise ParseError("no distance")
        if sign == "=":
            return [Interval(value, True, value, True) for value in {bound, -bound}]
        near = [Interval(-bound, sign in ("le", ">"), bound, sign in ("le", ">"))] if bound or sign in ("le", ">") else []
        inside = [interval for interval in near if interval.low < interval.high or interval.low_closed]
        return inside if sign in ("<", "le") else self.complement([Interval(-bound, sign == ">", bound, sign == ">")])

    def ray(self, bound: Any, sign: str) -> Intervals:
        if abs(bound) == INFINITE:
            if (sign == "<") == (bound > 0) and sign in "<>":
                return EVERYTHING
            raise ParseError("infinity is not allowed as a bound")
        if sign == "=":
            return [Interval(bound, True, bound, True)]
        if sign == "ne":
            return self.complement([Interval(bound, True, bound, True)])
        if sign in ("<", "le"):
            return [Interval(-INFINITE, False, bound, sign == "le")]
        return [Interval(bound, sign == "ge", INFINITE, False)]

    def named(self, name: str) -> None:
        if self.name not in (None, name):
            raise ParseError("two variables")
        self.name = name


def _bare(text: str) -> str:
    text = text.strip(" .")
    while text.startswith("{") and text.endswith("}") and text.count("{") == 1:
        text = text[1:-1].strip(" ")
    return text


def _is_name(text: str) -> bool:
    return (
        re.fullmatch(r"(?:[A-Za-df-hj-z]|\\(?:theta|lambda|alpha|beta|mu))(?:_ ?(?:\{\w+\}|\w))?(?: ?\( ?[a-z] ?\))?", text)
        is not None
    )


def _without_bars(text: str) -> str:
    match = re.fullmatch(r"\| ?([A-Za-z]) ?\|", text)
    return match[1] if match else text


def _bound(text: str) -> Any:
    value = real_constant(parse(_bare(text)))
    if value is None:
        raise ParseError("no constant")
    return value


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split at the separators outside all brackets."""
    depth, start, parts, position = 0, 0, [], 0
    while position < len(text):
        character = text[position]
        if depth == 0 and (match := separator.match(text, position)) and match.end() > position:
            parts.append(text[start:position])
            start = position = match.end()
            continue
        depth += (character in "([{") - (character in ")]}")
        position += 1
    return [*parts, text[start:]]
