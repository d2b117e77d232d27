"""Settings of every job from params.yaml, and the status of their results on disk: ``python -m sfpo.jobs``."""

from pathlib import Path

from sfpo.jobs.check import check
from sfpo.jobs.items import recorded, reports, runs, union
from sfpo.jobs.resolve import datasets, resolve
from sfpo.jobs.status import describe
from sfpo.manifest import write_text
from sfpo.settings import JobSettings, to_json

__all__ = ["check", "datasets", "describe", "recorded", "reports", "resolve", "runs", "union", "write_settings"]


def write_settings(settings: dict[str, JobSettings], root: Path = Path(".")) -> list[str]:
    """Write each settings file whose content has changed; returns the paths written."""
    written = []
    for path, content in settings.items():
        text = to_json(content)
        if not (root / path).is_file() or (root / path).read_text() != text:
            write_text(root / path, text)
            written.append(path)
    return written
