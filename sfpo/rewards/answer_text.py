r"""Reading answers as text: the last box, one normal form, and the verdicts that take no algebra. No sympy in here.

What counts as equal, here and in sfpo.rewards.equivalence:
- A gold that is a number takes a number, exactly; a decimal is held to six digits (0.333333 is 1/3, 0.33 is not). A computation
  left undone is not an answer: for a gold of 46, \boxed{12+34} and \boxed{2 \cdot 23} are wrong, or an echo of the problem
  would earn a reward. A power is a number (2^{10} is 1024). An \int, \sum, \prod or \lim is undone whatever the gold.
- Units may be left out, and 5 cm is not 5 m. A percent sign is a unit or a factor: 10\% is 10 and 0.1. Degrees are a unit.
- Case matters in formulas, not in words. A name may be left out (x = 5 is 5), but two names must agree.
- Brackets must match: (1,2), [1,2], (1,2] and \{1,2\} all differ; a tuple may come without. Lists and sets have no order.
All text is untrusted: each step takes time linear in it, or is bounded by MAX_CHARACTERS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from sfpo.rewards.numerals import equal_numbers, number

MAX_CHARACTERS = 2_000
"""A longer answer is wrong unread."""

# ---------------------------------------------------------------------------------------------- the box

_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def extract_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{...} whose braces close (of nested boxes the inner one); None where there is none."""
    first = text.find(r"\boxed")
    if first < 0:
        return None
    best, opened = None, []
    for token in _BRACES.finditer(text, first):
        match token[0][-1], len(token[0]):
            case "{", length if length != 2:  # "{" or "\boxed{"; an escaped brace has length 2
                opened.append((token.end(), length > 1))
            case "}", 1 if opened:
                start, boxed = opened.pop()
                if boxed and (best is None or start > best[0]):
                    best = (start, token.start())
    return best and text[best[0] : best[1]].strip()


# ---------------------------------------------------------------------------------------------- the normal form

_SIGNS = ("times", "cdot", "cdot", "pm", "cup", "in", "le", "ge", "ne")
_UNICODE = str.maketrans(
    dict(zip("−–÷√²³，（）", ["-", "-", "/", r"\sqrt", "^2", "^3", ",", "(", ")"], strict=True))
    | dict(zip("½¼¾", [r"\frac{1}{2}", r"\frac{1}{4}", r"\frac{3}{4}"], strict=True))
    | dict(zip("×·⋅±∪∈≤≥≠", [rf"\{name} " for name in _SIGNS], strict=True))
    | dict(zip("πθ∞°", [r"\pi ", r"\theta ", r"\infty ", r"^\circ "], strict=True))
)
_ROW_END = re.compile(r"\\\\(?: ?\[[\d.]+ ?(?:pt|em|ex|mm)\])?")
_TEXT = r"\\(?:text(?:rm|bf|it|sf|up|normal)?|mbox|hbox|mathrm) ?\{ ?([^{}]*?) ?\}"
_STEPS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z]) ?\.?", ""),
        (r"(?<=\d),\\! ?(?=\d{3})|(?<=\d)\{,\}(?=\d{3})", ""),  # thousands, beyond doubt
        (r"\\! ?", ""),
        (r"\\(?:[,;:> ]|q?quad(?![A-Za-z]))|~", " "),
        (r"\\(?:displaystyle|textstyle|limits)(?![A-Za-z])|\\phantom ?(?:\{[^{}]*\}|.)", ""),
        (r"(\\(?:text|mathrm) ?\{[^{}^]*)\^ ?(?:\{(-?\d)\}|(-?\d)) ?\}", r"\1}^{\2\3}"),  # \mathrm{cm^2}
        (r"\\(?:math(?:bf|it|sf)|boldsymbol|bm|underline) ?\{([^{}]*)\}|\\mathrm ?\{ ?([eid]) ?\}", r"\1\2"),
        (_TEXT, r"\\text{\1}"),
        (r"\\text\{(?:degrees?|deg)\.?\}|\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})|\\degree(?![A-Za-z])", r"\\text{degree}"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac ?(\d|\\pi(?![A-Za-z])) ?", r"\\frac{\1}"),
        (r"(\\frac ?\{(?:[^{}]|\{[^{}]*\})*\}) ?(\w|\\pi(?![A-Za-z]))", r"\1{\2}"),
        (r"(?<![\w}^./])(\d+) ?/ ?(\d+)(?! ?[\^/.!\d])", r"\\frac{\1}{\2}"),  # 5/2 x is (5/2)x; Math-Verify reads 5/(2x)
        (r"([_^]) ?(-?\d+)", r"\1{\2}"),
        (r"\\(times|cdot) ?\{10\}", r"\\\1 10"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(l|g)eq(?:slant)?(?![A-Za-z])", r"\\\1e"),
        (r"\\?\$|\\[()\[\]]", ""),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r" ?(?:\\?%|\\text\{(?:percent|pct|%)\}|(?<![A-Za-z])percent(?![A-Za-z]))", "%"),
        (r" ?,? ?(?:\\text\{,? ?(?:and|or)\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])) ?", ", "),
        (r"\\p?mod ?\{[^{}]*\}$|\(\\text\{mod\}[^()]*\)$|\\pmod \d+$", ""),
        (r" +", " "),
    ]
]
_EDGES = re.compile(r"^(?:\\approx|[=,;: ])+|(?<![\\.,;: ])[.,;: ]+$")
_UNIT_WORDS = (
    "mm millimeter|cm centimeter|m meter metre|km kilometer|in inch|ft foot feet|yd yard|mi mile|g gram|kg kilogram"
    "|lb pound|oz ounce|s sec second|min minute|h hr hour|day|week|month|year|cent|usd dollar|euro|degree|rad radian|liter"
    "|gallon|unit|am|pm"
)
_UNITS = {
    word + ending: words.split()[0] for words in _UNIT_WORDS.split("|") for word in words.split() for ending in ("", "s", "es")
}
_BARE_UNITS = "|".join(sorted(word for word in _UNITS if len(word) > 2 or word in {"mm", "cm", "km", "in", "ft", "kg", "lb"}))
_UNIT = re.compile(
    r"(?<=[\w}!)\]%]) ?((?:(?:\\cdot|/)? ?\\text\{(?!(?:if|is|for|when|where|even|odd)\b)[^{}]*\}(?: ?\^ ?\{-?\d\})? ?)++)$"
    rf"|(?<=[\d}}]) ?((?:(?:square|sq|cubic|cu)\.? )?(?:{_BARE_UNITS})(?: ?\^ ?\{{[23]\}})?)$"
    r"|(?<=\d)((?: [a-z]{3,}\.?)+)$|(?<=:\d\d) ?([ap]\.?m\.?)$"
)
"""What follows a quantity: \\text{ cm}^2 and any other text; cm^2; the words of '7 distinct ways'; the p.m. of 8:34 p.m."""


@dataclass(frozen=True)
class Answer:
    """One answer, read as text."""

    body: str
    """Normalized LaTeX, without its unit. Rows of a matrix end in a newline."""
    key: str
    """The body without blanks and braces that mean nothing: equal keys are equal answers."""
    units: frozenset[str]
    """The known units in it. 5 cm is not 5 m; 5 alone is either."""
    words: bool
    """It was all text, such as \\text{even}."""


@lru_cache(maxsize=4096)
def read(latex: str) -> Answer:
    """The normal form of a LaTeX answer of at most MAX_CHARACTERS."""
    body = " ".join(latex.translate(_UNICODE).split())
    body = _ROW_END.sub("\n", body) if r"\begin" in body else re.sub(r"\\\\(?=[A-Za-z])", r"\\", body)
    for pattern, replacement in _STEPS:
        body = pattern.sub(replacement, body)
    body = _EDGES.sub("", body.strip(" "))
    while enclosed(body) == ("{", "}"):
        body = body[1:-1].strip(" ")
    units = frozenset()
    if unit := _UNIT.search(body):
        body = body[: unit.start()]
        words = re.findall("[a-z]+", unit[0].lower().replace(".", "").replace(r"\text", "").replace(r"\cdot", ""))
        units = frozenset(_UNITS[word] for word in words if word in _UNITS)
    body = _EDGES.sub("", body.replace(r"\text{degree}", " "))  # a blank: 60^\circ,120^\circ is not 60,120
    unwrapped = re.sub(r"\\text\{([^{}]*)\}", r"\1", body)
    words = r"\text" in body and re.fullmatch(r"(?:\\text\{[^{}]*\}|[ ,().])*", body) is not None
    key = re.sub(r"([_^]) ?\{ ?(\w) ?\}", r"\1\2", unwrapped)
    key = re.sub(r"(?<!\d) +| +(?!\d)", "", key)
    return Answer(unwrapped if words else body, key.casefold().rstrip(".") if words else key, units, words)


_OPEN, _CLOSE = "([{", ")]}"


def enclosed(body: str) -> tuple[str, str] | None:
    r"""The pair of brackets around the whole body, if one is: '(' '[' '\{' '{' and what closes it; a half-open pair too."""
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
    r"""The parts between the commas (or semicolons) that stand outside all brackets; each 'a \pm b' as two parts."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(body):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and character in ",;":
            parts.append(body[start:position])
            start = position + 1
    parts.append(body[start:])
    return [
        variant
        for part in parts
        if part.strip()
        for variant in ([part.replace(r"\pm", "+"), part.replace(r"\pm", "-")] if part.count(r"\pm") == 1 else [part])
    ]


# ---------------------------------------------------------------------------------------------- verdicts

_INTEGER = re.compile(r"([+-]?)([1-9]\d{0,2}(?:,\d{3})+|\d+)", re.ASCII)
_CLAIM = re.compile(
    r"((?:\\text\{[^{}]*\}|\\(?!(?:frac|sqrt|[lgn]e|cdot|times|pm)(?![a-z]))[a-zA-Z]++|[A-Za-z]|_ ?(?:\{[^{}]*\}|\w)|[ '|]"
    r"|\([A-Za-z0-9, ]*\))++)"  # a name: x, m_{max}, f(x), (x,y), \angle ABC
    r"|(?:\\(?:frac|sqrt|cdot|times|binom|pi)(?![a-z])|[^A-Za-z\\])*+"  # or a computation: 3+4
)
_UNDONE = re.compile(r"\\(?:int|iint|oint|sum|prod|lim)(?![A-Za-z])")


def claim(body: str) -> tuple[str, str]:
    r"""What is claimed, and of what: ('x', '5') for 'x = 5', ('', '7') for '3+4=7', ('f(t)', '2t') for 'f(t) = 4t/2 = 2t'."""
    body = body.split(r"\approx")[0].strip(" ")
    first, *others = re.split(r"=|\\in(?![A-Za-z])", body)
    match = _CLAIM.fullmatch(first)
    if not (others and match) or re.search("[,;]", "".join(others[:-1])):
        return "", body
    return (match[1] or "").replace(" ", ""), others[-1].strip(" ")


def quick_verdict(answer: str, gold: str) -> bool | None:
    """Whether the answer is the gold; None where it takes algebra to say."""
    if len(answer) > MAX_CHARACTERS:
        return False
    left, right = _INTEGER.fullmatch(answer), _INTEGER.fullmatch(gold)
    if left and right:
        return _digits(left) == _digits(right)
    given, wanted = read(answer), read(gold)
    if given.units and wanted.units and not given.units & wanted.units:
        return False
    if given.key == wanted.key or ((given.words or wanted.words) and given.key.casefold() == wanted.key.casefold()):
        return given.key != ""
    if wanted.words:
        return _words(given) == _words(wanted)
    (given_name, given_value), (wanted_name, wanted_value) = claim(given.body), claim(wanted.body)
    if (wanted_number := number(read(wanted_value).body)) and not (given_name and wanted_name and given_name != wanted_name):
        given_number = number(_unbracketed(given_value))
        return given_number is not None and equal_numbers(given_number, wanted_number)
    if _UNDONE.search(given.body) and not _UNDONE.search(wanted.body):
        return False
    return None


def _digits(match: re.Match[str]) -> tuple[bool, str]:
    """Sign and digits of an integer: compared as text, since int() refuses very long ones."""
    digits = match[2].replace(",", "").lstrip("0")
    return (match[1] == "-" and digits != "", digits)


def _unbracketed(body: str) -> str:
    r"""5 of (5) and of \{5\}."""
    brackets = enclosed(body)
    return read(body[len(brackets[0]) : -len(brackets[1])] if brackets in ((r"\{", r"\}"), ("(", ")")) else body).body


def _words(answer: Answer) -> list[str]:
    """Words in their order, letters (of a choice of several) in any: B for \\text{(B)}, [A, C] for C,A."""
    words = [word.strip("(). ") for word in answer.key.casefold().split(",")]
    return sorted(words) if all(len(word) == 1 for word in words) else words
