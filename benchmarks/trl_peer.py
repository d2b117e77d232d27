"""The peer implementation: TRL's GRPOTrainer in its own training loop, with one optimizer step per turn."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.sides import Turns

STEPS = 10_000
"""More than any benchmark needs; the end of the turns ends the training."""


class OneStepATurn(TrainerCallback):
    """Blocks the trainer until the next turn, and reports the time of its optimizer step."""

    def __init__(self, turns: Turns, check: Callable[[], None]) -> None:
        self.turns, self.check = turns, check
        self.started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start()

    def start(self) -> None:
        if not self.turns.wait():
            raise Over
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = time.perf_counter() - self.started
        self.check()
        self.turns.report({"seconds": seconds})


class Over(Exception):
    """There are no more turns; raised to leave TRL's training loop."""


class UpdatesAlone(OneStepATurn):
    """Starts the clock when the batch is ready, so that generation and scoring are not measured."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.waiting = True

    def on_batch(self) -> None:
        """Called before each micro-batch's loss; the first of a step starts the clock."""
        if self.waiting:
            self.waiting = False
            self.start()


class _Trainer(GRPOTrainer):
    timer: OneStepATurn

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        inputs = super()._prepare_inputs(generation_batch)
        if isinstance(self.timer, UpdatesAlone):
            self.timer.on_batch()
        return inputs


def train(
    turns: Turns,
    checkpoint: str,
    rows: list[dict[str, Any]],
    rewards: Callable[..., list[float | None]],
    completions: int,
    rows_at_once: int,
    group: int,
    tokens: int,
    bf16: bool,
    float32_weights: bool,
    updates_alone: bool = False,
    rollouts: Callable[..., dict[str, Any]] | None = None,
) -> None:
    """Run GRPO with one optimizer step per ``completions`` completions, until there are no more turns.

    Args:
        rows: prompts, with the columns that ``rewards`` takes.
        rows_at_once: completions per forward and backward pass (gradient accumulation).
        tokens: exact length of each completion, unless ``rollouts`` provides the completions.
        bf16: autocast to bfloat16.
        float32_weights: float32 master weights instead of the checkpoint's data type.
    """
    micro_batches = completions // rows_at_once
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=rows_at_once,
            steps_per_generation=micro_batches,
            gradient_accumulation_steps=micro_batches,
            num_generations=group,
            max_steps=STEPS,
            max_completion_length=tokens,
            generation_kwargs=None if rollouts else {"min_new_tokens": tokens},
            loss_type="grpo",
            lr_scheduler_type="constant",
            learning_rate=1e-6,
            logging_steps=STEPS,
            save_strategy="no",
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = _Trainer(
            model=AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32 if float32_weights else "auto"),
            reward_funcs=rewards,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(checkpoint),
            rollout_func=rollouts,
        )
        lengths = trainer._metrics["train"]

        def check() -> None:
            if rollouts is None and lengths["completions/min_length"][-1] != tokens:
                raise RuntimeError(f"a completion has {lengths['completions/min_length'][-1]} tokens instead of {tokens}")

        timer = UpdatesAlone(turns, check) if updates_alone else OneStepATurn(turns, check)
        trainer.timer = timer
        trainer.add_callback(timer)
        with contextlib.suppress(Over):
            trainer.train()
