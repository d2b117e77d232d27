r"""Parses matrices and column vectors: with a scalar factor, transposed, or written as a tuple."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sfpo.rewards.answer_text import enclosed, split_list

_MATRIX = re.compile(
    r"\\begin\{(?:[pbB]?(?:small)?matrix|array)\}(?:\{[^{}]*\})?((?:[^\\]|\\(?!begin|end))*)\\end\{(?:[pbB]?(?:small)?matrix|array)\}",
    re.DOTALL,
)
_TRANSPOSED = re.compile(r"\^ ?(?:\{ ?)?(?:T|t|\\top|\\intercal|\\(?:text|mathrm|mathsf) ?\{ ?T ?\})(?: ?\})?")


@dataclass(frozen=True)
class Matrix:
    """A matrix with an optional scalar factor: the text of the factor ('' or '1/3') and of each cell."""

    factor: str
    rows: list[list[str]]

    def cell(self, row: int, column: int) -> str:
        text = self.rows[row][column]
        return rf"({self.factor})\cdot({text})" if self.factor else text


def read_matrix(body: str) -> Matrix | None:
    r"""Parse a body that is a single matrix, possibly with a factor or transposed; None for anything else, tuples included."""
    body = body.strip("[]() ") if body.count(r"\begin") == 1 and body.strip("[]() ").startswith(r"\begin") else body.strip(" ")
    match = _MATRIX.search(body)
    if not match:
        return None
    before, after = body[: match.start()].strip(" ").removesuffix(r"\cdot").strip(" "), body[match.end() :].strip(" ])")
    if "begin" in after or (after and not _TRANSPOSED.fullmatch(after)):
        return None
    rows = [row.split("&") for row in match[1].split("\n") if row.strip()]
    if after:
        if len({len(row) for row in rows}) != 1:
            return None
        rows = [list(column) for column in zip(*rows, strict=True)]
    return Matrix({"-": "-1", "+": ""}.get(before, before), rows)


def as_column(body: str) -> Matrix | None:
    """Interpret a tuple as a column vector; None if it is not a tuple."""
    if enclosed(body) != ("(", ")"):
        return None
    items = split_list(body[1:-1])
    return Matrix("", [[item] for item in items]) if len(items) > 1 else None
