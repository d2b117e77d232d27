"""Whether a result on disk matches the current settings.

A result records the identity of its settings. It is stale if that differs from the current identity, or if the content of an
input has changed since; modification times do not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
"""Top folder -> the file in which a job records its settings_hash, and the sha256 of its inputs by path."""


def record_of(folder: str, root: Path = Path(".")) -> dict[str, Any] | None:
    """The record of the finished result in ``folder``; empty if it cannot be read; None: there is no result."""
    path = root / folder / RECORDS[Path(folder).parts[0]]
    return read_record(path) if path.is_file() else None


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is not valid JSON or not an object (a merge conflict, say), so that it counts as
    stale."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def stale_reason(folder: str, settings: JobSettings, root: Path = Path(".")) -> str | None:
    """Why the finished result in ``folder`` is stale under ``settings``; None: it is current, or there is none."""
    record = record_of(folder, root)
    if record is None:
        return None
    if "settings_hash" not in record:
        return f"{RECORDS[Path(folder).parts[0]]} cannot be read"
    if record.get("settings_hash") != settings_hash(settings):
        return "settings or inputs changed"
    return changed_input(record, root)


def changed_input(record: Mapping[str, Any], root: Path = Path(".")) -> str | None:
    """The first existing input whose content has changed since the result was computed; None: none has."""
    for path, digest in record.get("inputs", {}).items():
        if (root / path).is_file() and content_sha256(root / path) != digest:
            return f"{path} changed"
    return None


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """``key: old -> new`` for every value that differs between two identities."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
