"""Prepare one training set or benchmark: ``python -m sfpo.data.prepare SETTINGS.json --kind {dataset,benchmark}``.

Written to the folder of the settings file, each atomically and the report last:
    dataset    train.parquet, validation.parquet, report.json
    benchmark  problems.parquet, report.json
Columns are those of ``sfpo.data.rows.SCHEMA``. report.json counts the excluded rows and lists their ids.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sfpo.config import Dataset, GeneratedRows, GraderName
from sfpo.data.cleaning import duplicate_groups, duplicates_to_drop, in_a_sentence, invalid_reason, read_as_text
from sfpo.data.rows import Row, rows_sha256, write_rows
from sfpo.data.sources import read_rows
from sfpo.manifest import write_json
from sfpo.schema import ConfigError
from sfpo.seeding import seed_of
from sfpo.settings import BenchmarkSettings, DatasetSettings, load_settings, settings_hash


def prepare_dataset(settings: DatasetSettings, folder: Path) -> dict[str, Any]:
    """Write the training and validation rows of a data set, and return the report.

    Report: settings_hash; kept and validation (numbers of rows in train.parquet and validation.parquet); parts (the same
    numbers for each part, and the number of rows read); read_sha256 (of each part's rows as read, since a hub branch or a
    mirror file can change); excluded (reason -> count and ids); golds_read_as_text (kept rows whose gold Math-Verify parses as
    plain text); golds_in_a_sentence (kept rows whose gold is a sentence, such as 'The answer is 5.', which no plain answer
    matches).

    Raises:
        ConfigError: a source cannot be read, or too few rows are left to hold out ``validation_rows``.
    """
    dataset = settings.dataset
    parts = {name: read_rows(name, rows, "train", settings.data_mirror) for name, rows in dataset.parts.items()}
    shares = proportional(dataset.validation_rows, {name: len(rows) for name, rows in parts.items()})
    held_out = _generated_validation(dataset, shares)
    # Held-out rows come first: of duplicates the first is kept, so the problem is dropped from training, not from validation.
    candidates = held_out + [row for rows in parts.values() for row in rows]
    reasons = exclusions(candidates, dataset.grader, dataset.max_problem_characters)
    usable = [row for row in candidates if row.id not in reasons]
    validation_ids = {row.id for row in held_out}
    for name, rows in dataset.parts.items():
        if not isinstance(rows, GeneratedRows):
            validation_ids |= _drawn_by_hash(name, [row for row in parts[name] if row.id not in reasons], shares[name])
    train = [row for row in usable if row.id not in validation_ids]
    # Ordered by hash, so that the first rows are a sample of all parts and tasks.
    validation = sorted((row for row in usable if row.id in validation_ids), key=_hash_order)
    write_rows(folder / "train.parquet", train)
    write_rows(folder / "validation.parquet", validation)
    report = {
        "settings_hash": settings_hash(settings),
        "kept": len(train),
        "validation": len(validation),
        "parts": _parts(read=candidates, kept=train, validation=validation),
        "read_sha256": {name: rows_sha256(rows) for name, rows in parts.items()},
        "excluded": _by_reason(reasons),
        "golds_read_as_text": _golds(read_as_text, usable, dataset.grader),
        "golds_in_a_sentence": _golds(in_a_sentence, usable, dataset.grader),
    }
    write_json(folder / "report.json", report)
    return report


def prepare_benchmark(settings: BenchmarkSettings, folder: Path) -> dict[str, Any]:
    """Write the rows of a benchmark, and return the report. Published rows are kept: duplicates are reported (as groups of
    ids), not dropped, and only rows that cannot be scored are excluded.

    Raises:
        ConfigError: the source cannot be read, or no row is left.
    """
    rows = read_rows(settings.name, settings.benchmark.rows, "test", settings.data_mirror)
    reasons = unusable(rows, settings.benchmark.grader)
    problems = [row for row in rows if row.id not in reasons]
    if not problems:
        raise ConfigError(
            f"benchmark '{settings.name}': none of its {len(rows)} rows is valid: {dict(Counter(reasons.values()))}"
        )
    write_rows(folder / "problems.parquet", problems)
    report = {
        "settings_hash": settings_hash(settings),
        "kept": len(problems),
        "parts": _parts(read=rows, kept=problems),
        "read_sha256": {settings.name: rows_sha256(rows)},
        "excluded": _by_reason(reasons),
        "golds_read_as_text": _golds(read_as_text, problems, settings.benchmark.grader),
        "golds_in_a_sentence": _golds(in_a_sentence, problems, settings.benchmark.grader),
        "duplicate_groups": [[row.id for row in group] for group in duplicate_groups(problems)],
    }
    write_json(folder / "report.json", report)
    return report


def exclusions(rows: list[Row], grader: GraderName, max_problem_characters: int) -> dict[str, str]:
    """Id -> reason of every training row to exclude: invalid rows, then duplicates among the valid ones."""
    reasons = unusable(rows, grader, max_problem_characters)
    return reasons | duplicates_to_drop((row for row in rows if row.id not in reasons), grader)


def unusable(rows: list[Row], grader: GraderName, max_problem_characters: int | None = None) -> dict[str, str]:
    """Id -> reason of every invalid row."""
    progress = tqdm(rows, desc="checking rows", unit="row", mininterval=1.0)
    return {row.id: reason for row in progress if (reason := invalid_reason(row, max_problem_characters, grader))}


def proportional(total: int, weights: dict[str, int]) -> dict[str, int]:
    """``total`` divided in proportion to the weights, in whole numbers (largest remainder method; ties in the order given)."""
    whole = sum(weights.values())
    shares = {name: total * weight // whole for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: -(total * weights[name] % whole))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def _generated_validation(dataset: Dataset, shares: dict[str, int]) -> list[Row]:
    """Validation rows of the generated parts, from the generator's validation split."""
    found: list[Row] = []
    for name, rows in dataset.parts.items():
        if isinstance(rows, GeneratedRows):
            counts = {task: count for task, count in proportional(shares[name], rows.tasks).items() if count}
            if counts:
                found += read_rows(name, rows.model_copy(update={"tasks": counts}), "validation", None)
    return found


def _drawn_by_hash(part: str, rows: list[Row], count: int) -> set[str]:
    """Ids of the table rows that are held out for validation."""
    if len(rows) <= count:
        raise ConfigError(
            f"part '{part}': {count} of its {len(rows)} valid rows would be held out for validation; lower validation_rows"
        )
    return {row.id for row in sorted(rows, key=_hash_order)[:count]}


def _hash_order(row: Row) -> int:
    return seed_of("validation order", row.id)


def _parts(**rows: list[Row]) -> dict[str, dict[str, int]]:
    """Part -> number of its rows in each list."""
    counts = {key: Counter(row.id.split("/")[0] for row in listed) for key, listed in rows.items()}
    return {part: {key: counter[part] for key, counter in counts.items()} for part in counts["read"]}


def _by_reason(reasons: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        reason: _listed(row_id for row_id, why in reasons.items() if why == reason) for reason in sorted(set(reasons.values()))
    }


def _golds(odd: Callable[[Row], bool], rows: list[Row], grader: GraderName) -> dict[str, Any]:
    return _listed(row.id for row in rows if grader == "math" and odd(row))


def _listed(ids: Any) -> dict[str, Any]:
    listed = list(ids)
    return {"count": len(listed), "ids": listed}


def _print_summary(name: str, report: dict[str, Any]) -> None:
    for part, counts in report["parts"].items():
        shown = ", ".join(f"{count} {key}" for key, count in counts.items())
        print(f"{name}, {part}: {shown}", file=sys.stderr)
    for reason, listed in report["excluded"].items():
        print(f"{name}: excluded {listed['count']}, {reason}", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sfpo.data.prepare", description="Prepare one training set or benchmark.")
    parser.add_argument("settings", type=Path, help="settings.json of the data set or benchmark; output goes to its folder")
    parser.add_argument("--kind", choices=("dataset", "benchmark"), required=True)
    parser.add_argument("--identity", help="fail unless the settings have this hash (the workflow passes it)")
    arguments = parser.parse_args(argv)
    file, folder, identity = arguments.settings, arguments.settings.parent, arguments.identity
    if arguments.kind == "dataset":
        dataset = load_settings(DatasetSettings, file, identity)
        _print_summary(dataset.name, prepare_dataset(dataset, folder))
    else:
        benchmark = load_settings(BenchmarkSettings, file, identity)
        _print_summary(benchmark.name, prepare_benchmark(benchmark, folder))


if __name__ == "__main__":
    main()
