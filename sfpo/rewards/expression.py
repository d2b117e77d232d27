r"""Parses normalized LaTeX formulas into small trees of tuples, in linear time. Nothing is evaluated here.

Formulas that cannot be parsed with certainty raise ParseError. Conventions where LaTeX is ambiguous: implicit products bind
tighter than a slash (t/RC is t/(RC)); \sin 2x is \sin(2x), and \sin x / 2 is rejected; e is Euler's number and i the imaginary
unit; \log is to base 10; \frac{dx}{dt}, x(t) and I(0) are names; an integer before a fraction of two integers is a mixed
number.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from sfpo.rewards.notation import ACCENTS, APPLIED, FUNCTIONS, GREEK, INVERSES, SAME_LETTER
from sfpo.rewards.tokens import BudgetExceeded, ParseError, Tokens

__all__ = ["BudgetExceeded", "ParseError", "Tree", "number_tree", "parse"]

Tree = tuple[Any, ...]
r"""('num', Fraction, is a decimal), ('sym', name), ('const', 'pi' | 'e' | 'i' | 'oo'), ('add', *terms), ('mul', *factors),
('pow', base, exponent), ('root', radicand, degree), ('fn', name, *arguments)."""
MAX_DEPTH = 40
"""Maximum depth of nested brackets."""


_DIFFERENTIAL_ABOVE = re.compile(r"d(?:\^\{?\d\}?)?(?:\\?[A-Za-z]|$)|\\partial|d\^")
_DIFFERENTIAL = re.compile(r"d\\?[A-Za-z]|\\partial")
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", "|": "|"}
_AROUND = {r"\lfloor": "floor", r"\lceil": "ceil", "|": "abs"}
_NO_FACTOR = frozenset((r"\cdot", r"\times", r"\div", r"\rfloor", r"\rceil", r"\}", r"\pm", r"\mp"))
_RAISED_MARKS = ("*", r"\prime", r"\star", r"\dagger")


@lru_cache(maxsize=4096)
def parse(body: str) -> Tree:
    """Parse one expression (not a relation, list or set).

    Raises:
        ParseError: it is not an expression, or is ambiguous.
        BudgetExceeded: it is nested deeper than MAX_DEPTH.
    """
    reader = _Reader(body)
    tree = reader.sum()
    if reader.next:
        raise ParseError(f"unexpected '{reader.next}' after the expression")
    return tree


def number_tree(value: int | Fraction, decimal: bool = False) -> Tree:
    return ("num", Fraction(value), decimal)


_MINUS_ONE = number_tree(-1)


class _Reader(Tokens):
    """Recursive-descent parser over the tokens of one formula."""

    def __init__(self, body: str) -> None:
        super().__init__(body)
        self.depth = 0
        self.bars = 0

    # ------------------------------------------------------------------ sums and products

    def sum(self) -> Tree:
        terms = [self.signed()]
        while self.next in ("+", "-"):
            terms.append(self.signed())
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def signed(self) -> Tree:
        negative = False
        while self.next in ("+", "-"):
            negative ^= self.take() == "-"
        term = self.product()
        return ("mul", _MINUS_ONE, term) if negative else term

    def product(self) -> Tree:
        factors = [self.tight()]
        while self.next in ("*", r"\cdot", r"\times", "/", r"\div"):
            sign = self.take()
            negative = False
            while self.next == "-":
                negative ^= self.take() == "-"
            factor = self.tight()
            factors.append(("pow", factor, _MINUS_ONE) if sign in ("/", r"\div") else factor)
            if negative:
                factors.append(_MINUS_ONE)
        return factors[0] if len(factors) == 1 else ("mul", *factors)

    def tight(self) -> Tree:
        """An implicit product: 2xy, 3\\sqrt{2}, (x+1)(x-1)."""
        factors = [self.power()]
        while self.begins_factor():
            number_before = factors[-1][0] == "num"
            if self.kind() == "number" and self.tokens[self.at - 1][1] not in (")", "]", "}") and self.ahead() != "^":  # n2^n
                raise ParseError("a number after a factor")
            if number_before and (mixed := self.mixed(factors[-1])):
                factors[-1] = mixed
            else:
                factors.append(self.power())
        return factors[0] if len(factors) == 1 else ("mul", *factors)

    def begins_factor(self) -> bool:
        kind, token = self.kind(), self.next
        if kind == "command":
            return token not in _NO_FACTOR
        if token == "|":
            return not self.bars
        return kind == "number" or (kind == "mark" and (token.isalpha() or token in "([{"))

    def mixed(self, whole: Tree) -> Tree | None:
        r"""A mixed number such as 1\frac{4}{5}: an integer before a proper fraction of integers; None if it is not one."""
        start = self.at
        if self.next == r"\frac" and whole[1].denominator == 1 and not whole[2]:
            self.take()
            top, bottom = self.argument(), self.argument()
            if all(part[0] == "num" and part[1].denominator == 1 and not part[2] for part in (top, bottom)) and bottom[1]:
                return number_tree(whole[1] + top[1] / bottom[1])
        self.at = start
        return None

    # ------------------------------------------------------------------ powers and atoms

    def power(self) -> Tree:
        base = self.atom()
        while self.next == "!":
            self.take()
            base = ("fn", "factorial", base)
        if self.next == "^":
            self.take()
            base = ("pow", base, self.argument(signed=True))
            if self.next in ("^", "!"):
                raise ParseError("a power of a power without braces")
        return base

    def argument(self, signed: bool = False) -> Tree:
        r"""The argument of \frac, \sqrt or ^: a group in braces, or one token (after a command a single digit, as in TeX)."""
        if signed and self.next == "-" and self.ahead():
            self.take()
            return ("mul", _MINUS_ONE, self.argument())
        if self.next in ("+", "-", "*", "/", "^", "_", ""):
            raise ParseError("an argument is missing")
        return self.atom()

    def group(self) -> Tree:
        opening = self.take()
        closing = _CLOSING[opening]
        bars, self.bars = self.bars, int(closing == "|")
        tree = self.sum()
        while self.next == "," and opening == "(":
            raise ParseError("a list in parentheses")
        self.take(closing)
        self.bars = bars
        return ("fn", _AROUND[opening], tree) if opening in _AROUND else tree

    def number(self) -> Tree:
        text = self.take().replace(",", "")
        return number_tree(Fraction(text), "." in text)

    def atom(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise BudgetExceeded
        tree = self.unit()
        self.depth -= 1
        return tree

    def unit(self) -> Tree:
        kind, token = self.kind(), self.next
        if kind == "number":
            return self.number()
        if token in _CLOSING:
            return self.group()
        if kind == "command":
            return self.command()
        if kind == "mark" and token.isalpha():
            self.take()
            return self.name(token)
        raise ParseError(f"an expression cannot start with '{token}'")

    def name(self, letter: str) -> Tree:
        """A variable: a letter with index and primes; also the constants e and i, and function applications."""
        index = ""
        raised = self.at
        while self.next in ("_", "'") or (self.next == "^" and self.raised_mark()):
            if self.take() == "_":
                index += "_" + self.raw()
            elif self.tokens[self.at - 1][1] == "'":
                index += "'"
            else:
                index += "^" + self.raw()
        name = letter + index.replace(r"^\prime", "'").replace("^*", "*")
        if self.next == "{" and self.ahead() == "(" and self.ahead(3) == ")" and self.ahead(4) == "}":
            del self.tokens[self.at + 4], self.tokens[self.at]  # I{(0)} means I(0)
        if self.next == "(" and (applied := self.application(name)):
            return applied
        if raised == self.at and letter in ("e", "i"):
            return ("const", letter)
        return ("sym", name)

    def raised_mark(self) -> bool:
        r"""Whether the exponent is part of the name: x^{\prime}, x^*, x^{\star}."""
        if self.ahead() != "{":
            return self.ahead() in _RAISED_MARKS
        return self.ahead(2) in (*_RAISED_MARKS, "+") and self.ahead(3) in ("}", r"\prime")

    def application(self, name: str) -> Tree | None:
        """f(...), x(t), I(0): a name that includes its argument; None for a product such as n(n+1)."""
        inside, closing = self.ahead(1), self.ahead(2)
        if closing == ")" and (inside == "0" or (inside.isalpha() and inside not in (name, "e", "i"))):
            self.at += 3
            return ("sym", f"{name}({inside})")
        if name == "C" and (number := self.combination()):
            return number
        if name not in APPLIED:
            return None
        self.take("(")
        arguments = [self.sum()]
        while self.next == ",":
            self.take()
            arguments.append(self.sum())
        self.take(")")
        return ("fn", f"?{name}", *arguments)

    def combination(self) -> Tree | None:
        """The binomial coefficient C(n, k); None for a product with C."""
        start = self.at
        self.take("(")
        upper = self.sum()
        if self.next == ",":
            self.take()
            lower = self.sum()
            self.take(")")
            return ("fn", "binomial", upper, lower)
        self.at = start
        return None

    # ------------------------------------------------------------------ commands

    def command(self) -> Tree:
        name = self.take()[1:]
        name = SAME_LETTER.get(name, name)
        if name == "frac":
            return self.fraction()
        if name == "sqrt":
            return self.root()
        if name == "binom":
            return ("fn", "binomial", self.argument(), self.argument())
        if name == "pi":
            return ("const", "pi")
        if name == "infty":
            return ("const", "oo")
        if name in ("operatorname", "mathrm", "text"):
            return self.word(self.raw())
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in ACCENTS:
            return self.name(f"{name}:{self.raw()}")
        if name in GREEK:
            return self.name("\\" + name)
        raise ParseError(f"\\{name} is not supported")

    def word(self, word: str) -> Tree:
        if word in FUNCTIONS:
            return self.function(FUNCTIONS[word])
        if not word.isalpha():
            raise ParseError("words in a formula")
        if self.next == "(":
            self.take()
            argument = self.sum()
            self.take(")")
            return ("fn", f"?{word}", argument)
        return self.name(word if len(word) == 1 else f"text:{word}")

    def fraction(self) -> Tree:
        start = self.at
        if _DIFFERENTIAL_ABOVE.match(self.raw_ahead()) and _DIFFERENTIAL.match(self.raw_ahead(2)):
            return self.derivative(self.raw(), self.raw())
        self.at = start
        top_tree, bottom_tree = self.argument(), self.argument()
        return ("mul", top_tree, ("pow", bottom_tree, _MINUS_ONE))

    def derivative(self, above: str, below: str) -> Tree:
        r"""A derivative as a name: \dot{v} for \frac{dv}{dt}, \ddot{v} for \frac{d^2 v}{dt^2}."""
        match = re.fullmatch(r"d(\^2|)(\\?[A-Za-z].*)/dt\1", f"{above}/{below}")
        if not match:
            return ("sym", f"D[{above}/{below}]")
        name = re.sub(r"_(\w)$", r"_\1", match[2].removesuffix("(t)"))
        return ("sym", f"{'ddot' if match[1] else 'dot'}:{name}")

    def root(self) -> Tree:
        degree = number_tree(2)
        if self.next == "[":
            self.take()
            degree = self.sum()
            self.take("]")
        return ("root", self.argument(), degree)

    def function(self, name: str) -> Tree:
        exponent, base = None, None
        while self.next in ("^", "_"):
            if self.take() == "^":
                exponent = self.argument(signed=True)
            else:
                base = self.argument()
        if base is not None and name != "log":
            raise ParseError(f"an index at {name}")
        if exponent in (_MINUS_ONE, ("mul", _MINUS_ONE, number_tree(1))):
            if name not in INVERSES:
                raise ParseError(f"the inverse of {name}")
            name, exponent = INVERSES[name], None
        arguments = self.function_arguments(name)
        tree = ("fn", name, *arguments, *([base] if base is not None else []))
        return tree if exponent is None else ("pow", tree, exponent)

    def function_arguments(self, name: str) -> list[Tree]:
        if self.next in ("(", "[", "{"):
            closing = _CLOSING[self.take()]
            bars, self.bars = self.bars, 0
            arguments = [self.sum()]
            while self.next == "," and name in ("max", "min", "gcd", "lcm"):
                self.take()
                arguments.append(self.sum())
            self.take(closing)
            self.bars = bars
            return arguments
        factors = [self.power()]
        while self.begins_factor() and self.next not in ("(", "[", "|") and not self.begins_function():
            if self.kind() == "number":
                raise ParseError("a number after a factor")
            factors.append(self.power())
        if self.next in ("/", "(", r"\div"):
            raise ParseError(f"the end of {name}'s argument is ambiguous")
        return [factors[0] if len(factors) == 1 else ("mul", *factors)]

    def begins_function(self) -> bool:
        return self.kind() == "command" and (self.next[1:] in FUNCTIONS or self.next == r"\operatorname")
