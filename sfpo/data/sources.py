"""Reads rows from their source: a generator, a table on the Hugging Face hub, or a local mirror of it.

Nothing is repaired: a file or table that does not have the expected format raises ConfigError, with the location and the
remedy. Invalid rows (without a gold answer ...) are excluded later, by ``sfpo.data.cleaning``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfpo.config import GeneratedRows, TableRows
from sfpo.data import arithmetic, programs
from sfpo.data.arithmetic import Split
from sfpo.data.code_sets import LAYOUTS, read_problem
from sfpo.data.golds import golds
from sfpo.data.rows import Row
from sfpo.data.tables import SUFFIXES, Place, Record, check_columns, check_table, read_table, records_of, sound_text
from sfpo.rewards.code_gold import compressed
from sfpo.schema import ConfigError

logger = logging.getLogger(__name__)


def read_rows(part: str, rows: GeneratedRows | TableRows, split: Split, data_mirror: str | None) -> list[Row]:
    """All rows of one part, in the order of the source; ids are '<part>/<id in the source>' and unique.

    Args:
        part: name of the part of a data set, or of the benchmark.
        rows: the source.
        split: split of generated rows (the split of a table is in ``rows``).
        data_mirror: folder used instead of the hub; None: download.

    Raises:
        ConfigError: the source is missing, empty or corrupt, lacks a column, or has a duplicate id.
    """
    if isinstance(rows, GeneratedRows):
        found = [row for task, count in rows.tasks.items() for row in generate(task, split, count)]
    else:
        found = list(_table_rows(rows, data_mirror))
    if not found:
        raise ConfigError(f"part '{part}': no row is kept; correct `keep`, use another source, or remove the part")
    return [replace(row, id=f"{part}/{row.id}") for row in found]


def generate(task: str, split: Split, count: int) -> list[Row]:
    """The first ``count`` problems of a task of either generator.

    Raises:
        ConfigError: there is no such task, or its split has fewer problems.
    """
    modules = {name: module for module in (arithmetic, programs) for name in module.TASKS}
    if task not in modules:
        raise ConfigError(f"there is no generated task '{task}'; available: {', '.join(modules)}")
    return modules[task].generate(task, split, count)


def check_mirror(rows: GeneratedRows | TableRows, data_mirror: str | None, split: Split = "train") -> None:
    """Check a source before any job starts: generated tasks and their size; the files of a mirror and their content (of parquet
    files and programming problems only the columns); whether a hub id is given. Uses no network.

    Raises:
        ConfigError: as ``read_rows``.
    """
    if isinstance(rows, GeneratedRows):
        read_rows("generated", rows, split, data_mirror)
    elif data_mirror is None:
        _hub_id(rows)
    else:
        for path in _mirror_paths(rows, data_mirror):
            check_table(path, _columns(rows, in_mirror=True)[0], _mirror_remedy(rows))
            if path.suffix == ".jsonl" and rows.layout == "columns":
                read_rows(str(path), rows, split, data_mirror)


def _table_rows(rows: TableRows, data_mirror: str | None) -> Iterator[Row]:
    """The rows of a table, with unique ids."""
    if rows.layout != "columns":
        places = _hub_places(rows) if data_mirror is None else _mirror_places(rows, data_mirror)
        yield from _code_rows(rows, _taken(rows, places))
    elif data_mirror is None:
        for number, (where, record) in _taken(rows, _hub_places(rows)):
            answer = golds(where, _field(where, record, rows.answer), rows.answer_format)
            yield Row(f"{number:05d}", _problem(where, _last_turn(record[rows.problem])), answer)
    else:
        yield from _mirror_rows(rows, data_mirror)


def _code_rows(rows: TableRows, places: Iterable[tuple[int, Place]]) -> Iterator[Row]:
    """Programming problems. If the tests of one cannot be read, its gold is empty, so that it is excluded and counted."""
    for number, (where, record) in places:
        try:
            found = read_problem(rows.layout, record)
        except ValueError as error:
            logger.warning("%s: its tests cannot be read (%s)", where, str(error)[:200])
            yield Row(f"{number:05d}", where, ("",))
            continue
        solution = None if found.solution is None else f"```python\n{found.solution.strip()}\n```"
        gold = compressed(json.dumps(found.tests))
        yield Row(f"{number:05d}", sound_text(where, "the problem", found.problem), (gold,), solution)


def _columns(rows: TableRows, in_mirror: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Required columns, and optional ones."""
    kept = (rows.keep.column.split("/")[0],) if rows.keep else ()
    if rows.layout != "columns":
        layout = LAYOUTS[rows.layout]
        return (*layout.needed, *kept), layout.optional
    if in_mirror:
        return ("problem", "answer"), ("id", "problem_fixed", "answer_latex")
    return (rows.problem.split("/")[0], rows.answer.split("/")[0], *kept), ()


def _taken(rows: TableRows, places: Iterable[Place]) -> Iterator[tuple[int, Place]]:
    """The rows selected by `keep` and `first_rows`, with their row numbers in the table."""
    count = 0
    for number, (where, record) in enumerate(places):
        if count == rows.first_rows:
            return
        if rows.keep is None or _is_between(where, _field(where, record, rows.keep.column), rows.keep.between):
            count += 1
            yield number, (where, record)


# ---------------------------------------------------------------------------------------------- mirror files


def mirror_files(rows: GeneratedRows | TableRows, data_mirror: str | None) -> list[Path]:
    """The files that the rows are read from; none if they are generated or downloaded.

    Raises:
        ConfigError: as ``read_rows``.
    """
    return [] if data_mirror is None or isinstance(rows, GeneratedRows) else _mirror_paths(rows, data_mirror)


def _mirror_rows(rows: TableRows, data_mirror: str) -> Iterator[Row]:
    """Rows in the mirror's format: problem and answer, or their corrected versions (problem_fixed, answer_latex) if there are
    any."""
    seen: set[str] = set()
    for number, (where, record) in enumerate(_mirror_places(rows, data_mirror)):
        row_id = sound_text(where, "the id", _row_id(where, record.get("id"), number))
        if row_id in seen:
            raise ConfigError(f"{where}: the id '{row_id}' (the part after the last '/') occurs twice; {_mirror_remedy(rows)}")
        seen.add(row_id)
        problem = _problem(where, record.get("problem_fixed") or record["problem"])
        yield Row(row_id, problem, golds(where, _first_given(record.get("answer_latex"), record["answer"])))


def _first_given(better: Any, other: Any) -> Any:
    return other if better in (None, "", []) else better


def _mirror_places(rows: TableRows, data_mirror: str) -> Iterator[Place]:
    for path in _mirror_paths(rows, data_mirror):
        yield from read_table(path, *_columns(rows, in_mirror=True), _mirror_remedy(rows))


def _mirror_paths(rows: TableRows, data_mirror: str) -> list[Path]:
    """The mirror's file, or the files of a table that is in several."""
    name = rows.id or "a table without a hub id"
    if rows.mirror is None:
        raise ConfigError(
            f"data_mirror is '{data_mirror}', but the rows of {name} have no `mirror` key: "
            "give their file under that folder, or set data_mirror to null to download them"
        )
    path = Path(data_mirror) / rows.mirror
    paths = [path] if rows.files is None else [path / file for file in rows.files]
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"mirror = '{rows.mirror}' ({name}): allowed are files that end in .jsonl or .parquet")
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; {_mirror_remedy(rows)}")
    return paths


def _mirror_remedy(rows: TableRows) -> str:
    download = "" if rows.id is None else f", or set data_mirror to null to download '{rows.id}'"
    return f"replace the file, correct `mirror` or `data_mirror`{download}"


def _row_id(where: str, source_id: Any, number: int) -> str:
    """The id in the source without a leading folder, or else the row number, counted from 0."""
    if source_id is None:
        return f"{number:05d}"
    name = str(source_id).rsplit("/", 1)[-1].strip()
    if isinstance(source_id, bool) or not isinstance(source_id, str | int | float) or not name:
        raise ConfigError(f"{where}: the id is {source_id!r}; allowed are a number, or a string that does not end in '/'")
    return name


# ---------------------------------------------------------------------------------------------- the hub


def _hub_places(rows: TableRows) -> Iterator[Place]:
    """Records of a hub table. Ids are row numbers, since id columns are missing or not unique. No code of a repository is
    run."""
    hub_id = _hub_id(rows)
    if rows.files is not None:
        for file in rows.files:
            yield from read_table(_download(rows, file), *_columns(rows, in_mirror=False), f"check '{hub_id}' on the hub")
        return
    import datasets  # slow to import, and not needed with a mirror

    try:
        table = datasets.load_dataset(hub_id, rows.subset, split=rows.split, revision=rows.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(_cannot_load(rows, f"split '{rows.split}'", error)) from error
    needed, optional = _columns(rows, in_mirror=False)
    remedy = "correct `problem`, `answer` or `keep`" if rows.layout == "columns" else f"is it of layout '{rows.layout}'?"
    check_columns(f"hub data set '{hub_id}'", table.column_names, needed, remedy)
    if len(table) == 0:
        raise ConfigError(f"hub data set '{hub_id}', split '{rows.split}': it has no rows")
    table = table.select_columns([name for name in table.column_names if name in {*needed, *optional}])
    number = 0
    for batch in table.with_format("arrow").iter(batch_size=256):
        for record in records_of(batch):
            yield f"hub data set '{hub_id}', row {number}", record
            number += 1


def _download(rows: TableRows, file: str) -> Path:
    """One file of a hub repository, from the cache if possible."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(_hub_id(rows), file, repo_type="dataset", revision=rows.revision))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ConfigError(_cannot_load(rows, f"file '{file}'", error)) from error


def _cannot_load(rows: TableRows, what: str, error: Exception) -> str:
    return (
        f"hub data set '{rows.id}', {what} cannot be loaded ({error}); check the id, the split and "
        "the connection, or set data_mirror to a folder with the rows"
    )


def _field(where: str, record: Record, path: str) -> Any:
    """The value at 'column/field/...'."""
    value: Any = record
    for key in path.split("/"):
        if not isinstance(value, dict) or key not in value:
            raise ConfigError(f"{where}: there is no '{path}'; correct `answer` or `keep`")
        value = value[key]
    return value


def _is_between(where: str, value: Any, bounds: tuple[Any, Any]) -> bool:
    """``bounds``: two numbers or two strings."""
    kind, named = (str, "strings") if isinstance(bounds[0], str) else (int | float, "numbers")
    if not isinstance(value, kind):
        raise ConfigError(f"{where}: `keep` compares {named}; the value is of type {type(value).__name__}")
    return bool(bounds[0] <= value <= bounds[1])


def _last_turn(problem: Any) -> Any:
    """The content of a chat's last user turn; any other value unchanged."""
    turns = [turn["content"] for turn in problem if turn["role"] == "user"] if isinstance(problem, list) else [problem]
    return turns[-1] if turns else None


def _hub_id(rows: TableRows) -> str:
    if rows.id is None:
        raise ConfigError(
            f"the rows of mirror = '{rows.mirror}' have no hub id and can only be read from a mirror: "
            "set data_mirror to the folder with this file"
        )
    return rows.id


def _problem(where: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: the problem is of type {type(value).__name__}, not a string")
    return sound_text(where, "the problem", value or "").strip()
