"""A run's folder on disk: the states from which it resumes, its metrics and exports, and the result files.

    <folder>/state/<key>/   recipe.json, step_<n>/, metrics.jsonl, validation.jsonl, completions.jsonl,
                            validation_completions.jsonl, best_<n>/, exports/step_<n>/, last/
    <folder>/               of the finished run: summary.json, the four .jsonl files, best/, last/, exports/

``<key>`` is a hash of the recipe (without the number of steps) and of the content of the inputs, so a run with other settings
uses another folder and does not touch this one. The result files are hard links into it. Each state also records which
checkpoint is the best so far, so that a resumed run and its published best checkpoint belong to the same trajectory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfpo.algorithms.update_rules import UpdateRule
from sfpo.config import ROUNDING
from sfpo.manifest import content_sha256, read_manifest, write_json
from sfpo.ranks import Ranks
from sfpo.schema import ConfigError
from sfpo.settings import RunSettings, settings_hash
from sfpo.staleness import differences
from sfpo.trainer.background import Background
from sfpo.trainer.checkpoint import export_checkpoint, load_state, newest_state, save_state
from sfpo.trainer.metrics import JsonLines, PhaseClock
from sfpo.trainer.policy import Policy
from sfpo.trainer.trackers import Tracker, open_tracker, run_key
from sfpo.types import RolloutGroup

log = logging.getLogger(__name__)

KEPT_STATES = 2
"""Number of states kept on disk: the newest, and the previous one in case the newest is corrupt."""
FINISHED = "summary.json"
LOGS = ("metrics", "validation", "completions", "validation_completions")
"""JSON-lines files: metrics of each step or validation, and samples of their completions."""
LINKED = ("last", "exports", *(f"{name}.jsonl" for name in LOGS), "tensorboard")


@dataclass
class Progress:
    """Progress counters of a run, saved with its weights."""

    step: int = 0
    rollouts: int = 0
    tokens: int = 0
    backward_passes: float = 0.0
    engine_restarts: int = 0
    best_step: int | None = None
    """Step of the best validation so far; the untrained policy does not count."""
    best_accuracy: float = -1.0
    diverged_at: int | None = None
    """Step that made log-probs or gradients non-finite; no later step was taken."""
    clock: PhaseClock = field(default_factory=PhaseClock)

    def count(self, step: int, drawn: list[RolloutGroup], backward_passes: float) -> None:
        """Count a finished step."""
        completions = [completion for group in drawn for completion in group.completions]
        self.step = step
        self.rollouts += len(completions)
        self.tokens += sum(len(completion.token_ids) for completion in completions)
        self.backward_passes += backward_passes

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Progress:
        """Inverse of ``to_json``."""
        return cls(**{**saved, "clock": PhaseClock(saved["clock"])})

    def to_json(self) -> dict[str, Any]:
        """A copy for JSON, with ``clock`` as seconds by phase."""
        return {**vars(self), "clock": dict(self.clock.seconds)}


class RunStore:
    """Saves, exports and publishes one run, and resumes it from its last state.

    Args:
        settings: the run's settings.
        folder: the run's folder, with its settings file.
        ranks: the processes that train it; the first one writes.
        background: runs the writes of states and exports.
    """

    def __init__(self, settings: RunSettings, folder: Path, ranks: Ranks, background: Background) -> None:
        self.settings, self.folder, self.ranks, self.background = settings, folder, ranks, background
        self.inputs = input_digests(settings)
        self.state = folder / "state" / _state_key(settings.recipe_hash, self.inputs)
        self._logs: dict[str, JsonLines] = {}
        self._trackers: list[Tracker] = []

    # ------------------------------------------------------------------------------------------ continuing

    def continue_from(self, policy: Policy, rule: UpdateRule) -> Progress:
        """Load the newest intact state of these settings, if there is one, into ``policy`` and ``rule``.

        Raises:
            ConfigError: the state has more steps than ``train.steps``.
        """
        if self.ranks.first:
            self._begin()
        found = self.ranks.gather(newest_state(self.state) if self.ranks.first else None)[0]
        if found is None:
            if self.ranks.first:
                self._remove_after(0)
            return Progress()
        path, saved = found
        progress = Progress.from_json(saved["progress"])
        asked = self.settings.recipe.train.steps
        if progress.step > asked:
            raise ConfigError(f"train.steps = {asked}: {path} already has step {progress.step}; steps can only be increased")
        load_state(policy, path)
        rule.load_state_dict(saved["rule"])
        policy.skipped_in_a_row = saved["skipped_in_a_row"]
        if self.ranks.first:
            self._remove_after(progress.step)
        log.warning("%s: resuming after step %d", path, progress.step)
        for change in differences(saved["rounding"], self._rounding()):
            log.warning(
                "%s since that state was saved: sums may be rounded differently, so results are not bit-identical", change
            )
        return progress

    def _begin(self) -> None:
        for torn in self.state.glob(".*.jsonl.*"):  # temporary files of a process that was killed while writing
            torn.unlink()
        for other in sorted(self.state.parent.glob("*/recipe.json")):
            if other.parent != self.state:
                changes = list(differences(json.loads(other.read_text()), self.settings.recipe.model_dump(mode="json")))
                log.warning("settings changed: %s was set aside (%s)", other.parent, "; ".join(changes) or "other input files")
        write_json(self.state / "recipe.json", self.settings.recipe.model_dump(mode="json"))

    def open_logs(self, progress: Progress) -> None:
        """Open the JSON-lines files for appending. Drops lines after the saved state, and the final validation of a run that
        had fewer steps if it is off the validation schedule."""
        if not self.ranks.first:
            return
        # Results of the run when it had fewer steps; its files are now being extended.
        (self.state / FINISHED).unlink(missing_ok=True)
        step, every = progress.step, self.settings.recipe.train.validation.every
        for name in LOGS:
            of_validation = name.startswith("validation")
            self._logs[name] = JsonLines(
                self.state / f"{name}.jsonl",
                (lambda at: at <= step > 0 and at % every == 0) if of_validation else (lambda at: at <= step),
            )
        run = "/".join(map(str, self.settings.run.model_dump().values()))
        settings = {"recipe": self.settings.recipe.model_dump(mode="json"), "run": self.settings.run.model_dump()}
        key = run_key(run, self.state.name)
        for tracker in self.settings.execution.report_to:
            self._trackers.append(open_tracker(tracker, run, key, settings, self.state, step))

    # ------------------------------------------------------------------------------------------ writing

    def log_step(self, record: dict[str, Any], completions: Iterable[dict[str, Any]] = ()) -> None:
        """Append a line to metrics.jsonl, and lines to completions.jsonl."""
        self._log("metrics", record, completions)
        for tracker in self._trackers:
            tracker.append(record)

    def log_validation(self, record: dict[str, Any], completions: Iterable[dict[str, Any]] = ()) -> None:
        """Append a line to validation.jsonl, and lines to validation_completions.jsonl."""
        self._log("validation", record, completions)
        numbers = {f"validation_{key}": value for key, value in record.items() if key in ("accuracy", "pass_at_k")}
        for tracker in self._trackers:
            tracker.append({"step": record["step"], **numbers})

    def _log(self, name: str, record: dict[str, Any], completions: Iterable[dict[str, Any]]) -> None:
        if not self.ranks.first:
            return
        self._logs[name].append(record)
        beside = self._logs["validation_completions" if name == "validation" else "completions"]
        for line in completions:
            beside.append(line)

    def save(self, policy: Policy, rule: UpdateRule, progress: Progress) -> None:
        """Write the state of this step. Deletes states beyond KEPT_STATES, and best checkpoints that no kept state refers
        to."""
        for sink in (*self._logs.values(), *self._trackers):
            sink.flush()
        saved = {
            "settings_hash": settings_hash(self.settings),
            "recipe_hash": self.settings.recipe_hash,
            "progress": progress.to_json(),
            "rule": rule.state_dict(),
            "skipped_in_a_row": policy.skipped_in_a_row,
            "rounding": self._rounding(),
        }
        save_state(policy, self.state, progress.step, saved, self.background)
        if self.ranks.first:
            self.background.run(lambda: self._prune(progress.best_step))

    def export(self, policy: Policy, name: str, step: int) -> None:
        """Export the policy in Hugging Face format to ``state``/<name>."""
        facts = {"step": step, "settings_hash": settings_hash(self.settings)}
        export_checkpoint(policy, self.settings.model_path, self.state / name, self.background, **facts)

    def export_best(self, policy: Policy, step: int) -> None:
        """Export the best policy so far, next to earlier ones that a kept state may still refer to."""
        self.export(policy, f"best_{step:06d}", step)
        if self.ranks.first:
            self.background.run(lambda: self._prune(step))

    def export_kept(self, policy: Policy, step: int) -> None:
        """Export a checkpoint for ``train.export_every``."""
        self.export(policy, f"exports/step_{step}", step)

    def lacks_export(self, step: int) -> bool:
        """Whether the checkpoint that ``train.export_every`` requires at this step is missing, because the step was the last
        one of a run that is now extended."""
        path = self.state / f"exports/step_{step}" / "manifest.json"
        return step in self.settings.recipe.train.exported_steps and not path.is_file()

    def _prune(self, best_step: int | None) -> None:
        states = sorted(self.state.glob("step_*"))
        for old in states[:-KEPT_STATES]:
            shutil.rmtree(old)
        named = {json.loads((one / "trainer.json").read_text())["progress"]["best_step"] for one in states[-KEPT_STATES:]}
        for best in self.state.glob("best_*"):
            if _step_of(best) not in {best_step, *named}:
                shutil.rmtree(best)

    def _remove_after(self, step: int) -> None:
        """Delete exports of later steps, which will be repeated and may round differently."""
        for folder in (*self.state.glob("best_*"), *self.state.glob("exports/step_*")):
            if _step_of(folder) > step:
                shutil.rmtree(folder)

    def _rounding(self) -> dict[str, Any]:
        values = {**self.settings.execution.model_dump(mode="json"), "ranks": self.ranks.size}
        return {key: _nested(values, key) for key in ROUNDING}

    # ------------------------------------------------------------------------------------------ the finished run

    def publish(self, policy: Policy, progress: Progress, summary: dict[str, Any]) -> None:
        """Export the last policy, and link the result files into the run's folder; summary.json last, when all others exist."""
        self.export(policy, "last", progress.step)
        self.background.wait()
        if not self.ranks.first:
            return
        for sink in (*self._logs.values(), *self._trackers):
            sink.close()
        settings = self.settings
        identity = {"settings_hash": settings_hash(settings), "recipe_hash": settings.recipe_hash, "inputs": self.inputs}
        recipe = settings.recipe.model_dump(mode="json")
        write_json(self.state / FINISHED, {**identity, "steps": progress.step, **summary, "recipe": recipe})
        self._link(progress.best_step)
        self._remove_states()

    def publish_again(self) -> bool:
        """If the run has already finished with exactly these settings, link its result files again. Returns whether it has.

        Needed because the workflow deletes a job's outputs before it runs the job, or they may belong to other settings.
        """
        path = self.state / FINISHED
        summary = json.loads(path.read_text()) if path.is_file() else {}
        if summary.get("settings_hash") != settings_hash(self.settings):
            return False
        try:
            for folder in self._exports(summary["best_step"]):
                read_manifest(folder)
        except (FileNotFoundError, ValueError) as fault:
            log.warning("%s had finished, but is corrupt: %s", self.state, fault)
            return False
        log.warning("%s had already finished with these settings; its files are linked into place again", self.state)
        self._link(summary["best_step"])
        self._remove_states()
        return True

    def _remove_states(self) -> None:
        """Delete the states that a finished run does not keep."""
        states = sorted(self.state.glob("step_*"))
        for state in states[:-1] if self.settings.execution.keep_final_state else states:
            shutil.rmtree(state)

    def _exports(self, best_step: int | None) -> Iterator[Path]:
        yield self.state / f"best_{best_step:06d}"
        yield self.state / "last"
        yield from (self.state / f"exports/step_{step}" for step in self.settings.recipe.train.exported_steps)

    def _link(self, best_step: int | None) -> None:
        (self.folder / FINISHED).unlink(missing_ok=True)  # without it the run does not count as finished
        places = {"best": f"best_{best_step:06d}", **{name: name for name in LINKED}, FINISHED: FINISHED}
        for name, within in places.items():
            source, target = self.state / within, self.folder / name
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, copy_function=os.link)
            elif source.exists():
                os.link(source, target)


def input_digests(settings: RunSettings) -> dict[str, str]:
    """Path -> sha256 of the run's input files; for a checkpoint that of its manifest, which has the hashes of its files."""
    paths = [f"{settings.data_path}/{name}.parquet" for name in ("train", "validation")]
    paths += [f"{settings.model_path}/manifest.json"]
    return {path: content_sha256(Path(path)) for path in paths if Path(path).is_file()}


def _state_key(recipe_hash: str, inputs: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([recipe_hash, sorted(inputs.values())]).encode()).hexdigest()[:12]


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("_")[2])


def _nested(values: dict[str, Any], key: str) -> Any:
    first, _, rest = key.partition(".")
    return _nested(values[first], rest) if rest else values[first]
