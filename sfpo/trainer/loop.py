"""The training loop: rollouts, rewards, one step of the update rule, weight sync, metrics; validation and saves in between.

sfpo/trainer/run_store.py handles files and resuming.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from sfpo.algorithms.advantages import group_advantages
from sfpo.algorithms.update_rules import StepReport, make_update_rule
from sfpo.data.prompts import load_prompts, prompts_sha256
from sfpo.manifest import write_json
from sfpo.provenance import hardware, versions
from sfpo.ranks import SINGLE_PROCESS, Ranks, cores, init_distributed
from sfpo.rewards.graders import make_grader
from sfpo.rollouts import make_engine
from sfpo.rollouts.engine import EngineFailure
from sfpo.schema import ConfigError
from sfpo.settings import RunSettings
from sfpo.trainer.background import Background
from sfpo.trainer.batching import rewards_of, sampler_logprobs_of, sequences_of, train_batch
from sfpo.trainer.collector import Collector, Judge, Rollouts
from sfpo.trainer.lock import run_lock
from sfpo.trainer.metrics import peak_memory_mb
from sfpo.trainer.policy import NonFiniteUpdates, Policy
from sfpo.trainer.records import completion_records, diverged_record, step_record, validation_record
from sfpo.trainer.run_store import Progress, RunStore
from sfpo.trainer.sampler_check import SamplerGapTooLarge, allowed_gap, check_sampler, require_gap
from sfpo.types import OldPolicy, Prompt, RolloutGroup, TrainBatch

log = logging.getLogger(__name__)

T = TypeVar("T")


def train(settings: RunSettings, folder: Path, wait: bool = False) -> None:
    """Train a run to the end, resuming it if it was interrupted, and write its results to ``folder``.

    Under torchrun all ranks call it; the first rank writes.

    Args:
        wait: if another process is training this run, wait until it has ended.

    Raises:
        ConfigError: data or model do not match the settings, or the run already has more steps than ``train.steps``.
        RunLocked: another process is training this run.
        UnsupportedModel, SamplerGapTooLarge: policy or engine do not compute the same log-probs as the model.
        Interrupted: SIGTERM was received and the state saved (not if graders were killed during the step, since their verdicts
            are missing; then the previous state remains).
    """
    ranks = init_distributed()
    with (
        run_lock(folder, wait) if ranks.first else nullcontext(),
        make_grader(settings.recipe.grader, workers=cores()) as grader,
    ):
        store = RunStore(settings, folder, ranks, Background(threaded=Policy.on_gpu()))
        if ranks.gather(store.publish_again() if ranks.first else None)[0]:
            return
        job = TrainingJob(settings, store, grader, ranks)
        signal.signal(signal.SIGTERM, lambda *_: job.stop())
        job.run()
        store.publish(job.policy, job.progress, job.summary())


class Interrupted(SystemExit):
    """The run received SIGTERM and saved its state; started again, it resumes from there."""

    EXIT_CODE = 75
    """EX_TEMPFAIL of sysexits.h: try again."""


class TrainingJob:
    """One training run: the policy in torch, and an engine with the same weights.

    Args:
        store: saves and resumes the run.
        ranks: the processes that train it. All of them have all rollouts and counters, and make the same decisions.

    Raises:
        ConfigError: the number of ranks is not a multiple of ``engine.tensor_parallel``.
    """

    def __init__(self, settings: RunSettings, store: RunStore, grader: Judge, ranks: Ranks = SINGLE_PROCESS) -> None:
        self.settings, self.recipe, self.store, self.ranks = settings, settings.recipe, store, ranks
        recipe, execution = settings.recipe, settings.execution
        if ranks.size % execution.engine.tensor_parallel:
            held = execution.engine.tensor_parallel
            raise ConfigError(f"engine.tensor_parallel = {held}: must divide the number of processes ({ranks.size})")
        self.policy = Policy(
            settings.model_path,
            recipe.objective,
            recipe.train,
            execution,
            recipe.limits.max_completion_tokens,
            recipe.learning_rate_scale,
            ranks,
            recipe.seed,
        )
        self.rule = make_update_rule(recipe.rule.name, execution.model_dump(), **recipe.rule.settings)
        self.stopping = False
        self.made_by = {"versions": versions(), "hardware": hardware()}  # read now: the checkout may change
        engine = execution.engine.for_at_most(recipe.most_sequences(ranks.size // execution.engine.tensor_parallel))
        self.engine = make_engine(settings.model_path, recipe.limits, recipe.sampler, engine, ranks)
        self.canary = self.policy.canary | {"sampler": check_sampler(self.policy, self.engine, recipe.sampler, recipe.seed)}
        # After the checks, so that a resumed run reports the same numbers of them: those of its starting policy.
        self.progress: Progress = store.continue_from(self.policy, self.rule)
        self.collector = Collector(self.engine, grader, recipe, execution.engine.tensor_parallel, self.progress.clock, ranks)
        self.prompts, self.excluded = self._prompts("train.parquet")
        self.validation_prompts = self._prompts("validation.parquet")[0][: recipe.train.validation.prompts]
        store.open_logs(self.progress)

    def run(self) -> None:
        """Train the remaining steps."""
        train, progress = self.recipe.train, self.progress
        if progress.step == 0:
            self._validate(0)
        else:
            self.engine.load_weights(self.policy.weights())
            if self.store.lacks_export(progress.step):
                self.store.export_kept(self.policy, progress.step)
        run = self.settings.run
        name, hidden = f"{run.arm} seed {run.seed}", not self.ranks.first
        with tqdm(total=train.steps, initial=progress.step, desc=name, unit="step", disable=hidden) as bar:
            for step in range(progress.step + 1, train.steps + 1):
                try:
                    record = self._step_and_save(step)
                except NonFiniteUpdates as fault:
                    if train.on_divergence == "error" or not progress.step:
                        raise
                    return self._end_diverged(step, fault)
                rate = progress.tokens / progress.clock.total
                bar.set_postfix_str(f"reward {record['reward']:.3f}, accuracy {record['accuracy']:.1%}, {rate:.0f} tok/s")
                bar.update()
        if train.steps % train.validation.every:  # not part of the saved state: a longer run does not validate at this step
            self._validate(train.steps)

    def _end_diverged(self, step: int, fault: NonFiniteUpdates) -> None:
        """Validations that are left have accuracy 0, and the policy is exported as it is."""
        train, progress = self.recipe.train, self.progress
        log.warning("step %d: %s. The run ends here, with accuracy 0 from now on (train.on_divergence)", step, fault)
        progress.diverged_at = step
        if progress.best_step is None:
            progress.best_step, progress.best_accuracy = step, 0.0
            self.store.export_best(self.policy, step)
        for later in sorted({*range(train.validation.every, train.steps, train.validation.every), train.steps}):
            if later >= step:
                self.store.log_validation(diverged_record(progress, later))
        for kept in train.exported_steps:
            if kept >= step:
                self.store.export_kept(self.policy, kept)

    def stop(self) -> None:
        """Save and exit after the current step."""
        self.stopping = True

    def summary(self) -> dict[str, Any]:
        """Content of summary.json, except the run's identity."""
        progress = self.progress
        return {
            "trigger_fired_at": self.rule.trigger_fired_at,
            "diverged_at": progress.diverged_at,
            "best_step": progress.best_step,
            "best_validation_accuracy": progress.best_accuracy,
            "rollouts": progress.rollouts,
            "tokens": progress.tokens,
            "backward_passes": progress.backward_passes,
            "engine_restarts": progress.engine_restarts,
            "seconds": progress.clock.report(),
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "canary": self.canary,
            "ranks": self.ranks.size,
            "execution": self.settings.execution.model_dump(mode="json"),
            "prompts": len(self.prompts),
            "prompts_sha256": prompts_sha256((prompt.id, prompt.token_ids) for prompt in self.prompts),
            "prompts_excluded_as_too_long": self.excluded,
            **self.made_by,
        }

    def _step_and_save(self, step: int) -> dict[str, Any]:
        """One step, followed by validation, exports and saving if they are due.

        Raises:
            Interrupted: ``stop`` was called on any rank.
        """
        train, timed_out = self.recipe.train, self.collector.timed_out
        self.store.background.check()
        record, completions = self._step(step)
        self.store.log_step(record, completions)
        if step % train.validation.every == 0:
            self._validate(step)
        stopping = any(self.ranks.gather(self.stopping))
        if stopping and self.collector.timed_out > timed_out:
            # The signal may also have killed the graders (Slurm signals all processes), so that correct answers count as wrong.
            log.warning("SIGTERM: step %d is not saved, because the grader did not finish all of its answers", step)
            raise Interrupted(Interrupted.EXIT_CODE)
        if step in train.exported_steps:  # before the state is saved, since a saved state implies that it exists
            self.store.export_kept(self.policy, step)
        if step % self.settings.execution.save_every == 0 or stopping or step == train.steps:
            self.store.save(self.policy, self.rule, self.progress)
        if stopping and step < train.steps:
            self.store.background.wait()
            log.warning("SIGTERM: saved after step %d; start the run again to resume from there", step)
            raise Interrupted(Interrupted.EXIT_CODE)
        return record

    def _step(self, step: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """One outer step. Returns its line of metrics.jsonl and its lines of completions.jsonl."""
        learning_rate = self.policy.set_learning_rate(step)
        rollouts = self._rollouts(step)
        self.engine.sleep()
        batch = self._batch(rollouts.groups)
        if batch.old is not None:
            self._require_gap(rollouts.groups, batch.old, step, save=True)
        with self.progress.clock("update"):
            report = self._update(batch)
        if batch.old is None:  # the first pass of the update has computed it
            self._require_gap(rollouts.groups, report.old, step, save=False)
        with self.progress.clock("sync"):
            self.engine.wake(self.policy.weights())
        self.progress.count(step, rollouts.drawn, report.backward_passes)
        vocabulary = max(self.engine.tokenizer.get_vocab().values()) + 1
        return step_record(self.progress, rollouts, report, learning_rate, vocabulary), self._to_read(step, rollouts.groups)

    def _to_read(self, step: int, groups: list[RolloutGroup]) -> list[dict[str, Any]]:
        prompts, scaled = self.settings.execution.log_completions, self.recipe.objective.scale_by_std
        return list(completion_records(step, groups, prompts, scaled))

    def _require_gap(self, groups: list[RolloutGroup], old: OldPolicy, step: int, save: bool) -> None:
        """Check that the step's completions were sampled from the policy.

        Args:
            save: save the policy of the previous step before raising.

        Raises:
            SamplerGapTooLarge: the log-probs of engine and policy differ too much.
        """
        try:
            allowed = allowed_gap(self.recipe.train, self.recipe.sampler)
            require_gap(old.logprobs, sampler_logprobs_of(groups), allowed, f"step {step}")
        except SamplerGapTooLarge:
            if save:
                self.store.save(self.policy, self.rule, self.progress)
                self.store.background.wait()
            raise

    def _rollouts(self, step: int) -> Rollouts:
        return self._with_engine(f"step {step}", lambda: self.collector.training_groups(self.prompts, step))

    def _with_engine(self, what: str, sample: Callable[[], T]) -> T:
        """Call ``sample``; if the engine fails, restart it and try once more."""
        try:
            return sample()
        except EngineFailure as fault:
            if self.ranks.mesh is not None:  # a restart would destroy the process group in which the other ranks wait
                raise
            log.warning("%s: %s; restarting the engine to try again", what, fault)
        # Outside the except block, because the traceback keeps the failed engine alive; when it is collected later, it would
        # destroy the new engine's process groups.
        self.progress.engine_restarts += 1
        self.engine.restart(self.policy.weights())
        return sample()

    def _update(self, batch: TrainBatch) -> StepReport:
        try:
            report = self.rule.step(self.policy, batch)
            batch = batch.with_old(report.old)
            if not math.isfinite(report.old.entropy):  # all rewards are equal then, so no gradient shows it
                raise NonFiniteUpdates("NaN or inf log-probs: training diverged")
            return report
        except NonFiniteUpdates as fault:
            path = self.store.state / "poisoned_batch.json"
            if self.ranks.first:
                write_json(path, batch.to_json())
            raise NonFiniteUpdates(f"{fault}; the batch was saved to {path}") from None

    def _batch(self, groups: list[RolloutGroup]) -> TrainBatch:
        advantages = group_advantages(rewards_of(groups), self.recipe.objective.scale_by_std)
        train = self.recipe.train
        if train.mini_batch_prompts == train.prompts_per_step:  # the first pass has the weights of the sampling policy
            return train_batch(groups, advantages, None)
        with self.progress.clock("old_logprobs"):
            old_logprobs, entropy = self.policy.score(*sequences_of(groups))
        return train_batch(groups, advantages, OldPolicy(old_logprobs, entropy.mean().item()))

    def _validate(self, step: int) -> None:
        """Compute avg@k and pass@k on the held-out prompts. Exports the policy if it is the best so far (never the initial
        one)."""
        validation, seed = self.recipe.train.validation, (self.recipe.seed, "validate", step)
        with self.progress.clock("validate"):
            groups = self._with_engine(
                f"validation after step {step}",
                lambda: self.collector.sample(self.validation_prompts, validation.samples, validation.sampling, seed),
            )
        record = validation_record(self.progress, step, groups)
        self.store.log_validation(record, self._to_read(step, groups))
        if step > 0 and record["accuracy"] > self.progress.best_accuracy:
            self.progress.best_step, self.progress.best_accuracy = step, record["accuracy"]
            self.store.export_best(self.policy, step)

    def _prompts(self, file: str) -> tuple[list[Prompt], list[str]]:
        path, limit = Path(self.settings.data_path) / file, self.recipe.limits.max_prompt_tokens
        prompts, excluded = load_prompts(path, self.engine.tokenizer, self.recipe.instruction, limit)
        if excluded:
            log.warning("%s: %d prompts with more than %d tokens are excluded", path, len(excluded), limit)
        return prompts, excluded
