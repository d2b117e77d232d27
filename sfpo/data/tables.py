"""Strict, streaming readers of JSON lines and parquet files.

These are errors, with their location, where lenient readers ignore them: duplicate keys or columns, lines that are not JSON,
and invalid Unicode (bytes, lone surrogates). Blank lines are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sfpo.schema import ConfigError

Record = dict[str, Any]
Place = tuple[str, Record]
"""The location of a record ('<path>, line 3'), and the record."""

BATCH_ROWS = 256
SUFFIXES = (".jsonl", ".parquet")


def read_table(path: Path, needed: Iterable[str], optional: Iterable[str], remedy: str) -> Iterator[Place]:
    """The records of a file, in order.

    Args:
        needed: required columns.
        optional: other columns to read from parquet files; lines of JSON are read with all keys.
        remedy: end of the error messages.

    Raises:
        ConfigError: the file is corrupt or empty, a required column is missing, or a column occurs twice.
    """
    records = _parquet(path, needed, optional, remedy) if path.suffix == ".parquet" else _json_lines(path, needed, remedy)
    found = False
    for place in records:
        found = True
        yield place
    if not found:
        raise ConfigError(f"{path}: the file {'has no rows' if path.stat().st_size else 'is empty'}; {remedy}")


def check_table(path: Path, needed: Iterable[str], remedy: str) -> None:
    """A quick check: all lines of a JSON lines file, only the columns of a parquet file.

    Raises:
        ConfigError: as ``read_table``.
    """
    if path.suffix == ".parquet":
        if _open_parquet(path, needed, remedy).metadata.num_rows == 0:
            raise ConfigError(f"{path}: the file has no rows; {remedy}")
    else:
        for _ in read_table(path, needed, (), remedy):
            pass


def _json_lines(path: Path, needed: Iterable[str], remedy: str) -> Iterator[Place]:
    """Reads line by line: `answer` may be a string in one line and a list in the next, which typed loaders reject."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line, object_pairs_hook=_without_repeats)
            except _Repeated as error:
                raise ConfigError(f"{where}: duplicate key '{error}'; {remedy}") from None
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{where}: not valid JSON ({error}); {remedy}") from None
            if not isinstance(record, dict):
                raise ConfigError(f"{where}: a {type(record).__name__}, where an object is expected; {remedy}")
            check_columns(where, list(record), needed, remedy)
            yield where, record


class _Repeated(ValueError):
    """A duplicate key."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> Record:
    record: Record = {}
    for key, value in pairs:
        if key in record:
            raise _Repeated(key)
        record[key] = value
    return record


def _parquet(path: Path, needed: Iterable[str], optional: Iterable[str], remedy: str) -> Iterator[Place]:
    file = _open_parquet(path, needed, remedy)
    wanted = {*needed, *optional}
    number = 0
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=[name for name in file.schema_arrow.names if name in wanted]):
            for record in records_of(batch):
                number += 1
                yield f"{path}, row {number}", record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}, after row {number}: not a valid parquet file ({error}); {remedy}") from None


def _open_parquet(path: Path, needed: Iterable[str], remedy: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        empty = "the file is empty" if path.stat().st_size == 0 else f"not a valid parquet file ({error})"
        raise ConfigError(f"{path}: {empty}; {remedy}") from None
    check_columns(str(path), file.schema_arrow.names, needed, remedy)
    return file


def records_of(batch: pa.RecordBatch | pa.Table) -> Iterator[Record]:
    """Rows as Python values. 32-bit floats are converted via their shortest decimal form (0.1, not 0.10000000149011612)."""
    short = [field.name for field in batch.schema if pa.types.is_float32(field.type) or pa.types.is_float16(field.type)]
    for record in batch.to_pylist():
        yield record | {name: _shortest(record[name]) for name in short}


def _shortest(value: float | None) -> float | None:
    return None if value is None else float(str(np.float32(value)))


def check_columns(where: str, present: list[str], needed: Iterable[str], remedy: str) -> None:
    """
    Raises:
        ConfigError: a required column is missing, or a column occurs twice.
    """
    missing = [column for column in needed if column not in present]
    if missing:
        raise ConfigError(f"{where}: no column {' and '.join(missing)} (there are: {', '.join(sorted(present))}); {remedy}")
    repeated = sorted({column for column in present if present.count(column) > 1})
    if repeated:
        raise ConfigError(f"{where}: duplicate column '{repeated[0]}'; {remedy}")


# ---------------------------------------------------------------------------------------------- values


def sound_text(where: str, what: str, text: str) -> str:
    """The text itself.

    Raises:
        ConfigError: it contains a lone surrogate, which cannot be encoded in UTF-8.
    """
    for position, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            raise ConfigError(f"{where}: {what} contains a lone surrogate (U+{ord(character):04X}, character {position})")
    return text


def plain_number(value: float | Decimal) -> str:
    """A number as a string; integers without a decimal point (33.0 is '33', Decimal('0.50') is '0.5'), decimals without
    exponent."""
    if isinstance(value, Decimal) and value.is_finite():
        value = value.normalize()
        return f"{value:f}" if value != value.to_integral_value() else str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
