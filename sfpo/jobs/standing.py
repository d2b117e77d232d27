"""What is on disk, beside what params.yaml asks for: stale results, unfinished runs, and what has been spent on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sfpo.schema import ConfigError
from sfpo.settings import JobSettings, RunSettings, differences
from sfpo.staleness import read_record, stale_reason

SHOWN_CHANGES = 3


@dataclass(frozen=True)
class Done:
    """What has been computed of a run under one recipe."""

    steps: int
    hours: float
    recipe: dict[str, Any]
    has_state: bool = False
    """It can be continued."""
    finished: bool = False
    """With all files of a run of so many steps."""
    published: bool = False
    """They are in their places: no other recipe's files are."""


def done(settings: RunSettings, root: Path = Path(".")) -> dict[str, Done]:
    """Recipe hash -> what has been computed in the run's folder. Damaged records count for nothing."""
    folder = root / "runs" / settings.run.path
    found: dict[str, Done] = {}
    for path in sorted(folder.glob("state/*/step_*/trainer.json")):
        saved, recipe = read_record(path), read_record(path.parent.parent / "recipe.json")
        if saved and recipe:
            progress = saved["progress"]
            found[saved["recipe_hash"]] = Done(progress["step"], sum(progress["clock"].values()) / 3600, recipe, has_state=True)
    for path in [*sorted(folder.glob("state/*/summary.json")), folder / "summary.json"]:
        summary = read_record(path) if path.is_file() else {}
        if "recipe_hash" not in summary:
            continue
        before = found.get(summary["recipe_hash"])
        if before is None or before.steps <= summary["steps"]:
            hours = (summary["seconds"]["total"] + summary["seconds"]["validate"]) / 3600
            has_state = before is not None and before.has_state
            found[summary["recipe_hash"]] = Done(
                summary["steps"], hours, summary["recipe"], has_state, finished=True, published=path.parent == folder
            )
    return found


def require_enough_steps(runs: Iterable[RunSettings], root: Path = Path(".")) -> None:
    """Raises ConfigError where a run has done more steps than are asked for: a result of fewer cannot be had from it."""
    faults = []
    for run in runs:
        own, asked = done(run, root).get(run.recipe_hash), run.recipe.train.steps
        if own is not None and own.steps > asked:
            faults.append(f"train.steps = {asked}: runs/{run.run.path} has done {own.steps}")
    if faults:
        remedy = "Steps can be added to a run, not taken away: ask for at least as many, move the run's folder away, or use"
        raise ConfigError("\n  ".join([*faults, f"{remedy} another suite (`extends` makes one from this)"]))


def describe(settings: Mapping[str, JobSettings], root: Path = Path(".")) -> list[str]:
    """A line for each result that is stale and each run that is unfinished, with what has been spent on it."""
    lines = []
    for path, one in settings.items():
        folder = str(Path(path).parent)
        if isinstance(one, RunSettings):
            lines += _describe_run(folder, one, root)
        elif reason := stale_reason(folder, one, root):
            lines.append(f"  stale: {folder} ({reason})")
    return lines


def _describe_run(folder: str, run: RunSettings, root: Path) -> list[str]:
    lines, asked = [], run.recipe.train.steps
    for recipe_hash, one in done(run, root).items():
        spent = f"{one.steps} steps, {one.hours:.2f} h"
        if recipe_hash != run.recipe_hash:
            changes = list(differences(one.recipe, run.recipe.model_dump(mode="json")))
            more = f" and {len(changes) - SHOWN_CHANGES} more" if len(changes) > SHOWN_CHANGES else ""
            shown = "; ".join(islice(changes, SHOWN_CHANGES)) + more
            lines.append(f"  {'stale' if one.published else 'kept'}: {folder}: {spent} of another recipe ({shown})")
        elif one.steps < asked and not one.has_state:
            lines.append(f"  begins anew: {folder}: {spent} cannot be continued to step {asked}: their state is not here")
        elif one.steps < asked or not one.finished:
            lines.append(f"  continues: {folder}: from {spent}, to step {asked}")
        elif not one.published:
            lines.append(f"  finished before: {folder}: {spent}; the files are put in their places, and nothing is trained")
        elif reason := stale_reason(folder, run, root):
            lines.append(f"  stale: {folder}: {spent} ({reason})")
    return lines
