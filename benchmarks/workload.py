"""The workload of benchmarks: models and settings of the suites, on generated prompts and completions of given lengths."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.sides import Options
from sfpo.config import Dataset, ModelLimits, Suite, load_params
from sfpo.jobs import resolve
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.seeding import rng, seed_of
from sfpo.settings import BenchmarkSettings, DatasetSettings, EvaluationSettings, RunSettings

if TYPE_CHECKING:
    from sfpo.rewards.math_answer import Grade
    from sfpo.trainer.policy import Policy
    from sfpo.types import TrainBatch

PROMPTS, GROUP, TOKENS = 8, 8, 64
"""Prompts per step, completions per prompt, tokens per completion."""
TASK = "stories"


@dataclass(frozen=True)
class Work:
    """A model of params.yaml with its suite's settings."""

    suite: str
    model: str
    models: str
    """Folder of the prepared checkpoints: <models>/<suite>/<model>/checkpoint."""

    @property
    def checkpoint(self) -> str:
        return f"{self.models}/{self.suite}/{self.model}/checkpoint"

    @property
    def of_suite(self) -> Suite:
        return load_params().suites[self.suite]

    @property
    def limits(self) -> ModelLimits:
        limits = load_params().models[self.model].model_dump(include=set(ModelLimits.model_fields))
        return ModelLimits.model_validate({**limits, "max_completion_tokens": TOKENS})

    def run_settings(self, data: Path) -> RunSettings:
        """Settings of a GRPO run with one optimizer step per update, like TRL's GRPOTrainer."""
        params = load_params().model_copy(update={"suite": self.suite})
        runs = [one for one in resolve(params).values() if isinstance(one, RunSettings)]
        settings = next(one for one in runs if one.run.model == self.model and one.recipe.rule.name == "grpo")
        counts = {"prompts_per_step": PROMPTS, "completions_per_prompt": GROUP, "mini_batch_prompts": PROMPTS}
        train = settings.recipe.train.model_copy(update=counts)
        changes = {
            "model_path": self.checkpoint,
            "data_path": str(data),
            "recipe": settings.recipe.model_copy(update={"limits": self.limits, "train": train}),
            "execution": settings.execution.model_copy(update={"report_to": []}),
        }
        return settings.model_copy(update=changes)

    @property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def evaluation_settings(self, benchmark: str, folder: Path) -> EvaluationSettings:
        """Settings to evaluate the untrained model on one benchmark of the suite, whose problems are written to ``folder``."""
        from sfpo.data.prepare import prepare_benchmark

        jobs = list(resolve(load_params().model_copy(update={"suite": self.suite})).values())
        prepare_benchmark(next(one for one in jobs if isinstance(one, BenchmarkSettings) and one.name == benchmark), folder)
        settings = next(one for one in jobs if isinstance(one, EvaluationSettings))
        return settings.model_copy(update={"benchmarks": {benchmark: str(folder / "problems.parquet")}})

    def policy(
        self, mini_batch_prompts: int, checkpoint: Path | None = None, ranks: Ranks = SINGLE_PROCESS, **changes: Any
    ) -> Policy:
        """The suite's policy with GRPO's objective, and one optimizer step per ``mini_batch_prompts``.

        Args:
            changes: execution settings that differ from the suite's.
        """
        from sfpo.trainer.policy import Policy

        suite, tokens = self.of_suite, self.limits.max_completion_tokens
        train = suite.train.model_copy(update={"mini_batch_prompts": mini_batch_prompts})
        execution, start = suite.execution.model_copy(update=changes), checkpoint or self.checkpoint
        return Policy(start, load_params().objectives["grpo"], train, execution, tokens, ranks=ranks)


SMALL, TINY = ("small", "smollm2-135m"), ("tiny", "tiny-qwen2")
ALL_CORES = len(os.sched_getaffinity(0))
THREADS = tuple(sorted({1, ALL_CORES}))
"""Candidate numbers of threads."""


def work_of(options: Options) -> Work:
    """The pretrained model of suite small."""
    return Work(*(TINY if options.quick else SMALL), options.models)


def prepare_data(folder: Path) -> Path:
    """Write a data set with the prompts of one step, in the training job's format."""
    from sfpo.data.prepare import prepare_dataset

    folder.mkdir()
    parts = {"generated": {"source": "generated", "tasks": {TASK: PROMPTS}}}
    dataset = Dataset.model_validate({"parts": parts, "validation_rows": 1})
    prepare_dataset(DatasetSettings(name=TASK, dataset=dataset, data_mirror=None), folder)
    return folder


class EveryOtherRight:
    """The real grader, but with every other verdict inverted, so that each group has reward variance and every completion a
    gradient. (Our policy skips completions without one, which is not measured here.)"""

    def __init__(self) -> None:
        from sfpo.rewards.math_answer import Grader

        self._grader = Grader(workers=len(os.sched_getaffinity(0)))
        self._verdicts = itertools.cycle([True, False])

    def grade_all(self, responses: Sequence[str], golds: Sequence[Any]) -> list[Grade]:
        return [replace(grade, correct=next(self._verdicts)) for grade in self._grader.grade_all(responses, golds)]

    def close(self) -> None:
        self._grader.__exit__(None, None, None)


def given_batch(vocabulary: int, prompt_tokens: int, group: int, lengths: Sequence[int]) -> TrainBatch:
    """A batch of random tokens: completions of these lengths, ``group`` per prompt, with nonzero advantages."""
    import torch

    from sfpo.types import OldPolicy, TrainBatch

    draw = rng("benchmarks", prompt_tokens, group, *lengths)
    token = partial(draw.randrange, 10, vocabulary)  # low ids are special tokens
    prompts = [[token() for _ in range(prompt_tokens)] for _ in range(len(lengths) // group)]
    return TrainBatch(
        prompt_ids=[prompt for prompt in prompts for _ in range(group)],
        completion_ids=[[token() for _ in range(length)] for length in lengths],
        advantages=torch.tensor([1.0, -1.0]).repeat(len(lengths) // 2),
        old=OldPolicy(torch.full((sum(lengths),), -10.0), entropy=1.0),
        group_size=group,
    )


def ragged_lengths(count: int, low: int, high: int) -> list[int]:
    """``count`` lengths evenly spread over [low, high], in a random order."""
    lengths = [low + round(place * (high - low) / (count - 1)) for place in range(count)]
    rng(seed_of("benchmarks", "lengths")).shuffle(lengths)
    return lengths
