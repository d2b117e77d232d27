"""No table or figure shows a result that its settings do not say: each is checked before anything is written, and each records
what it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from eval.report.collect import ReportError
from sfpo.manifest import content_sha256, write_json
from sfpo.settings import JobSettings, PageSettings, ReportSettings, settings_hash
from sfpo.staleness import RECORDS, changed_input, record_of

ALL = ("data", "runs", "evaluations")


def require_current(settings: ReportSettings, root: Path = Path("."), tops: tuple[str, ...] = ALL) -> None:
    """Stop a report of results that are not what its settings name.

    Args:
        tops: top folders of the products that are looked at.

    Raises:
        ReportError: a run, evaluation or data set that the item shows is not of the identity that its settings name, or was
        made
            from inputs that have changed since; the message names it.
    """
    shown = {f"{top}/{run.path}" for run in settings.runs for top in ("runs", "evaluations")}
    steps = {settings.trajectory(model, dataset) for model in settings.models for dataset in settings.datasets}
    shown |= {settings.base[model] for model in settings.models if model in settings.base}
    for folder in of(settings, tops):
        # Of runs and models, a report of an unfinished suite leaves some out.
        always = folder.startswith("data/") or folder in steps
        if (always or folder in shown) and (fault := stale(folder, settings, root)):
            raise ReportError(f"{folder}: {fault}; run the workflow again")


def of(settings: ReportSettings, tops: tuple[str, ...] = ALL) -> list[str]:
    """Folders of what an item is made from, below these top folders."""
    return [folder for folder in settings.made_from if folder.split("/")[0] in tops]


def stale(folder: str, settings: ReportSettings, root: Path = Path(".")) -> str | None:
    """What is wrong with the product in ``folder``; None: it is there, and it is what the settings name."""
    record = record_of(folder, root)
    if record is None:
        return f"no {RECORDS[Path(folder).parts[0]]}: the job has not finished"
    if record.get("settings_hash") != settings.made_from[folder]:
        return "made with other settings or inputs than those that stand now"
    return changed_input(record, root)


def write_record(folder: Path, settings: JobSettings, read: Iterable[str] = (), root: Path = Path(".")) -> None:
    """``folder``/record.json: the identity of the settings, and the content of the products in the folders ``read``."""
    inputs = {
        path: content_sha256(root / path) for one in dict.fromkeys(read) if (path := f"{one}/{RECORDS[Path(one).parts[0]]}")
    }
    write_json(folder / "record.json", {"settings_hash": settings_hash(settings), "inputs": inputs})


def page_settings(items: list[ReportSettings], page: str) -> PageSettings:
    """The settings of a page about all these items, as sfpo.jobs resolves them."""
    return PageSettings(suite=items[0].suite, page=page, items={item.item: settings_hash(item) for item in items})


def write_page_record(results: Path, page: str, items: list[ReportSettings], read: Iterable[str]) -> None:
    """The record of a page about all these items."""
    write_record(results / "pages" / page, page_settings(items, page), read)
