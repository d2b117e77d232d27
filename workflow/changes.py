"""Makes Snakemake rerun stale jobs by content, not by modification time."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from sfpo.settings import JobSettings, settings_hash
from sfpo.staleness import RECORDS, record_of, stale_reason

MARKERS = Path(".snakemake/changed")
"""Folder of the markers, in Snakemake's folder, which also a dry run creates."""
LATER_THAN_ANY = 4_102_444_800
"""Modification time of a marker: the year 2100."""
FROZEN = "SFPO_PARAMS"
"""Environment variable with the path of a copy of params.yaml from the start of the workflow, for jobs on other machines."""


def mark_changed(settings: Mapping[str, JobSettings]) -> dict[str, str | None]:
    """Folder of each stale result -> its marker file; of each result that is missing or has outdated inputs -> None. All other
    results are current.

    Args:
        settings: of every job, in topological order (inputs first).

    A marker is an input that is newer than any output, so that Snakemake reruns the job. Its path contains the reason, a hash
    of the result and its settings (Snakemake ignores an input that it has already seen for this output), and the process id (so
    that a dry run does not affect a running workflow).
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


def date_back(markers: Iterable[str | None]) -> None:
    """Date the markers back after Snakemake has planned its jobs, since it rejects outputs that are older than an input."""
    for marker in markers:
        if marker is not None:
            os.utime(marker, (0, 0))


def freeze(params: str) -> None:
    """Keep a copy of params.yaml for jobs of this workflow that read it again (on a cluster)."""
    content = Path(params).read_bytes()
    kept = Path(".snakemake/params", f"{hashlib.sha256(content).hexdigest()[:12]}.yaml").absolute()
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(params, kept)
    os.environ[FROZEN] = str(kept)
