"""Types of values that several modules of the schema share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
"""A name, also used for a folder: lower case letters, digits, '.', '_' and '-'."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1, strict=True)]
"""A positive integer; booleans ("yes") and strings that look like a number are errors."""
Whole = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True)]
"""A number; strings that look like one are errors."""
GraderName = Literal["math", "code"]
"""math: is the last \\boxed{...} the gold answer (sfpo.rewards.math_answer)? code: does the program in the fenced blocks pass
the gold's tests (sfpo.rewards.code_tests)?"""
Names = Annotated[list[Name], Field(min_length=1)]


def _holds_the_problem(text: str) -> str:
    if "{problem}" not in text:
        raise ValueError("the instruction must contain {problem}")
    return text


Instruction = Annotated[str, AfterValidator(_holds_the_problem)]
"""The user turn of a prompt; {problem} is replaced by the problem."""
