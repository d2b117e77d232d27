"""Rejects stale results before anything is reported from them, and records from which results a table, figure or page was
made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from eval.report.collect import ReportError
from sfpo.manifest import content_sha256, write_json
from sfpo.settings import JobSettings, PageSettings, ReportSettings, settings_hash
from sfpo.staleness import RECORDS, changed_input, record_of

ALL = ("data", "runs", "evaluations")


def require_current(settings: ReportSettings, root: Path = Path("."), tops: tuple[str, ...] = ALL) -> None:
    """Check that the results that an item shows are up to date.

    Args:
        tops: only check results below these top-level folders.

    Raises:
        ReportError: a run, evaluation or data set is missing, was made with other settings, or its inputs have changed since;
            the message names it.
    """
    shown = {f"{top}/{run.path}" for run in settings.runs for top in ("runs", "evaluations")}
    steps = {settings.trajectory(model, dataset) for model in settings.models for dataset in settings.datasets}
    shown |= {settings.base[model] for model in settings.models if model in settings.base}
    for folder in of(settings, tops):
        # made_from lists all runs and models of the item, but a partial report shows only some of them.
        always = folder.startswith("data/") or folder in steps
        if (always or folder in shown) and (fault := stale(folder, settings, root)):
            raise ReportError(f"{folder}: {fault}; run the workflow again")


def of(settings: ReportSettings, tops: tuple[str, ...] = ALL) -> list[str]:
    """Folders of the results that an item is made from, below these top-level folders."""
    return [folder for folder in settings.made_from if folder.split("/")[0] in tops]


def stale(folder: str, settings: ReportSettings, root: Path = Path(".")) -> str | None:
    """Why the result in ``folder`` is missing or stale; None if it is up to date."""
    record = record_of(folder, root)
    if record is None:
        return f"no {RECORDS[Path(folder).parts[0]]}: the job has not finished"
    if record.get("settings_hash") != settings.made_from[folder]:
        return "stale: made with other settings or inputs than the current ones"
    return changed_input(record, root)


def write_record(folder: Path, settings: JobSettings, read: Iterable[str] = (), root: Path = Path(".")) -> None:
    """Write ``folder``/record.json: the hash of the settings, and the sha256 of the results in the folders ``read``."""
    inputs = {
        path: content_sha256(root / path) for one in dict.fromkeys(read) if (path := f"{one}/{RECORDS[Path(one).parts[0]]}")
    }
    write_json(folder / "record.json", {"settings_hash": settings_hash(settings), "inputs": inputs})


def page_settings(items: list[ReportSettings], page: str) -> PageSettings:
    """The settings of a page about all these items, equal to those that sfpo.jobs resolves."""
    return PageSettings(suite=items[0].suite, page=page, items={item.item: settings_hash(item) for item in items})


def write_page_record(results: Path, page: str, items: list[ReportSettings], read: Iterable[str]) -> None:
    """Write the record.json of a page about all these items, made from the results in the folders ``read``."""
    write_record(results / "pages" / page, page_settings(items, page), read)
