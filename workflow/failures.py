"""Report of a failed workflow: the unfinished jobs, and the last lines of their logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

LAST_LINES = 3
FINAL_FILE = {"runs": ("summary.json", "train"), "evaluations": ("results.json", "evaluate")}
"""Top folder -> the file that a job writes last, and the name of its log."""


def unfinished(settings_paths: Iterable[str], root: Path = Path(".")) -> dict[str, Path]:
    """Folder of each unfinished training or evaluation job -> its log (which may not exist)."""
    jobs = {}
    for path in settings_paths:
        top, *inner, _ = Path(path).parts
        if top in FINAL_FILE:
            final, log = FINAL_FILE[top]
            if not (root / path).with_name(final).is_file():
                jobs["/".join([top, *inner])] = root / "logs" / Path(*inner) / f"{log}.log"
    return jobs


def failure_report(settings_paths: Iterable[str], root: Path = Path(".")) -> str:
    """A paragraph per unfinished job: the last lines of its log, or that it was not started."""
    lines = []
    for job, log in unfinished(settings_paths, root).items():
        words = (
            [line for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
            if log.is_file()
            else []
        )
        if words:
            lines += [f"not finished: {job} ({log})", *(f"    {line[:200]}" for line in words[-LAST_LINES:])]
        else:
            lines.append(f"not started:  {job}")
    return "\n".join(lines)


def render_what_is_there(report_settings: list[str]) -> None:
    """Render tables and figures of the finished jobs to results/<suite>/partial/; the final ones are not changed.

    Args:
        report_settings: the settings files of all tables and figures.
    """
    subprocess.run([sys.executable, "-m", "eval.report.render", *report_settings, "--partial"], check=False)
