"""One problem with its gold, and the parquet files that hold many."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Row:
    """One problem."""

    id: str
    """Stable: '<part>/<id in the source>', for instance 'math/00012'."""
    problem: str
    """Without any instruction or template."""
    answer: tuple[str, ...]
    """Gold answers. Several: all must be given, in any order."""
    solution: str | None = None
    """A worked answer that ends in \\boxed{...}; None where the source has none."""


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to a parquet file, atomically."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, temporary)
    temporary.rename(path)
