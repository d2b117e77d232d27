"""Whether a result on disk is what the settings ask for.

A result belongs to the identity that it records. It is stale if that is not the identity asked for now, or if an input has
other content than what it was made from; modification times do not matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfpo.manifest import content_sha256
from sfpo.settings import JobSettings, settings_hash

RECORDS = {
    "data": "report.json",
    "models": "checkpoint/manifest.json",
    "runs": "summary.json",
    "evaluations": "results.json",
    "results": "record.json",
}
"""Top folder -> the product of a job that records settings_hash, and the sha256 of its inputs, by path."""


def record_of(folder: str, root: Path = Path(".")) -> dict[str, Any] | None:
    """What the finished product in ``folder`` records; empty if that cannot be read; None: there is no product."""
    path = root / folder / RECORDS[Path(folder).parts[0]]
    return read_record(path) if path.is_file() else None


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is damaged, or is none (a half-merged one, say), so that it belongs to nothing."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def stale_reason(folder: str, settings: JobSettings, root: Path = Path(".")) -> str | None:
    """Why the finished product in ``folder`` is not what ``settings`` asks for; None: it is, or there is none."""
    record = record_of(folder, root)
    if record is None:
        return None
    if "settings_hash" not in record:
        return f"{RECORDS[Path(folder).parts[0]]} cannot be read"
    if record.get("settings_hash") != settings_hash(settings):
        return "settings or inputs changed"
    return changed_input(record, root)


def changed_input(record: Mapping[str, Any], root: Path = Path(".")) -> str | None:
    """An input whose content is not what the product was made from; None: there is none among those that exist."""
    for path, digest in record.get("inputs", {}).items():
        if (root / path).is_file() and content_sha256(root / path) != digest:
            return f"{path} changed"
    return None
