"""A problem with its gold answer, and parquet files of problems."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("answer", pa.list_(pa.string()), nullable=False),
        pa.field("solution", pa.string()),
    ]
)
"""Columns of train.parquet, validation.parquet and problems.parquet."""

PART_ROWS = 1024


@dataclass(frozen=True)
class Row:
    """One problem."""

    id: str
    """Stable: '<part>/<id in the source>', for instance 'math/00012'."""
    problem: str
    """The problem text, without instruction or chat template."""
    answer: tuple[str, ...]
    """Gold answers. If there are several, a response must give all of them, in any order."""
    solution: str | None = None
    """A worked solution that ends in \\boxed{...}; None if the source has none."""


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to a parquet file atomically, in batches, since unit tests can take gigabytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    left = iter(rows)
    with pq.ParquetWriter(temporary, SCHEMA) as writer:
        while part := list(islice(left, PART_ROWS)):
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in part], schema=SCHEMA))
    temporary.rename(path)


def rows_sha256(rows: Iterable[Row]) -> str:
    """Hex sha256 of the rows' content in order, independent of the file format."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.id, row.problem, row.answer, row.solution]).encode() + b"\n")
    return digest.hexdigest()
