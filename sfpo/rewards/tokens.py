"""Tokenizer of formulas, and the cursor that parsers use."""

from __future__ import annotations

import re


class BudgetExceeded(Exception):
    """Comparing an answer needs more operations, or deeper nesting, than allowed."""


class ParseError(ValueError):
    """The text is not a formula, or an ambiguous one."""


_TOKEN = re.compile(
    r" *(?:(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)|(?P<command>\\(?:[A-Za-z]+|[|{}]))|(?P<mark>\S))"
)


class Tokens:
    """The tokens (numbers, commands, signs) of one text, and the parser's position."""

    def __init__(self, body: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position = 0
        body = body.rstrip()
        while position < len(body):
            match = _TOKEN.match(body, position)
            if match is None:
                raise ParseError("no formula")
            self.tokens.append((match.lastgroup or "", match[0].strip()))
            position = match.end()
        self.at = 0

    @property
    def next(self) -> str:
        """The next token; '' at the end."""
        return self.ahead(0)

    def ahead(self, offset: int = 1) -> str:
        return self.tokens[self.at + offset][1] if self.at + offset < len(self.tokens) else ""

    def take(self, wanted: str | None = None) -> str:
        token = self.next
        if not token or (wanted is not None and token != wanted):
            raise ParseError(f"expected '{wanted}', found '{token}'")
        self.at += 1
        return token

    def kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def raw(self) -> str:
        """Take a group or token, and return its text, to use it in a name."""
        if self.next != "{":
            return self.take()
        depth, text = 0, ""
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            text += token if token not in ("{", "}", r"\text", r"\mathrm", r"\,") else ""
            if depth == 0:
                return text

    def raw_ahead(self, which: int = 1) -> str:
        """The text of the next argument (or of the one after it), without taking it."""
        start, text = self.at, ""
        try:
            for _ in range(which):
                text = self.raw()
        except ParseError:
            text = ""
        self.at = start
        return text
