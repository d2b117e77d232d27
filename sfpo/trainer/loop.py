"""The training loop: rollouts, rewards, one step of the update rule, weight sync, metrics; validation and saves in between.

A run lives in one folder. While it trains, everything it writes is below <folder>/state, from which a killed run goes
on; at the end the finished files move up: metrics.jsonl, validation.jsonl, tensorboard/, best/, last/, exports/, and
summary.json, which is written last.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sfpo.algorithms.advantages import group_advantages, zero_variance
from sfpo.algorithms.update_rules import StepReport, make_update_rule
from sfpo.data.prompts import load_prompts, prompts_sha256
from sfpo.manifest import write_json
from sfpo.provenance import hardware, versions
from sfpo.ranks import ALONE, Ranks, cores, join
from sfpo.rewards.code_tests import CodeGrader
from sfpo.rewards.graders import make_grader
from sfpo.rewards.math_answer import Grader
from sfpo.rollouts import make_engine
from sfpo.rollouts.engine import EngineFailure
from sfpo.rollouts.weight_sync import sampler_gap
from sfpo.schema import ConfigError
from sfpo.settings import RunSettings, settings_hash
from sfpo.trainer.batching import rewards_of, sequences_of, train_batch
from sfpo.trainer.checkpoint import export_checkpoint, load_state, newest_state, save_state
from sfpo.trainer.collector import Collector, Rollouts
from sfpo.trainer.lock import run_lock
from sfpo.trainer.metrics import JsonLines, PhaseClock, TensorBoard, peak_memory_mb
from sfpo.trainer.policy import NonFiniteUpdates, Policy
from sfpo.types import Prompt, RolloutGroup, TrainBatch

log = logging.getLogger(__name__)


def train(settings: RunSettings, folder: Path) -> None:
    """Train one run to the end, or on from where it was killed, and write its products to ``folder``.

    Under torchrun all ranks do so together; the first of them writes.

    Raises:
        ConfigError: the data or the model does not fit the settings.
        RunLocked: another process trains this run.
        Interrupted: SIGTERM came; the state is saved, unless graders were lost in the step: then the one before stays.
    """
    ranks = join()
    with run_lock(folder) if ranks.first else nullcontext(), make_grader(settings.grader, workers=cores()) as grader:
        job = TrainingJob(settings, folder, grader, ranks)
        signal.signal(signal.SIGTERM, lambda *_: job.stop())
        job.run()
        job.publish()


class Interrupted(SystemExit):
    """The run was asked to stop, has saved its state, and goes on from there when it is started again."""

    EXIT_CODE = 75
    """EX_TEMPFAIL of sysexits.h: try again."""


class TrainingJob:
    """One run: the policy in torch, the same weights in vLLM, and the counters that describe its progress.

    Args:
        ranks: the processes that train it together. Each knows all rollouts, counters and decisions.

    Raises:
        ConfigError: the ranks do not fill the engines.
    """

    def __init__(self, settings: RunSettings, folder: Path, grader: Grader | CodeGrader, ranks: Ranks = ALONE) -> None:
        self.settings, self.folder, self.grader, self.ranks = settings, folder, grader, ranks
        if ranks.size % settings.engine.tensor_parallel:
            held = settings.engine.tensor_parallel
            raise ConfigError(f"engine.tensor_parallel = {held}: must divide the number of processes, which is {ranks.size}")
        self.state_folder = folder / "state"
        self.policy = Policy(
            settings.model_path,
            settings.objective,
            settings.train,
            settings.limits.max_completion_tokens,
            settings.arm.learning_rate_scale,
            ranks,
            settings.run.seed,
        )
        self.rule = make_update_rule(settings.arm.rule, **settings.arm.rule_settings)
        self.clock = PhaseClock()
        self.progress: dict[str, Any] = {
            "step": 0,
            "rollouts": 0,
            "tokens": 0,
            "backward_passes": 0,
            "engine_restarts": 0,
        }
        self.best: dict[str, Any] = {"step": None, "accuracy": -1.0}
        self.stopping = False
        self._resume()
        self.engine = make_engine(settings.model_path, settings.limits, settings.engine, ranks)
        self.collector = Collector(self.engine, grader, settings, self.clock, ranks)
        self.prompts, self.excluded = self._prompts("train.parquet")
        self.validation_prompts, _ = self._prompts("validation.parquet")
        self.validation_prompts = self.validation_prompts[: settings.train.validation.prompts]
        self.logs, self.validation_logs = [], []
        if not ranks.first:
            return
        self.logs.append(JsonLines(self.state_folder / "metrics.jsonl", self.progress["step"]))
        self.validation_logs.append(JsonLines(self.state_folder / "validation.jsonl", self.progress["step"]))
        if settings.train.tensorboard:
            self.logs.append(TensorBoard(self.state_folder / "tensorboard", self.progress["step"]))

    def run(self) -> None:
        """All steps that are left."""
        steps = self.settings.train.steps
        if self.progress["step"] == 0:
            self._validate(0)
        else:
            self.engine.load_weights(self.policy.weights())
        run = self.settings.run
        name, hidden = f"{run.arm} seed {run.seed}", not self.ranks.first
        with tqdm(total=steps, initial=self.progress["step"], desc=name, unit="step", disable=hidden) as bar:
            for step in range(self.progress["step"] + 1, steps + 1):
                given_up = self.collector.given_up
                record = self._step(step)
                for sink in self.logs:
                    sink.append(record)
                if step % self.settings.train.validation.every == 0 or step == steps:
                    self._validate(step)
                stopping = any(self.ranks.gather(self.stopping))
                if stopping and self.collector.given_up > given_up:
                    # What stopped this process may have stopped its graders (Slurm tells all): right answers counted as wrong.
                    log.warning("SIGTERM: step %d is not saved, since the grader gave up on answers in it", step)
                    raise Interrupted(Interrupted.EXIT_CODE)
                if step in self.settings.train.exported_steps:  # before the state is saved: what follows it finds this done
                    self._export(f"exports/step_{step}")
                if step % self.settings.train.save_every == 0 and step < steps:
                    self._save()
                rate = self.progress["tokens"] / self.clock.total
                bar.set_postfix_str(f"reward {record['reward']:.3f}, accuracy {record['accuracy']:.1%}, {rate:.0f} tok/s")
                bar.update()
                if stopping and step < steps:
                    self._save()
                    log.warning("SIGTERM: saved after step %d; start the run again and it goes on from there", step)
                    raise Interrupted(Interrupted.EXIT_CODE)

    def stop(self) -> None:
        """Save and leave after the step that is running."""
        self.stopping = True

    def _step(self, step: int) -> dict[str, Any]:
        """One outer step; returns its line of metrics.jsonl."""
        learning_rate = self.policy.set_learning_rate(step)
        rollouts = self._rollouts(step)
        self.engine.sleep()
        batch = self._batch(rollouts.groups)
        with self.clock("update"):
            report = self._update(batch)
        with self.clock("sync"):
            self.engine.wake(self.policy.weights())
        self.progress["step"] = step
        completions = [completion for group in rollouts.drawn for completion in group.completions]
        self.progress["rollouts"] += len(completions)
        self.progress["tokens"] += sum(len(completion.token_ids) for completion in completions)
        self.progress["backward_passes"] += report.backward_passes
        return self._record(rollouts, batch, report, learning_rate)

    def _rollouts(self, step: int) -> Rollouts:
        try:
            return self.collector.training_groups(self.prompts, step)
        except EngineFailure as fault:
            if self.ranks.mesh is not None:  # the others wait for this rank, in a process group that a restart would end
                raise
            log.warning("step %d: %s; once more, with a fresh engine", step, fault)
        # Here, not above: the fault's traceback holds the failed engine, whose end would take the fresh one's groups with it.
        self.progress["engine_restarts"] += 1
        self.engine.restart(self.policy.weights())
        return self.collector.training_groups(self.prompts, step)

    def _update(self, batch: TrainBatch) -> StepReport:
        try:
            report = self.rule.step(self.policy, batch)
            if not math.isfinite(batch.entropy):  # what it samples is all wrong: no advantage, no gradient, nothing to skip
                raise NonFiniteUpdates("the policy's log-probs are not finite: its weights are lost")
            return report
        except NonFiniteUpdates as fault:
            path = self.state_folder / "poisoned_batch.json"
            if self.ranks.first:
                write_json(path, batch.to_json())
            raise NonFiniteUpdates(f"{fault}; the batch is in {path}") from None

    def _batch(self, groups: list[RolloutGroup]) -> TrainBatch:
        advantages = group_advantages(rewards_of(groups), self.settings.objective.scale_by_std)
        train = self.settings.train
        if train.mini_batch_prompts == train.prompts_per_step:  # the first pass sees the weights that sampled
            return train_batch(groups, advantages, None, None)
        with self.clock("old_logprobs"):
            old_logprobs, entropy = self.policy.score(*sequences_of(groups))
        return train_batch(groups, advantages, old_logprobs, entropy.mean().item())

    def _record(self, rollouts: Rollouts, batch: TrainBatch, report: StepReport, learning_rate: float) -> dict[str, Any]:
        """Rewards, accuracy and lengths are those of everything that the policy drew; the updates saw the batch."""
        gap = sampler_gap(batch.old_logprobs, batch.sampler_logprobs)
        rewards = rewards_of(rollouts.drawn)
        completions = [completion for group in rollouts.drawn for completion in group.completions]
        correct = [verdict for group in rollouts.drawn for verdict in group.correct]
        return {
            "step": self.progress["step"],
            "reward": rewards.mean().item(),
            "accuracy": sum(correct) / len(correct),
            "zero_variance_groups": zero_variance(rewards).float().mean().item(),
            "zero_variance_groups_trained": zero_variance(rewards_of(rollouts.groups)).float().mean().item(),
            "response_length": sum(len(completion.token_ids) for completion in completions) / len(completions),
            "truncated": sum(completion.truncated for completion in completions) / len(completions),
            "entropy": batch.entropy,
            "entropy_zscore": report.entropy_zscore,
            "alpha": report.alpha,
            "trigger_fired": report.trigger_fired,
            "updates": report.updates,
            "sampler_gap_mean": gap.mean,
            "sampler_gap_max": gap.max,
            "learning_rate": learning_rate,
            "rollouts": self.progress["rollouts"],
            "tokens": self.progress["tokens"],
            "backward_passes": self.progress["backward_passes"],
            "seconds": self.clock.report(),
            "peak_memory_mb": round(peak_memory_mb(), 1),
        }

    def _validate(self, step: int) -> None:
        """avg@k and pass@k on the held-out prompts; the best policy so far is exported (the starting one never is)."""
        validation = self.settings.train.validation
        seed = (self.settings.run.seed, "validate", step)
        with self.clock("validate"):
            groups = self.collector.sample(self.validation_prompts, validation.samples, validation.sampling, seed)
        accuracy = sum(sum(group.correct) for group in groups) / (len(groups) * validation.samples)
        record = {
            "step": step,
            "accuracy": accuracy,
            "pass_at_k": sum(any(group.correct) for group in groups) / len(groups),
            "rollouts": self.progress["rollouts"],
            "backward_passes": self.progress["backward_passes"],
            "seconds": round(self.clock.total, 3),
        }
        for sink in self.validation_logs:
            sink.append(record)
        if step > 0 and accuracy > self.best["accuracy"]:
            self.best = {"step": step, "accuracy": accuracy}
            self._export("best")

    def _export(self, name: str) -> None:
        facts = {"step": self.progress["step"], "settings_hash": settings_hash(self.settings)}
        export_checkpoint(self.policy, self.settings.model_path, self.state_folder / name, **facts)

    def _save(self) -> None:
        state = {
            "settings_hash": settings_hash(self.settings),
            "ranks": self.ranks.size,
            "progress": self.progress,
            "best": self.best,
            "rule": self.rule.state_dict(),
            "skipped_in_a_row": self.policy.skipped_in_a_row,
            "seconds": self.clock.seconds,
        }
        save_state(self.policy, self.state_folder, self.progress["step"], state)

    def _resume(self) -> None:
        """Go on from the newest whole state, if it is of these very settings; else start from nothing."""
        found = self.ranks.gather(newest_state(self.state_folder) if self.ranks.first else None)[0]
        if found is None or found[1]["settings_hash"] != settings_hash(self.settings):
            if self.ranks.first and self.state_folder.exists():
                log.warning("%s: no state of these settings to go on from; starting at step 1", self.state_folder)
                shutil.rmtree(self.state_folder)
            return
        state_folder, state = found
        load_state(self.policy, state_folder)
        self.progress, self.best = state["progress"], state["best"]
        self.rule.load_state_dict(state["rule"])
        self.policy.skipped_in_a_row = state["skipped_in_a_row"]
        self.clock = PhaseClock(state["seconds"])
        log.warning("%s: going on after step %d", state_folder, self.progress["step"])
        if state["ranks"] != self.ranks.size:
            log.warning("saved by %d processes, now there are %d: rounding will differ", state["ranks"], self.ranks.size)

    def _prompts(self, file: str) -> tuple[list[Prompt], list[str]]:
        path = Path(self.settings.data_path) / file
        prompts, excluded = load_prompts(
            path, self.engine.tokenizer, self.settings.instruction, self.settings.limits.max_prompt_tokens
        )
        if excluded:
            log.warning(
                "%s: %d prompts over %d tokens are excluded", path, len(excluded), self.settings.limits.max_prompt_tokens
            )
        return prompts, excluded

    def publish(self) -> None:
        """Link the finished files to their final places; summary.json comes last and tells that all of them are there.

        Until then the state folder stays whole, so that a run killed in here goes on as any other does.
        """
        self._export("last")
        if not self.ranks.first:
            return
        for sink in (*self.logs, *self.validation_logs):
            sink.close()
        for name in ("best", "last", "exports", "metrics.jsonl", "validation.jsonl", "tensorboard"):
            source, target = self.state_folder / name, self.folder / name
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, copy_function=os.link)
            elif source.exists():
                os.link(source, target)
        summary = {
            "settings_hash": settings_hash(self.settings),
            "steps": self.progress["step"],
            "trigger_fired_at": self.rule.trigger_fired_at,
            "best_step": self.best["step"],
            "best_validation_accuracy": self.best["accuracy"],
            "rollouts": self.progress["rollouts"],
            "tokens": self.progress["tokens"],
            "backward_passes": self.progress["backward_passes"],
            "engine_restarts": self.progress["engine_restarts"],
            "seconds": self.clock.report(),
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "ranks": self.ranks.size,
            "prompts": len(self.prompts),
            "prompts_sha256": prompts_sha256((prompt.id, prompt.token_ids) for prompt in self.prompts),
            "prompts_excluded_as_too_long": self.excluded,
            "versions": versions(),
            "hardware": hardware(),
        }
        write_json(self.folder / "summary.json", summary)
        done = self.folder / ".state.done"
        shutil.rmtree(done, ignore_errors=True)
        shutil.rmtree(self.state_folder.rename(done))  # renamed first: never half a state under its own name
