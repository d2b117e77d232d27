"""Data sets and benchmarks: where their rows are from and which are taken."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfpo.config.names import Count, GraderName, Instruction, Name, Number
from sfpo.schema import Schema


class GeneratedRows(Schema):
    """Problems out of the generators: ``sfpo.data.arithmetic`` (grader math), ``sfpo.data.programs`` (grader code)."""

    source: Literal["generated"]
    """Made by a generator of this project."""
    tasks: dict[Name, Count]
    """Task -> number of problems."""


class KeptRows(Schema):
    """Which rows of a hub table are taken."""

    column: str
    """As ``answer`` of TableRows."""
    between: tuple[Number, Number] | tuple[str, str]
    """Smallest and largest value, both included; texts (dates) compare as texts."""


Layout = Literal["columns", "livecodebench", "deepcoder", "apps", "human_eval", "mbpp"]


class TableRows(Schema):
    """Problems out of one published table: on the hub, or a file of the same rows under ``data_mirror``."""

    source: Literal["hub"]
    """A table on the hub, or its file in the mirror folder."""
    layout: Layout = "columns"
    """columns: ``problem`` and ``answer`` name the columns of problem and gold. The others: the columns of that set of
    programming problems, as published (sfpo.data.code_sets); grader code."""
    files: Annotated[list[str], Field(min_length=1)] | None = None
    """Files of the hub repository that hold the rows (.jsonl or .parquet), in this order, in place of ``subset`` and ``split``:
    for a repository whose loader is a script, which is not run. None: the hub's own loader."""
    id: str | None = None
    """Hub id. None: the rows exist in the mirror folder alone."""
    subset: str | None = None
    """Hub configuration name, where the data set has several."""
    revision: str = "main"
    """Hub branch, tag or commit."""
    split: str = "train"
    """Hub split."""
    problem: str = "problem"
    """Hub column that holds the problem: a text, or a chat whose last user turn is it."""
    answer: str = "answer"
    """Hub column that holds the gold answer, in the form that ``answer_format`` says; 'a/b' is the field b of column a."""
    answer_format: Literal["plain", "last_boxed", "first_of_list", "first_of_json_list", "after_hashes"] = "plain"
    """plain: the answer itself. last_boxed: a solution, the answer is in its last \\boxed. first_of_list: a list whose first
    entry is the answer; first_of_json_list: the same as JSON in a text. after_hashes: a solution, the answer follows '####'."""
    keep: KeptRows | None = None
    """Hub rows that are taken, before ``first_rows``. None: all."""
    first_rows: Count | None = None
    """Only the first so many rows of the hub table."""
    mirror: str | None = None
    """File under ``data_mirror`` (.jsonl or .parquet; columns problem, answer, optionally id, problem_fixed, answer_latex; with
    another ``layout`` those of the published set). With ``files``: the folder that holds them."""

    @model_validator(mode="after")
    def _a_layout_has_its_own_columns(self) -> TableRows:
        named = sorted({"problem", "answer", "answer_format"} & self.model_fields_set)
        changed = [key for key in named if getattr(self, key) != type(self).model_fields[key].default]
        if self.layout != "columns" and changed:
            raise ValueError(f"{' and '.join(changed)}: layout '{self.layout}' has columns of its own; leave them out")
        return self


Rows = Annotated[GeneratedRows | TableRows, Field(discriminator="source")]


class Dataset(Schema):
    """A training set: one or several sources, cleaned, with a part held out for validation."""

    parts: Annotated[dict[Name, Rows], Field(min_length=1)]
    """Sources whose rows are put together, by name."""
    grader: GraderName = "math"
    """math compares boxed answers; code runs unit tests."""
    validation_rows: Count
    """Held out from training; accuracy on them picks the best checkpoint."""
    max_problem_characters: Count = 8000
    """Longer problems are excluded and counted. (Prompts over a model's token limit are excluded by the training job.)"""


class Benchmark(Schema):
    """A test set. Scored by the lm-eval task of the same name (eval/tasks)."""

    title: str
    """Column head in tables."""
    rows: Rows
    """Where the problems come from."""
    grader: GraderName = "math"
    """math compares boxed answers; code runs unit tests."""
    out_of_distribution: bool = False
    """True where the training set holds no problem of this kind (a mark in tables)."""
    instruction: Instruction | None = None
    """The user turn of this benchmark; None: the suite's."""
