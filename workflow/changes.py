"""How the workflow learns what is stale: by content, not by modification times."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from sfpo.settings import JobSettings, settings_hash
from sfpo.staleness import RECORDS, record_of, stale_reason

MARKERS = Path(".snakemake/changed")
"""Folder of the markers; Snakemake has its own files beside it, also for a dry run."""
LATER_THAN_ANY = 4_102_444_800
"""Modification time of a marker: the year 2100."""
FROZEN = "SFPO_PARAMS"
"""Environment variable: params.yaml as it was when the workflow started, for jobs that read it on other machines."""


def mark_changed(settings: Mapping[str, JobSettings]) -> dict[str, str | None]:
    """Folder of each product that is stale -> its marker; of each that is not there, or whose inputs are not current -> None.
    All others are current.

    Args:
        settings: of every job, inputs before what is made from them.

    A marker is an input that is newer than any product, so that Snakemake makes the product again. Its name says of what, and
    differs for each version of the product and of the settings, since Snakemake passes over an input that the product had
    before, and for each process, so that a dry run changes nothing for a workflow that is running.
    """
    markers: dict[str, str | None] = {}
    for path, one in settings.items():
        folder = str(Path(path).parent)
        if record_of(folder) is None:
            markers[folder] = None
        elif reason := stale_reason(folder, one):
            product = (Path(folder) / RECORDS[Path(folder).parts[0]]).read_bytes()
            version = hashlib.sha256(b"%b %b %b" % (product, settings_hash(one).encode(), reason.encode())).hexdigest()[:12]
            marker = MARKERS / f"{version}-{os.getpid()}" / folder / reason.replace("/", "-").replace(" ", "-")
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
            os.utime(marker, (LATER_THAN_ANY, LATER_THAN_ANY))
            markers[folder] = str(marker)
        elif any(one_input in markers for one_input in one.inputs()):
            markers[folder] = None
    return markers


def stale_results(markers: Mapping[str, str | None]) -> list[str]:
    """Folders of the tables, figures and pages on disk that are not current: Snakemake's report page would show them as they
    are."""
    return [folder for folder in markers if folder.startswith("results/") and record_of(folder) is not None]


def date_back(markers: Iterable[str | None]) -> None:
    """Once Snakemake has planned its jobs: it refuses an output that is older than one of the job's inputs."""
    for marker in markers:
        if marker is not None:
            os.utime(marker, (0, 0))


def freeze(params: str) -> None:
    """Keep a copy of params.yaml for the jobs of this workflow that read it themselves."""
    content = Path(params).read_bytes()
    kept = Path(".snakemake/params", f"{hashlib.sha256(content).hexdigest()[:12]}.yaml").absolute()
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(params, kept)
    os.environ[FROZEN] = str(kept)
