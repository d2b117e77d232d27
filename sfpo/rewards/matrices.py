r"""Matrices and columns as they are written: behind a factor, transposed, or as a tuple."""

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
    """A matrix that stands alone, or behind a number: the text of the factor ('' or '1/3') and of every cell."""

    factor: str
    rows: list[list[str]]

    def cell(self, row: int, column: int) -> str:
        text = self.rows[row][column]
        return rf"({self.factor})\cdot({text})" if self.factor else text


def read_matrix(body: str) -> Matrix | None:
    r"""A body that is one matrix, with a factor before it or transposed; a tuple is none."""
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
    """A tuple as a column."""
    if enclosed(body) != ("(", ")"):
        return None
    items = split_list(body[1:-1])
    return Matrix("", [[item] for item in items]) if len(items) > 1 else None
