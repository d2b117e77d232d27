r"""Normalizes answers as text, and decides equivalence where no algebra is needed.

Rules of equivalence, here and in sfpo.rewards.equivalence:

- If the gold is a number, the answer must be the same number exactly; a decimal must match to six digits (0.333333 equals 1/3,
  0.33 does not). Closed forms are accepted: 10!, \binom{5}{2}, \sqrt{25}, e^{i\pi}, 2^{10}+1. Plain numbers combined only by
  +, -, * and / are an uncomputed expression, and wrong: for a gold of 46, \boxed{12+34} and \boxed{2 \cdot 23} earn nothing,
  since repeating the problem would otherwise be rewarded. (Math-Verify and lm-eval's minerva_math accept both, hendrycks_math
  neither.) \int, \sum, \prod and \lim always count as uncomputed, unless the gold has one too.
- Units may be omitted, but 5 cm is not 5 m. A percent sign may be a unit or a factor: 10\% equals 10 and 0.1. If the gold is
  below 1 it can only be a factor: 0.5\% does not equal 0.5. Degrees are a unit.
- Case matters in formulas, not in words. A variable name may be omitted (x = 5 equals 5), but two names must agree.
- Brackets must match: (1,2), [1,2], (1,2] and \{1,2\} all differ; a tuple may omit its brackets. Lists and sets are unordered.

Text is untrusted: each step takes linear time, or its length is bounded by MAX_CHARACTERS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from sfpo.rewards.numerals import RATIO, Number, equal_numbers, equal_ratios, number
from sfpo.rewards.spelling import latex_from_plain, plain_unicode, without_formatting
from sfpo.rewards.units import DEGREE, split_unit, units_differ
from sfpo.rewards.words import NUMBERS, in_words, lowercased, rearranged, same_words

MAX_CHARACTERS = 2_000
"""Longer answers are wrong without being parsed."""

# ---------------------------------------------------------------------------------------------- the normal form

_ROW_END = re.compile(r"\\\\(?: ?\[[\d.]+ ?(?:pt|em|ex|mm)\])?")
_TEXT = r"\\(?:text(?:rm|bf|it|sf|up|normal)?|mbox|hbox|mathrm) ?\{ ?([^{}]*?) ?\}"
_REWRITES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z]) ?\.?", ""),
    (r"\\(?:[lr]?vert)(?![A-Za-z]) ?", "|"),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\neq(?![A-Za-z])", r"\\ne"),
    (r"\\lbrace(?![A-Za-z]) ?", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"\\colon(?![A-Za-z])|\{:\}", ":"),
    (r"(?<=\d),\\! ?(?=\d{3})|(?<=\d)\{,\}(?=\d{3})", ""),  # unambiguous thousands separators
    (r"\\! ?", ""),
    (r"\\(?:[,;:> ]|q?quad(?![A-Za-z]))|~", " "),
    (r"(\\(?:text|mathrm) ?\{[^{}^]*)\^ ?(?:\{(-?\d)\}|(-?\d)) ?\}", r"\1}^{\2\3}"),  # \mathrm{cm^2}
    (r"\\mathrm ?\{ ?([eid]) ?\}", r"\1"),
    (_TEXT, r"\\text{\1}"),
    (r"^\\text\{(\$?-?\d[\d.,:/]*) ([^{}\d]*)\}$", r"\1\\text{ \2}"),  # \text{3:15 p.m.}
    (r"\\text\{(?:degrees?|deg)\.?\}|\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})|\\degree(?![A-Za-z])", r"\\text{degree}"),
    (r"(?<=[\d}]) ?(?:degrees?|deg)(?![A-Za-z])", r"\\text{degree}"),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\frac ?(\d|\\pi(?![A-Za-z])) ?", r"\\frac{\1}"),
    (r"(\\frac ?\{(?:[^{}]|\{[^{}]*\})*\}) ?(\w|\\pi(?![A-Za-z]))", r"\1{\2}"),
    (r"(?<![\w}^./])(\d+) ?/ ?(\d+)(?! ?[\^/.!\d])", r"\\frac{\1}{\2}"),  # 5/2 x is (5/2)x; Math-Verify reads 5/(2x)
    (r"\((\w+)\) ?(?=_)", r"\1"),  # (4210)_5
    (r"_ ?\{? ?\\text\{([a-z]+)\} ?\}?", lambda match: "_{" + NUMBERS.get(match[1], rf"\text{{{match[1]}}}") + "}"),
    (
        r"^(?:\\text\{)?(?:(?i:there (?:is|are) )?(?i:no) (?:real )?(?:solutions?|roots?|values?)(?: exists?)?)(?:\}|$)",
        r"\\emptyset",
    ),
    (r"\^ ?(-?\d+\.\d+)", r"^{\1}"),
    (r"([_^]) ?(-?\d+)", r"\1{\2}"),
    (r"\\(times|cdot) ?\{10\}", r"\\\1 10"),
    (r"\\varnothing(?![A-Za-z])|^\\\{ ?\\\}$", r"\\emptyset"),
    (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"\\(l|g)eq(?:slant)?(?![A-Za-z])", r"\\\1e"),
    (r"\\?\$|\\[()\[\]]", ""),
    (r"\\langle(?![A-Za-z])", "("),
    (r"\\rangle(?![A-Za-z])", ")"),
    (r" ?(?:\\?%|\\text\{(?:percent|pct|%)\}|(?<![A-Za-z])percent(?![A-Za-z]))", "%"),
    (r"^([A-Za-z](?: ?_ ?(?:\{[^{}]*\}|\w))?) ?\\approx(?![A-Za-z])", r"\1="),
    (r"(?<=\d) ?(?::|\\text\{ ?to ?\}| to ) ?(?=\d)", ":"),
    (
        r"(?i)^\\text\{(?![^{}]*\b(?:not|never|wrong)\b)(?:[^{}]*[ ,])?(?:is|are|equals|answer):? ?"
        r"(?:\}|(-?\d[\d.,]*)\.?\}$)",
        r"\1",
    ),
    (r"(?<=\\text\{degree\}) ?([CF])$", r"\\text{\1}"),
    (r"^(?:\\text\{)? ?(?:DNE|D\.N\.E\.|dne) ?\}?$", r"\\text{does not exist}"),
    (r" +", " "),
]
_STEPS = [(re.compile(pattern), replacement) for pattern, replacement in _REWRITES]
_SCALES = {"hundred": "2", "thousand": "3", "million": "6", "billion": "9", "trillion": "12"}
_SCALED = re.compile(rf"(?<=[\d}}]) ?(\\text\{{ ?)?({'|'.join(_SCALES)})s?(?![a-z]) ?")
_MODULUS = re.compile(
    r" ?(?:\\[pb]?mod(?![A-Za-z]) ?|\(? ?(?:\\text\{ ?mod ?\}|(?<![A-Za-z\\])mod) ?)(?:\{([^{}]*)\}|([^{}() ]+)) ?\)?$"
)
_JOIN = re.compile(r" ?,? ?(?:\\text\{,? ?(?:and|or)\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])) ?")
"""Separators of list elements other than a comma."""
_OR = re.compile(r" ?\\text\{ ?or ?\} ?| or ")
_EDGES = re.compile(r"^(?:\\approx|[=,;: ])+|(?<![\\.,;: ])[.,;: ]+$")


@dataclass(frozen=True)
class Answer:
    """A normalized answer."""

    body: str
    """Normalized LaTeX without units. Matrix rows end in a newline."""
    key: str
    """The body without insignificant spaces and braces; answers with equal keys are equal."""
    units: frozenset[str]
    """The known units. 5 cm does not equal 5 m, but 5 equals both."""
    words: bool
    """Whether the whole answer was text, such as \\text{even}."""
    source: str
    r"""The body before units, degrees and words between list elements were removed: 'x<1\text{ or }x>3', '60\text{degree}'."""
    modulus: str
    r"""'7' for 3 \pmod{7}; '' if there is none."""


@lru_cache(maxsize=4096)
def read(latex: str) -> Answer:
    """Normalize a LaTeX answer of at most MAX_CHARACTERS."""
    body = " ".join(plain_unicode(latex).split())
    body = _rows_as_list(body)
    body = _ROW_END.sub("\n", body) if r"\begin" in body else re.sub(r"\\\\(?=[A-Za-z])", r"\\", body)
    body = latex_from_plain(without_formatting(body))
    for pattern, replacement in _STEPS:
        body = pattern.sub(replacement, body)
    body = _SCALED.sub(lambda match: rf"\cdot 10^{{{_SCALES[match[2]]}}}{match[1] or ''}", body)
    if modulus := _MODULUS.search(body):
        body = body[: modulus.start()]
    source = body = re.sub(r"^0(?=\d:\d\d(?!\d))", "", _unbraced(_EDGES.sub("", body.strip(" "))))
    if body.startswith("]") and body[-1] in "[])":  # ]0,1[ is (0,1)
        body = source = "(" + body[1:]
    if body.endswith("[") and body[0] in "([":
        body = source = body[:-1] + ")"
    body = _unbraced(re.sub(" +", " ", _JOIN.sub(", ", body)).strip(" "))
    body, units = split_unit(body)
    body = _EDGES.sub("", body.replace(r"\text{degree}", " "))  # a space, since 60^\circ,120^\circ is not 60,120
    unwrapped = re.sub(r"\\text\{([^{}]*)\}", r"\1", body)
    if (number_word := NUMBERS.get(unwrapped.strip(" ").casefold())) is not None:
        body = unwrapped = number_word
    words = r"\text" in body and re.fullmatch(r"(?:\\text\{[^{}]*\}|[ ,().])*", body) is not None
    key = re.sub(r"([_^]) ?\{ ?(\w) ?\}", r"\1\2", unwrapped)
    key = re.sub(r"(?<!\d) +| +(?!\d)", "", key)
    found = (modulus[1] or modulus[2]).strip(" ") if modulus else ""
    return Answer(unwrapped if words else body, key.casefold().rstrip(".") if words else key, units, words, source, found)


_CASES = re.compile(r"\\left ?\\\{ ?\\begin ?\{array\} ?\{[lcr ]*\} ?(.*?) ?\\end ?\{array\} ?\\right ?\.")
_ROWS = re.compile(r"\\begin ?\{(aligned|align\*?|gathered|split|cases|equation\*?)\} ?(.*?) ?\\end ?\{\1\}")


def _rows_as_list(body: str) -> str:
    r"""Replace \begin{cases} x = 3 \\ y = 5 \end{cases} by 'x = 3; y = 5'; cases with conditions are left unchanged."""

    def as_list(match: re.Match[str]) -> str:
        rows = re.sub(r"& ?(?==)|^&", "", match[2])
        return match[0] if "&" in rows else _ROW_END.sub("; ", rows)

    return _ROWS.sub(as_list, _CASES.sub(r"\\begin{cases}\1\\end{cases}", body)) if r"\begin" in body else body


def _unbraced(body: str) -> str:
    while enclosed(body) == ("{", "}"):
        body = body[1:-1].strip(" ")
    return body


_OPEN, _CLOSE = "([{", ")]}"


def enclosed(body: str) -> tuple[str, str] | None:
    r"""(opening, closing) if one pair of brackets encloses the whole body: '(', '[', '\{' or '{', including half-open pairs."""
    escaped = body.startswith(r"\{")
    if not body or body[escaped] not in _OPEN or body[-1] not in _CLOSE:
        return None
    depth = 0
    for position, character in enumerate(body[escaped:], escaped):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and position < len(body) - 1:
            return None
    return (body[: 1 + escaped], r"\}" if body.endswith(r"\}") else body[-1]) if depth == 0 else None


def split_list(body: str) -> list[str]:
    r"""Split at the commas (or semicolons) outside all brackets; 'a \pm b' becomes two elements."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(body):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and character in ",;":
            parts.append(body[start:position])
            start = position + 1
    parts.append(body[start:])
    return [variant for part in parts if part.strip() for variant in _both_signs(part)]


_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")
MAX_SIGNS = 3
"""Maximum number of \\pm signs of an expression that are expanded."""


def _both_signs(part: str) -> list[str]:
    r"""Expand every \pm independently into + and -; a single \mp takes the opposite sign of the single \pm."""
    count = len(_PLUS_MINUS.findall(part))
    if not 1 <= count <= MAX_SIGNS or (r"\mp" in part and count > 1):
        return [part]
    variants = [part]
    for _ in range(count):
        variants = [_PLUS_MINUS.sub(sign, one, count=1) for one in variants for sign in "+-"]
    if r"\mp" in part:
        return [re.sub(r"\\mp(?![A-Za-z])", sign, one) for one, sign in zip(variants, "-+", strict=True)]
    return variants


# ---------------------------------------------------------------------------------------------- verdicts

_INTEGER = re.compile(r"([+-]?)([1-9]\d{0,2}(?:,\d{3})+|\d+)", re.ASCII)
_CLAIM = re.compile(
    r"((?:\\text\{[^{}]*\}|\\(?!(?:frac|sqrt|[lgn]e|cdot|times|pm)(?![a-z]))[a-zA-Z]++|[A-Za-z]|_ ?(?:\{[^{}]*\}|\w)|[ '|]"
    r"|(?<=[fgh]) ?\^ ?\{-1\}(?= ?\()|\([A-Za-z0-9, ]*\))++)"  # a name: x, m_{max}, f(x), (x,y), \angle ABC
    r"|(?:\\(?:frac|sqrt|cdot|times|binom|pi)(?![a-z])|[^A-Za-z\\])*+"  # or a computation: 3+4
)
_LONE_NAME = re.compile(r"[A-Za-z](?: ?_ ?(?:\{[^{}]*\}|\w))?")
_CLOSED_FORM = re.compile(r"[!^|]|\\(?!(?:frac|cdot|times|div|pm|mp|left|right|text|mathrm)(?![A-Za-z]))[A-Za-z]|C ?[_(]")
_UNDONE = re.compile(r"\\(?:int|iint|oint|sum|prod|lim)(?![A-Za-z])")


def claim(body: str) -> tuple[str, str]:
    r"""Split an equation into (name, value): ('x', '5') for 'x = 5', ('', '7') for '3+4=7', ('f(t)', '2t') for 'f(t) = 4t/2 =
    2t'."""
    first, *others = re.split(r"=|\\(?:in|equiv)(?![A-Za-z])", body)
    match = _CLAIM.fullmatch(first)
    if len(others) == 1 and not (match and match[1]) and _LONE_NAME.fullmatch(others[0].strip(" ")):
        return others[0].replace(" ", ""), first.strip(" ")  # 5 = x
    if not (others and match) or re.search("[,;]", "".join(others[:-1])):
        return "", body
    return (match[1] or "").replace(" ", ""), others[-1].strip(" ")


_FOR_ALL = re.compile(
    r"[,;]? ?\(?(?:\\text\{ ?,? ?(?:for )?(?:all|every|any|each)(?: real| positive| nonzero| integers?| numbers?)* ?\}"
    r"|\\forall(?![A-Za-z])) ?([a-z])(?: ?(?:\\in(?![A-Za-z])|[<>]|\\(?:ge|le|ne)(?![A-Za-z]))[^,]*)?\)?$"
)


def without_for_all(body: str) -> str:
    r"""Remove a quantifier over a function's own variable: 'f(x) = 2x' for 'f(x) = 2x \text{ for all } x \in \mathbb{R}'."""
    if (match := _FOR_ALL.search(body)) and re.match(rf"[A-Za-z] ?\( ?{match[1]} ?\) ?=", body):
        return body[: match.start()].rstrip(" ")
    return body


def quick_verdict(answer: str, gold: str) -> bool | None:
    """Whether the answer equals the gold; None if the decision needs algebra (sfpo.rewards.equivalence)."""
    if len(answer) > MAX_CHARACTERS:
        return False
    left, right = _INTEGER.fullmatch(answer), _INTEGER.fullmatch(gold)
    if left and right:
        return _digits(left) == _digits(right)
    given, wanted = read(answer), read(gold)
    if compare_in_radians(given, wanted):
        return None
    if given.modulus and wanted.modulus and given.modulus != wanted.modulus:
        return False
    if units_differ(given.units, wanted.units):
        return False
    if (given.units and "%" in wanted.body) or (wanted.units and "%" in given.body):
        return False
    if given.key == wanted.key or ((given.words or wanted.words) and given.key.casefold() == wanted.key.casefold()):
        return given.key != ""
    if (verdict := _words_verdict(given, wanted)) is not None:
        return verdict
    if len(readings := _OR.split(given.source)) > 1 and all(quick_verdict(one, gold) for one in readings):
        return True  # \frac12 or 0.5
    (given_name, given_value), (wanted_name, wanted_value) = claim(given.body), claim(wanted.body)
    if (
        (wanted_number := number(read(wanted_value).body))
        and not RATIO.fullmatch(given_value)
        and not (given_name and wanted_name and given_name != wanted_name)
    ):
        given_number = number(_unbracketed(given_value))
        if given_number is None and _CLOSED_FORM.search(given_value) and not _UNDONE.search(given_value):
            return None
        if given_number and any(other and not equal_numbers(other, given_number) for other in _other_sides(given.body)):
            return False  # 0.57 = 56%
        if given_number and given.modulus and wanted.modulus.isdecimal() and int(wanted.modulus[:9]):
            return (given_number.value - wanted_number.value) % int(wanted.modulus) == 0
        return given_number is not None and equal_numbers(given_number, wanted_number)
    if (ratio := equal_ratios(given_value, wanted_value)) is not None:
        return ratio
    if _UNDONE.search(given.body) and not _UNDONE.search(wanted.body):
        return False
    return None


def _other_sides(body: str) -> list[Number | None]:
    return [number(side.strip(" ")) for side in body.split("=")[:-1]]


def compare_in_radians(given: Answer, wanted: Answer) -> bool:
    r"""Whether to convert degrees: one of the two is written in degrees and the other in radians, such as 60^\circ and
    \frac{\pi}{3}, or degrees are the argument of a trigonometric function.

    An answer \frac{\pi}{3} without a unit does not equal 60^\circ, and 60 does not equal \frac{\pi}{3}.
    """
    in_degrees = DEGREE in given.source, DEGREE in wanted.source
    if all(in_degrees):
        return _OF_ANGLE.search(given.source) is not None and _OF_ANGLE.search(wanted.source) is not None
    if in_degrees[0]:
        return r"\pi" in wanted.source or "rad" in wanted.units or _OF_ANGLE.search(given.source) is not None
    sines = [_OF_ANGLE.search(one.source) is not None for one in (given, wanted)]
    return in_degrees[1] and ("rad" in given.units or sines == [False, True])


_OF_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")


def _words_verdict(given: Answer, wanted: Answer) -> bool | None:
    """Whether the answer equals a gold in words; None if the gold is a formula, or if this needs algebra."""
    loose, wanted_loose = in_words(given.body), in_words(wanted.body)
    as_words = same_words(given.body.casefold(), wanted.body.casefold())
    if wanted.words:
        return as_words
    if not wanted_loose:
        return True if given.words and re.fullmatch("[A-Za-z]", wanted.body) and as_words else None
    if given.words:
        return as_words
    same = same_words(lowercased(given.body), lowercased(wanted.body))
    return True if same else False if loose or rearranged(given.body, wanted.body) else None


def _digits(match: re.Match[str]) -> tuple[bool, str]:
    """(is negative, digits) of an integer, compared as text because int() rejects very long ones."""
    digits = match[2].replace(",", "").lstrip("0")
    return match[1] == "-" and digits != "", digits


def _unbracketed(body: str) -> str:
    r"""Remove brackets around a single value: '5' for '(5)' and '\{5\}', '-5' for '-(5)'."""
    if body.startswith("-") and enclosed(body[1:].strip(" ")) == ("(", ")"):
        inside = body[1:].strip(" ")[1:-1].strip(" ")
        return f"-{inside}" if inside[:1] not in ("-", "+") else body
    brackets = enclosed(body)
    return read(body[len(brackets[0]) : -len(brackets[1])] if brackets in ((r"\{", r"\}"), ("(", ")")) else body).body
