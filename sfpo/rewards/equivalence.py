r"""Whether two answers are equal where it takes algebra: lists, tuples, intervals, and Math-Verify for the rest.

Runs in the grader's worker processes only: it imports sympy at once, and what it is given may hang it. Settings that differ
from math_verify.parse's own, each because the default takes a wrong answer for a right one:
- symbols keep their case (else GmM = GMm);
- no letter is dropped as a unit (else 6m = 6); units are read by sfpo.rewards.answer_text;
- equality is checked again at sample points (else 1.6e-19 = 9.1e-31: both round to 0).
Only LaTeX is parsed: math_verify's reader of plain expressions goes through sympy's parse_expr, which calls eval.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from latex2sympy2_extended.math_normalization import normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from sfpo.rewards.answer_text import claim, enclosed, quick_verdict, read, split_list
from sfpo.rewards.numerals import TOLERANCE

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeout is off
_NORMALIZATION = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_CONVERSION = ConversionConfig(lowercase_symbols=False)
_MATRIX = re.compile(
    r"\\begin\{(?:[pbB]?matrix|array)\}(?:\{[^{}]*\})?((?:[^\\]|\\(?!begin|end))*)\\end\{(?:[pbB]?matrix|array)\}", re.DOTALL
)
_SAMPLES = (0.7310585, 1.3132617, 2.1269280)
"""Where two expressions must agree: the k-th free symbol of a sample is the sample plus k/7."""
_WARM_UP = (
    (r"\frac{1}{2} \sqrt{3} x^{2} - \sin{x} \cos(2 t) + \log_{2} n", r"\frac{\sqrt{3}}{2} x^2 - \sin(x) \cos 2t + \log_2 n"),
    (r"\left\lfloor \frac{n}{2} \right\rfloor + e^{-\frac{t}{R C}} |a|", r"|a| e^{-t/(RC)} + \lfloor n/2 \rfloor"),
    (r"\binom{2n}{n} (n-1)!", r"\omega_{n}^{2} e^{-\zeta \omega_{n} t}"),
    (r"(2,\infty) \cup [3, 4]", r"(-\infty, 2] \cup \{3\}"),
    ("y = 2x + 3", "y - 3 = 2x"),
    (r"-1 < x \le 5", "(-1, 5]"),
    ("(2+i)^2", "3+4i"),
)
"""Compared on import, in the server process: the parser builds tables as it goes, and the first use of a form is slow."""


def equivalent(answer: str, golds: Sequence[str]) -> bool:
    """True if the answer gives every gold and nothing else, in any order."""
    if len(golds) == 1 and _same(answer, golds[0]):
        return True
    return _same_list(_items(answer), [item for gold in golds for item in _items(gold)])


def _items(latex: str) -> list[str]:
    r"""The members of a list: '1, 2', '\{1, 2\}', 'x = 1, 2' and 'x \in \{1, 2\}' alike."""
    body = read(latex).body
    value = claim(body)[1]
    return split_list(value[2:-2] if enclosed(value) == (r"\{", r"\}") else body)


def _same_list(given: list[str], wanted: list[str]) -> bool:
    """One to one, in any order. Takes the first match: equality is transitive."""
    if len(given) != len(wanted) or len(wanted) < 2:
        return False
    left = list(given)
    for gold in wanted:
        match = next((index for index, item in enumerate(left) if _same(item, gold)), None)
        if match is None:
            return False
        del left[match]
    return True


def _same(answer: str, gold: str) -> bool:
    """One answer, one gold."""
    if (verdict := quick_verdict(answer, gold)) is not None:
        return verdict
    answer, gold = read(answer).body, read(gold).body
    (given_name, given), (wanted_name, wanted) = claim(answer), claim(gold)
    if (wanted_name and "=" not in answer) or (given_name and "=" not in gold):
        answer, gold = given, wanted  # a name on one side alone is dropped; two names, or an equation, are for Math-Verify
        if (verdict := quick_verdict(answer, gold)) is not None:
            return verdict
    if (brackets := enclosed(wanted)) and (verdict := _same_brackets(given, wanted, brackets)) is not None:
        return verdict
    if (matrix := _rows(wanted)) is not None:
        return _same_rows(_rows(given), matrix)
    if len(items := split_list(gold)) > 1:
        return _same_list(_items(answer), items)
    return _same_algebra(answer, gold)


def _same_brackets(given: str, wanted: str, brackets: tuple[str, str]) -> bool | None:
    """Tuples and intervals, member by member; brackets must match, or the tuple come without. None: not such a pair."""
    items = split_list(wanted[len(brackets[0]) : -len(brackets[1])])
    if len(items) < 2:
        return None
    found = enclosed(given)
    if found is None and brackets == ("(", ")") and len(split_list(given)) > 1:
        found, given = brackets, f"({given})"
    if found is None:
        return None
    if found != brackets:
        return False
    given_items = split_list(given[len(found[0]) : -len(found[1])])
    if brackets == (r"\{", r"\}"):
        return _same_list(given_items, items)
    return len(given_items) == len(items) and all(map(_same, given_items, items))


def _rows(body: str) -> list[list[str]] | None:
    """The cells of a body that is one matrix."""
    match = _MATRIX.fullmatch(body.strip("[]() "))
    return [row.split("&") for row in match[1].split("\n") if row.strip()] if match else None


def _same_rows(given: list[list[str]] | None, wanted: list[list[str]]) -> bool:
    if given is None or [len(row) for row in given] != [len(row) for row in wanted]:
        return False
    return all(_same(*cells) for rows in zip(given, wanted, strict=True) for cells in zip(*rows, strict=True))


# ---------------------------------------------------------------------------------------------- Math-Verify


def _same_algebra(answer: str, gold: str) -> bool:
    real = not (should_treat_as_complex(answer) or should_treat_as_complex(gold))
    try:
        given, wanted = _parsed(answer, real), _parsed(gold, real)
        if not _agree(given, wanted):
            return False
        # timeout_seconds=None: no SIGALRM in here, the worker's budget ends what hangs
        if verify(wanted, given, timeout_seconds=None, allow_set_relation_comp=True):
            return True
        return isinstance(given, sympy.Eq) and isinstance(wanted, sympy.Eq) and _proportional(given, wanted)
    except MemoryError:
        raise  # no verdict: the grader counts it as given up
    except Exception:  # untrusted text: whatever the parser or sympy make of it, it is not the gold
        return False


@lru_cache(maxsize=256)
def _parsed(body: str, real: bool) -> Any:
    """The sympy object; i is the imaginary unit, unless ``real``."""
    body = re.sub(r"(?<![A-Za-z\\])E(?=_)", r"\\text{E}", body.replace("\n", r"\\"))
    latex = normalize_latex(body, _NORMALIZATION)
    parsed = latex2sympy(latex, is_real=real or None, normalization_config=None, conversion_config=_CONVERSION)
    return parsed if real else parsed.subs(sympy.Symbol("i"), sympy.I)


def _agree(given: Any, wanted: Any) -> bool:
    """False if two expressions differ at a sample point. Settles most wrong answers, and what Math-Verify rounds too far."""
    if not (isinstance(given, sympy.Expr) and isinstance(wanted, sympy.Expr)) or wanted.has(sympy.Derivative):
        return True
    symbols = sorted(given.free_symbols | wanted.free_symbols, key=str)
    for sample in _SAMPLES[: 3 if symbols else 1]:
        point = {symbol: sympy.Float(sample + index / 7) for index, symbol in enumerate(symbols)}
        left, right = given.subs(point).evalf(20), wanted.subs(point).evalf(20)
        known = left.is_number and right.is_number and left.is_finite and right.is_finite
        if known and abs(left - right) > float(TOLERANCE) * (1 + 1e-6) * abs(right):
            return False
    return True


def _proportional(given: sympy.Eq, wanted: sympy.Eq) -> bool:
    """2x - y + 3 = 0 and y = 2x + 3: one is the other times a number."""
    ratio = sympy.simplify((given.lhs - given.rhs) / (wanted.lhs - wanted.rhs))
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


for _pair in _WARM_UP:
    _same_algebra(*_pair)
