"""Status of the results on disk relative to params.yaml: stale results, unfinished runs, and the time spent on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sfpo.schema import ConfigError
from sfpo.settings import JobSettings, RunSettings
from sfpo.staleness import differences, read_record, stale_reason

SHOWN_CHANGES = 3


@dataclass(frozen=True)
class Done:
    """Progress of a run under one recipe."""

    steps: int
    hours: float
    recipe: dict[str, Any]
    has_state: bool = False
    """Whether there is a checkpoint to resume from."""
    finished: bool = False
    """Whether the run has finished, with all its files."""
    published: bool = False
    """Whether its files are in the run's folder (else those of another recipe are)."""


def done(settings: RunSettings, root: Path = Path(".")) -> dict[str, Done]:
    """Recipe hash -> progress found in the run's folder. Corrupt records are ignored."""
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
    """Raises ConfigError if a run has already done more steps than ``train.steps``: it cannot be cut back."""
    errors = []
    for run in runs:
        own, asked = done(run, root).get(run.recipe_hash), run.recipe.train.steps
        if own is not None and own.steps > asked:
            errors.append(f"train.steps = {asked}: runs/{run.run.path} has done {own.steps}")
    if errors:
        remedy = "train.steps can be raised, not lowered: set at least that many, move the run's folder, or use another suite"
        raise ConfigError("\n  ".join([*errors, f"{remedy} (`extends` derives one from this)"]))


def describe(settings: Mapping[str, JobSettings], root: Path = Path(".")) -> list[str]:
    """A line for each stale result and each unfinished run, with the time spent on it."""
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
            lines.append(f"  restarts: {folder}: {spent} cannot be continued to step {asked}: there is no saved state")
        elif one.steps < asked or not one.finished:
            lines.append(f"  continues: {folder}: from {spent}, to step {asked}")
        elif not one.published:
            lines.append(f"  finished before: {folder}: {spent}; its files will be linked again, without training")
        elif reason := stale_reason(folder, run, root):
            lines.append(f"  stale: {folder}: {spent} ({reason})")
    return lines
