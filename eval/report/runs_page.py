"""The page of all runs, with each run's settings, commit, package versions and hardware.

Tables and figures compare runs of the same model and data set. A run made with another commit, other packages or another
machine may differ for that reason only, so values that most runs of the same model and data set do not share are marked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from eval.report.collect import read
from eval.report.markup import html_page
from sfpo.settings import ReportSettings, RunId

NUMBERS = ("model", "data set", "arm", "seed", "steps", "seconds", "trigger fired", "engine restarts")
MADE_BY = ("commit", "versions", "hardware")
NOTES = (
    "≠: a commit, version or machine that at most half of the runs of the same model and data set share; differences between "
    "such a run and the others may be due to it. A commit that ends in -dirty had uncommitted changes. "
    "Seconds: training time without validation and saving. Trigger: the first step after the entropy trigger fired; '-': the "
    "arm has no entropy trigger."
)
ABSENT = "absent"

Made = dict[tuple[str, str], str]
"""(one of MADE_BY, name) -> value."""


class Seconds(BaseModel):
    total: float


class Hardware(BaseModel):
    cpu: str
    cores: int
    threads: int
    gpus: list[str]


class Summary(BaseModel):
    """The part of a run's summary.json that the page shows."""

    settings_hash: str
    steps: int
    trigger_fired_at: int | None
    engine_restarts: int
    seconds: Seconds
    versions: dict[str, str]
    hardware: Hardware
    recipe: dict[str, Any]
    execution: dict[str, Any]


def runs_page(items: Iterable[ReportSettings], root: Path = Path(".")) -> str:
    """The page as self-contained HTML: a table of the finished runs, and a list of the unfinished ones.

    Args:
        items: their runs are shown, each once.
        root: folder that contains runs/.

    Raises:
        ReportError: a summary is corrupt; the message names the file.
    """
    items = list(items)
    runs = list(dict.fromkeys(run for item in items for run in item.runs))
    finished = [run for run in runs if (root / "runs" / run.path / "summary.json").is_file()]
    missing = [run.path for run in runs if run not in finished]
    body = [f"<p>{escape(NOTES)}</p>"]
    if missing:
        body.append(f"<p>Not finished: {escape(', '.join(missing))}.</p>")
    if finished:
        expected = {folder: identity for item in items for folder, identity in item.made_from.items()}
        body.append(_table(finished, expected, root))
    return html_page(f"Runs of suite {runs[0].suite}", "\n".join(body))


def _table(runs: list[RunId], expected: Mapping[str, str], root: Path) -> str:
    """Two rows per run: its numbers; and its commit, versions and hardware, with its settings collapsed.

    Args:
        expected: folder of a run -> identity (settings hash) of its current settings.
    """
    identities = [expected[f"runs/{run.path}"] for run in runs]
    summaries = [_summary(root / "runs" / run.path / "summary.json") for run in runs]
    made = pd.DataFrame([_made_by(summary) for summary in summaries]).fillna(ABSENT)
    compared = [f"{run.model} {run.dataset}" for run in runs]
    usual = made.groupby(compared).transform(lambda values: values.map(values.value_counts(normalize=True)) > 0.5)
    rows = map(_rows, runs, identities, summaries, made.to_dict("records"), usual.to_dict("records"))
    heads = "".join(f"<th>{head}</th>" for head in NUMBERS)
    summary = f"<p>Runs that differ in commit, versions or hardware: {(~usual).any(axis=1).sum()} of {len(runs)}.</p>"
    return "\n".join([summary, "<table>", f"<thead><tr>{heads}</tr></thead>", *rows, "</table>"])


def _summary(path: Path) -> Summary:
    return read(path, lambda: Summary.model_validate_json(path.read_text()))


def _made_by(summary: Summary) -> Made:
    machine = summary.hardware
    gpus = ", ".join(f"{count} x {name}" for name, count in Counter(machine.gpus).items())
    parts = {"": machine.cpu, "cores": str(machine.cores), "threads": str(machine.threads), "GPU": gpus or "none"}
    return {
        ("commit", ""): summary.versions.get("commit", "unknown"),
        **{("versions", name): version for name, version in summary.versions.items() if name != "commit"},
        **{("hardware", name): value for name, value in parts.items()},
    }


def _rows(run: RunId, identity: str, summary: Summary, made: Made, usual: dict[tuple[str, str], bool]) -> str:
    fired = summary.trigger_fired_at
    never = "never" if summary.recipe["rule"]["settings"].get("entropy_trigger") else "-"
    numbers = (
        *(run.model, run.dataset, run.arm, run.seed, summary.steps, f"{summary.seconds.total:.1f}"),
        *(never if fired is None else fired, summary.engine_restarts),
    )
    shown = {
        key: _marked(f"{key[1]} {value}".strip(), not usual[key])
        for key, value in made.items()
        if value != ABSENT or not usual[key]
    }
    parts = [f"{part}: {', '.join(text for key, text in shown.items() if key[0] == part)}" for part in MADE_BY]
    changed = " " + _marked("settings changed since this run", True) if identity != summary.settings_hash else ""
    settings = json.dumps({"recipe": summary.recipe, "execution": summary.execution}, indent=1)  # those that the run had
    details = f"<summary>runs/{escape(run.path)}{changed}</summary><pre>{escape(settings)}</pre>"
    cells = "".join(f"<td>{escape(str(number))}</td>" for number in numbers)
    below = "<br>".join([*parts, f"<details>{details}</details>"])
    return f'<tbody><tr>{cells}</tr>\n<tr><td colspan="{len(NUMBERS)}">{below}</td></tr></tbody>'


def _marked(text: str, differs: bool) -> str:
    return f"<mark>≠ {escape(text)}</mark>" if differs else escape(text)
