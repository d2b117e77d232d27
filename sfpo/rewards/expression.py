r"""A reader of formulas: normalized LaTeX into a small tree of tuples, in time linear in the text. Nothing is evaluated here.

What it cannot read with certainty raises Unread. Conventions where LaTeX leaves a choice: a product without a sign binds
tighter than a slash (t/RC is t/(RC)); \sin 2x is \sin(2x), and \sin x / 2 is not read; e is Euler's number, and i the imaginary
unit; \log is to base 10; \frac{dx}{dt}, x(t) and I(0) are names; a whole number before a fraction of two is a mixed number.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from sfpo.rewards.notation import ACCENTS, APPLIED, FUNCTIONS, GREEK, INVERSES, SAME_LETTER
from sfpo.rewards.tokens import GaveUp, Tokens, Unread

__all__ = ["GaveUp", "Tree", "Unread", "number_tree", "parse"]

Tree = tuple[Any, ...]
r"""('num', Fraction, is a decimal), ('sym', name), ('const', 'pi' | 'e' | 'i' | 'oo'), ('add', *terms), ('mul', *factors),
('pow', base, exponent), ('root', radicand, degree), ('fn', name, *arguments)."""
MAX_DEPTH = 40
"""Brackets within brackets, at most."""


_DIFFERENTIAL_ABOVE = re.compile(r"d(?:\^\{?\d\}?)?(?:\\?[A-Za-z]|$)|\\partial|d\^")
_DIFFERENTIAL = re.compile(r"d\\?[A-Za-z]|\\partial")
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", "|": "|"}
_AROUND = {r"\lfloor": "floor", r"\lceil": "ceil", "|": "abs"}
_NO_FACTOR = frozenset((r"\cdot", r"\times", r"\div", r"\rfloor", r"\rceil", r"\}", r"\pm", r"\mp"))
_RAISED_MARKS = ("*", r"\prime", r"\star", r"\dagger")


@lru_cache(maxsize=4096)
def parse(body: str) -> Tree:
    """The tree of one expression: no relation, no list, no set.

    Raises:
        Unread: it is none, or none that can be read with certainty.
        GaveUp: over MAX_DEPTH.
    """
    reader = _Reader(body)
    tree = reader.sum()
    if reader.next:
        raise Unread(f"'{reader.next}' stands after the expression")
    return tree


def number_tree(value: int | Fraction, decimal: bool = False) -> Tree:
    return ("num", Fraction(value), decimal)


_MINUS_ONE = number_tree(-1)


class _Reader(Tokens):
    """A recursive descent over the tokens of one text."""

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
        """Factors side by side: 2xy, 3\\sqrt{2}, (x+1)(x-1)."""
        factors = [self.power()]
        while self.begins_factor():
            number_before = factors[-1][0] == "num"
            if self.kind() == "number" and self.tokens[self.at - 1][1] not in (")", "]", "}") and self.ahead() != "^":  # n2^n
                raise Unread("a number stands behind a factor")
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
        r"""The rest of 1\frac{4}{5}, where both parts are whole numbers and the fraction is proper."""
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
                raise Unread("a power of a power without braces")
        return base

    def argument(self, signed: bool = False) -> Tree:
        r"""What \frac, \sqrt and ^ take: a group in braces, or one token (a digit at a time after a command, as in TeX)."""
        if signed and self.next == "-" and self.ahead():
            self.take()
            return ("mul", _MINUS_ONE, self.argument())
        if self.next in ("+", "-", "*", "/", "^", "_", ""):
            raise Unread("an argument is missing")
        return self.atom()

    def group(self) -> Tree:
        opening = self.take()
        closing = _CLOSING[opening]
        bars, self.bars = self.bars, int(closing == "|")
        tree = self.sum()
        while self.next == "," and opening == "(":
            raise Unread("a list in parentheses")
        self.take(closing)
        self.bars = bars
        return ("fn", _AROUND[opening], tree) if opening in _AROUND else tree

    def number(self) -> Tree:
        text = self.take().replace(",", "")
        return number_tree(Fraction(text), "." in text)

    def atom(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise GaveUp
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
        raise Unread(f"'{token}' begins no expression")

    def name(self, letter: str) -> Tree:
        """A letter with its index and primes; e, i and what is applied to something are not letters."""
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
            del self.tokens[self.at + 4], self.tokens[self.at]  # I{(0)} is I(0)
        if self.next == "(" and (applied := self.application(name)):
            return applied
        if raised == self.at and letter in ("e", "i"):
            return ("const", letter)
        return ("sym", name)

    def raised_mark(self) -> bool:
        r"""x^{\prime}, x^*, x^{\star}: a part of the name."""
        if self.ahead() != "{":
            return self.ahead() in _RAISED_MARKS
        return self.ahead(2) in (*_RAISED_MARKS, "+") and self.ahead(3) in ("}", r"\prime")

    def application(self, name: str) -> Tree | None:
        """f(...), x(t), I(0): a name that holds its argument. None: a product, such as n(n+1)."""
        inside, closing = self.ahead(1), self.ahead(2)
        if closing == ")" and (inside == "0" or (inside.isalpha() and inside not in (name, "e", "i"))):
            self.at += 3
            return ("sym", f"{name}({inside})")
        if name == "C" and (number := self.chosen()):
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

    def chosen(self) -> Tree | None:
        """C(n, k), the number of choices. None: C times something."""
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
        raise Unread(f"\\{name} is not read")

    def word(self, word: str) -> Tree:
        if word in FUNCTIONS:
            return self.function(FUNCTIONS[word])
        if not word.isalpha():
            raise Unread("words in a formula")
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
        r"""A name: \frac{dv}{dt} is \dot{v}, and \frac{d^2 v}{dt^2} \ddot{v}."""
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
            raise Unread(f"an index at {name}")
        if exponent in (_MINUS_ONE, ("mul", _MINUS_ONE, number_tree(1))):
            if name not in INVERSES:
                raise Unread(f"the inverse of {name}")
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
                raise Unread("a number stands behind a factor")
            factors.append(self.power())
        if self.next in ("/", "(", r"\div"):
            raise Unread(f"how far the argument of {name} goes")
        return [factors[0] if len(factors) == 1 else ("mul", *factors)]

    def begins_function(self) -> bool:
        return self.kind() == "command" and (self.next[1:] in FUNCTIONS or self.next == r"\operatorname")
