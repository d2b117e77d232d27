"""SFPO (arXiv 2510.04072) on TRL's GRPOTrainer: a callback over its ``num_iterations`` = K + 1 passes on each rollout batch.

    trainer = GRPOTrainer(..., args=GRPOConfig(num_iterations=4, lr_scheduler_type="constant", ...))
    trainer.add_callback(SlowFastCallback(num_fast_steps=3, alpha=0.8))

A step of SFPO is (K + 1) * steps_per_generation / gradient_accumulation_steps of TRL's steps. Within it the weights are not yet
the next policy: saves, evaluations and stops requested there are deferred to its end, so that checkpoints need no snapshot.

Departures from the paper:
- TRL fixes the number of passes when training starts. If stages I and II are skipped (alpha 0, a fired trigger), the other K
  passes still run forward and backward, and their gradients are discarded before the optimizer step: the result is that of
  GRPO, at the cost of SFPO. To save the time, start a plain GRPOTrainer from the checkpoint.
- The trigger uses the entropy that the trainer logs in the first pass: a mean over micro-batches, under weights that
  move in that pass if it has several optimizer steps. (The rule in sfpo/algorithms uses that of the policy that sampled
  the rollouts.) The trigger's state is read from the trainer's log, which is part of every checkpoint.
- A learning-rate schedule advances at every optimizer step, not once per step of SFPO; the paper's rate is constant.

The reposition is computed in the data type of the weights: load the model in float32 (with bf16=True for autocast), since in
bfloat16 small changes are lost to rounding. docs/trl.md lists tested versions, unsupported settings, and notes on ms-swift and
Unsloth.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.algorithms.update_rules.base import check_alpha, check_fast_steps
from sfpo.slow_fast import SlowFast

log = logging.getLogger(__name__)

WAITING = ("should_save", "should_evaluate", "should_training_stop")
"""Trainer actions that are deferred to the end of a step of SFPO."""
ENTROPY_KEYS = ("entropy", "entropy/mean")
"""Mean entropy of a token in the trainer's log: TRL's key, ms-swift's key."""


class SlowFastCallback(TrainerCallback):
    """Snapshot before the first pass over a batch of rollouts, reposition before the last.

    Args:
        num_fast_steps: K; ``num_iterations`` must be K + 1.
        alpha: reposition factor in [0, 1]. 0: GRPO.
        entropy_trigger: settings of ``EntropyTrigger``; needs ``logging_steps=1`` and a trainer that logs the entropy. None:
            no entropy control.

    Raises:
        ValueError: a setting is invalid.
    """

    def __init__(self, num_fast_steps: int = 3, alpha: float = 0.8, entropy_trigger: Mapping[str, Any] | None = None) -> None:
        check_fast_steps(num_fast_steps)
        check_alpha(alpha)
        self.num_fast_steps, self.alpha, self.entropy_trigger = num_fast_steps, alpha, entropy_trigger
        self.trigger = EntropyTrigger.from_settings(entropy_trigger)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainers: Any) -> None:
        """Raises ValueError where the trainer's settings do not fit SFPO's, or its log lacks the entropies that the trigger
        needs."""
        self.updates_per_pass = self._check(args, state)
        self.updates_per_step = self.updates_per_pass * (self.num_fast_steps + 1)
        self.trigger = EntropyTrigger.from_settings(self.entropy_trigger)
        self._slow_fast = SlowFast(trainers["optimizer"], self.num_fast_steps, self.alpha, self.trigger)
        self._passes: Iterator[None] = iter(())
        self._drop_gradients = False
        self._waiting = dict.fromkeys(WAITING, False)
        if self.trigger is not None:
            for first_update in range(0, state.global_step, self.updates_per_step):  # of the run that is resumed
                self._slow_fast.observe(self._entropy(state, first_update))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        place = state.global_step % self.updates_per_step
        if place == 0:
            self._passes = self._slow_fast.passes()
        if place == self.updates_per_pass and self.trigger is not None:
            self._entropy(state, state.global_step - place)  # fail now if it is missing, not K passes later
        if place % self.updates_per_pass == 0:
            self._drop_gradients = next(self._passes, self) is self  # no pass is left: the slow-fast stages are skipped

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainers: Any
    ) -> None:
        if self._drop_gradients:
            # torch's optimizers leave weights without a gradient, and their moments, untouched
            trainers["optimizer"].zero_grad(set_to_none=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        for name in WAITING:
            self._waiting[name] |= getattr(control, name)
        at_the_end = state.global_step % self.updates_per_step == 0
        for name in WAITING:
            setattr(control, name, at_the_end and self._waiting[name])
        if at_the_end:
            self._waiting = dict.fromkeys(WAITING, False)
            next(self._passes, None)
            if self.trigger is not None:
                self._slow_fast.observe(self._entropy(state, state.global_step - self.updates_per_step))
        return control

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.updates_per_step:
            log.warning("training stopped inside a step of SFPO: the weights are between its stages; use the last checkpoint")

    @property
    def trigger_fired_at(self) -> int | None:
        """First step of SFPO (1-based) without stages I and II; None: not yet, or there is no trigger."""
        return self.trigger.fired_at if self.trigger else None

    def cancel(self) -> None:
        """Restore the weights at the start of a step of SFPO that was left early by an exception or a stop."""
        self._slow_fast.cancel()

    def _entropy(self, state: TrainerState, first_update: int) -> float:
        """Mean of the entropies logged in the first pass of the step of SFPO that starts after optimizer step ``first_update``.

        Raises:
            RuntimeError: there is none.
        """
        updates = range(first_update + 1, first_update + self.updates_per_pass + 1)
        records = [record for record in state.log_history if record.get("step") in updates]
        entropies = [record[key] for record in records for key in ENTROPY_KEYS if key in record]
        if not entropies:
            keys = ", ".join(sorted({key for record in records for key in record}))
            raise RuntimeError(
                f"no entropy in the log of optimizer steps {updates[0]} to {updates[-1]} (its keys: {keys}): the entropy "
                f"trigger needs {' or '.join(ENTROPY_KEYS)}. Unsloth and TRL before 0.20 log none: leave out entropy_trigger"
            )
        return fmean(entropies)

    def _check(self, args: TrainingArguments, state: TrainerState) -> int:
        """Optimizer steps in one pass over a batch of rollouts.

        Raises:
            ValueError: see ``on_train_begin``.
        """
        passes = self.num_fast_steps + 1
        num_iterations = getattr(args, "num_iterations", None)
        steps_per_generation = getattr(args, "steps_per_generation", None)
        if num_iterations is None or steps_per_generation is None:
            raise ValueError(f"args = {type(args).__name__}: SlowFastCallback needs TRL's GRPOTrainer and its GRPOConfig")
        if num_iterations != passes:
            raise ValueError(
                f"num_iterations = {num_iterations}: SFPO takes num_fast_steps + 1 passes over each batch of rollouts; "
                f"set GRPOConfig(num_iterations={passes})"
            )
        if steps_per_generation % args.gradient_accumulation_steps:
            raise ValueError(
                f"gradient_accumulation_steps = {args.gradient_accumulation_steps}: must divide steps_per_generation "
                f"({steps_per_generation}), so that no optimizer step reaches over two passes"
            )
        updates_per_pass = steps_per_generation // args.gradient_accumulation_steps
        updates_per_step = passes * updates_per_pass
        if state.max_steps % updates_per_step:
            raise ValueError(
                f"max_steps = {state.max_steps}: one step of SFPO is {updates_per_step} optimizer steps; set a multiple of it"
            )
        if state.global_step % updates_per_step:
            raise ValueError(
                f"resume_from_checkpoint at optimizer step {state.global_step}: inside a step of SFPO, whose snapshot is not "
                f"there; take a checkpoint whose step is a multiple of {updates_per_step}"
            )
        if args.deepspeed_plugin is not None:
            raise ValueError("deepspeed: a reposition would not reach DeepSpeed's master weights; use FSDP or DDP")
        if args.auto_find_batch_size:
            raise ValueError(
                "auto_find_batch_size = True: it would start again from inside a step of SFPO; set per_device_train_batch_size"
            )
        if self.trigger is not None and (state.logging_steps != 1 or args.logging_strategy != "steps"):
            raise ValueError(
                f"logging_steps = {state.logging_steps}, logging_strategy = {args.logging_strategy}: the entropy trigger takes "
                "the entropy from the log of each step; set logging_steps=1, logging_strategy='steps'"
            )
        return updates_per_pass
