"""Rows out of their source: the generator, a table on the Hugging Face hub, or a mirror file of that table.

Nothing is repaired here and nothing dropped: a file or table that cannot be read as promised raises ConfigError, which names
the place and the remedy. Rows that can be read but not used (no gold ...) are the business of ``sfpo.data.cleaning``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sfpo.config import GeneratedRows, TableRows
from sfpo.data import arithmetic, programs
from sfpo.data.arithmetic import Split
from sfpo.data.rows import Row
from sfpo.rewards.boxes import extract_boxed
from sfpo.schema import ConfigError


def read_rows(part: str, rows: GeneratedRows | TableRows, split: Split, data_mirror: str | None) -> list[Row]:
    """All rows of one part, in the source's order; ids are '<part>/<id in the source>', each once.

    Args:
        part: the part of a data set, or the benchmark.
        rows: where the rows come from.
        split: split of generated rows (a table names its own).
        data_mirror: folder that stands in for the hub; None: download.

    Raises:
        ConfigError: the source is missing, empty or broken, lacks a column, or repeats an id.
    """
    if isinstance(rows, GeneratedRows):
        found = [row for task, count in rows.tasks.items() for row in generate(task, split, count)]
    elif data_mirror is None:
        found = _read_hub(rows)
    else:
        found = _read_mirror(rows, data_mirror)
    if not found:
        raise ConfigError(f"part '{part}': its source holds no rows; name another, or take the part out")
    return [replace(row, id=f"{part}/{row.id}") for row in found]


def generate(task: str, split: Split, count: int) -> list[Row]:
    """The first ``count`` problems of a task of either generator.

    Raises:
        ConfigError: there is no such task, or its split holds fewer problems.
    """
    modules = {name: module for module in (arithmetic, programs) for name in module.TASKS}
    if task not in modules:
        raise ConfigError(f"there is no generated task '{task}'; known are: {', '.join(modules)}")
    return modules[task].generate(task, split, count)


def check_mirror(rows: GeneratedRows | TableRows, data_mirror: str | None, split: Split = "train") -> None:
    """What can be checked of a source before any job starts: generated tasks and their size, the mirror file and its content
    (a parquet file's columns only), or that a hub id is given. Reads no network.

    Raises:
        ConfigError: as ``read_rows``.
    """
    if isinstance(rows, GeneratedRows):
        read_rows("generated", rows, split, data_mirror)
    elif data_mirror is None:
        _hub_id(rows)
    elif (path := _mirror_path(rows, data_mirror)).suffix == ".parquet":
        _open_parquet(path, rows)
    else:
        read_rows(str(path), rows, split, data_mirror)


# ---------------------------------------------------------------------------------------------- mirror files


def mirror_file(rows: GeneratedRows | TableRows, data_mirror: str | None) -> Path | None:
    """The file that the rows are read from; None: they are generated, or downloaded.

    Raises:
        ConfigError: as ``read_rows``.
    """
    return None if data_mirror is None or isinstance(rows, GeneratedRows) else _mirror_path(rows, data_mirror)


def _read_mirror(rows: TableRows, data_mirror: str) -> list[Row]:
    path = _mirror_path(rows, data_mirror)
    records = _parquet_records if path.suffix == ".parquet" else _jsonl_records
    found: dict[str, Row] = {}
    for number, (where, record) in enumerate(records(path, rows)):
        row = Row(
            id=_row_id(record.get("id"), number),
            problem=_problem(where, record.get("problem_fixed") or record["problem"]),
            answer=_golds(where, record.get("answer_latex") or record["answer"]),
        )
        if row.id in found:
            raise ConfigError(f"{where}: the id '{row.id}' (what follows the last '/') is there twice; {_mirror_remedy(rows)}")
        found[row.id] = row
    return list(found.values())


def _mirror_path(rows: TableRows, data_mirror: str) -> Path:
    name = rows.id or "a table without a hub id"
    if rows.mirror is None:
        raise ConfigError(
            f"data_mirror is '{data_mirror}', but the rows of {name} have no `mirror` key: "
            "name their file under that folder, or set data_mirror to null to download them"
        )
    path = Path(data_mirror) / rows.mirror
    if path.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"mirror = '{rows.mirror}' ({name}): allowed are files that end in .jsonl or .parquet")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; {_mirror_remedy(rows)}")
    return path


def _mirror_remedy(rows: TableRows) -> str:
    download = "" if rows.id is None else f", or set data_mirror to null to download '{rows.id}'"
    return f"put a sound copy there, correct `mirror` or `data_mirror`{download}"


def _jsonl_records(path: Path, rows: TableRows) -> Iterator[tuple[str, dict[str, Any]]]:
    """Line by line: `answer` may be a string in one line and a list in the next, which typed loaders refuse."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{where}: not valid JSON ({error}); {_mirror_remedy(rows)}") from None
            if not isinstance(record, dict):
                raise ConfigError(f"{where}: a {type(record).__name__} where an object is due; {_mirror_remedy(rows)}")
            _check_columns(where, list(record), ("problem", "answer"), _mirror_remedy(rows))
            yield where, record


def _parquet_records(path: Path, rows: TableRows) -> Iterator[tuple[str, dict[str, Any]]]:
    file = _open_parquet(path, rows)
    wanted = {"id", "problem", "answer", "problem_fixed", "answer_latex"}
    try:
        table = file.read(columns=[name for name in file.schema_arrow.names if name in wanted])
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not a sound parquet file ({error}); {_mirror_remedy(rows)}") from None
    for number, record in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", record


def _open_parquet(path: Path, rows: TableRows) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not a sound parquet file ({error}); {_mirror_remedy(rows)}") from None
    _check_columns(str(path), file.schema_arrow.names, ("problem", "answer"), _mirror_remedy(rows))
    return file


def _row_id(source_id: Any, number: int) -> str:
    """The source's own id without a folder in front; without one, the row's number, counted from 0."""
    return f"{number:05d}" if source_id is None else str(source_id).rsplit("/", 1)[-1]


# ---------------------------------------------------------------------------------------------- the hub


def _read_hub(rows: TableRows) -> list[Row]:
    """Ids are row numbers: published id columns are absent or repeat themselves. `datasets` runs no code of a repository."""
    import datasets  # slow to import, and not needed with a mirror

    hub_id = _hub_id(rows)
    try:
        table = datasets.load_dataset(hub_id, rows.subset, split=rows.split, revision=rows.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"hub data set '{hub_id}', split '{rows.split}' cannot be loaded ({error}); check the id, the split and "
            "the connection, or set data_mirror to a folder that holds the rows"
        ) from error
    columns = tuple(path.split("/")[0] for path in (rows.problem, rows.answer, *([rows.keep.column] if rows.keep else [])))
    _check_columns(f"hub data set '{hub_id}'", table.column_names, columns, "correct `problem`, `answer` or `keep`")
    found: list[Row] = []
    for number, record in enumerate(table):
        if len(found) == rows.first_rows:
            break
        where = f"hub data set '{hub_id}', row {number}"
        if rows.keep is None or _is_between(where, _field(where, record, rows.keep.column), rows.keep.between):
            answer = ANSWER_FORMATS[rows.answer_format](where, _field(where, record, rows.answer))
            found.append(Row(f"{number:05d}", _problem(where, _last_turn(record[rows.problem])), _golds(where, answer)))
    return found


def _field(where: str, record: dict[str, Any], path: str) -> Any:
    """What stands at 'column/field/...'."""
    value: Any = record
    for key in path.split("/"):
        if not isinstance(value, dict) or key not in value:
            raise ConfigError(f"{where}: there is no '{path}'; correct `answer` or `keep`")
        value = value[key]
    return value


def _is_between(where: str, value: Any, bounds: tuple[float, float]) -> bool:
    if not isinstance(value, int | float):
        raise ConfigError(f"{where}: `keep` compares numbers; the value is of type {type(value).__name__}")
    return bounds[0] <= value <= bounds[1]


def _last_turn(problem: Any) -> Any:
    """The content of a chat's last user turn; anything else as it is."""
    turns = [turn["content"] for turn in problem if turn["role"] == "user"] if isinstance(problem, list) else [problem]
    return turns[-1] if turns else None


def _hub_id(rows: TableRows) -> str:
    if rows.id is None:
        raise ConfigError(
            f"the rows of mirror = '{rows.mirror}' have no hub id and can come from a mirror alone: "
            "set data_mirror to the folder that holds this file"
        )
    return rows.id


def _last_boxed(where: str, solution: Any) -> str:
    """What the grader would find in this solution; empty where there is no box."""
    return extract_boxed(_text(where, solution)) or ""


def _first_of_list(where: str, answers: Any) -> str:
    if not isinstance(answers, list):
        raise ConfigError(f"{where}: answer_format is first_of_list, but the answer is of type {type(answers).__name__}")
    return _text(where, answers[0]).replace("$", "") if answers else ""


def _first_of_json_list(where: str, text: Any) -> str:
    try:
        return _first_of_list(where, json.loads(_text(where, text)))
    except ValueError as error:
        raise ConfigError(f"{where}: answer_format is first_of_json_list, but the answer is not JSON ({error})") from None


def _after_hashes(where: str, solution: Any) -> str:
    """Without thousands commas; empty where there is no '####'."""
    _, mark, answer = _text(where, solution).rpartition("####")
    return answer.replace(",", "").strip() if mark else ""


ANSWER_FORMATS: dict[str, Callable[[str, Any], Any]] = {
    "plain": lambda where, answer: answer,
    "last_boxed": _last_boxed,
    "first_of_list": _first_of_list,
    "first_of_json_list": _first_of_json_list,
    "after_hashes": _after_hashes,
}


# ---------------------------------------------------------------------------------------------- values


def _check_columns(where: str, present: list[str], needed: tuple[str, ...], remedy: str) -> None:
    missing = [column for column in needed if column not in present]
    if missing:
        raise ConfigError(f"{where}: no column {' and '.join(missing)} (there are: {', '.join(sorted(present))}); {remedy}")


def _problem(where: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: the problem is of type {type(value).__name__}, not a text")
    return (value or "").strip()


def _golds(where: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(where, one) for one in (value if isinstance(value, list) else [value]))


def _text(where: str, value: Any) -> str:
    """A gold as text; whole numbers in one way ('033' and 33.0 are '33' and so on), None as ''."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(
            f"{where}: the answer is of type {type(value).__name__}; allowed are a text, a number, or a list of them"
        )
    text = str(value).strip()
    return re.sub(r"^(-?)0+(?=\d+$)", r"\1", text)
