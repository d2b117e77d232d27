"""Suites: tables and figures, and their runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sfpo.config.changes import changed
from sfpo.config.execution import Execution
from sfpo.config.methods import Arm
from sfpo.config.names import Count, Instruction, Name, Names, Whole
from sfpo.config.recipe import Difficulty, Sampler, Sampling, Train
from sfpo.schema import Schema

CheckpointChoice = Literal["best", "last", "best_on_benchmarks", "best_on_other_folds"]
"""Which checkpoint of a run is reported. best: highest accuracy on held-out rows of the training set. last. best_on_benchmarks:
of the checkpoints that ``train.export_every`` keeps, that with the highest average on the reported benchmarks (as in the paper;
biased upward). best_on_other_folds: the same with 10-fold cross-validation, each fold scored by the checkpoint best on the
other nine."""


class Evaluate(Schema):
    """Scoring of checkpoints on the suite's benchmarks."""

    samples: Count
    """k of avg@k and pass@k."""
    samples_of: Annotated[dict[Name, Count], Field(default_factory=dict)]
    """Benchmark -> its own k. A small benchmark needs a larger k: `python -m eval.power` computes it."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.7)
    checkpoint: CheckpointChoice = "best"
    """Which checkpoint of a run is reported (see CheckpointChoice)."""
    limit: Count | None = None
    """Number of problems per benchmark, from the start. None: all."""
    seed: Annotated[int, Field(strict=True)] = 0
    """Seed of the samples."""

    def samples_for(self, benchmark: str) -> int:
        """k of one benchmark."""
        return self.samples_of.get(benchmark, self.samples)


ItemName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""A name, also used as a workflow target: lower case letters, digits and '_'."""


Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Item(Schema):
    """A table or figure, and its runs. Lists default to those of the suite."""

    shows: Name
    """The kind of table or figure: a module of eval.report.kinds."""
    title: str | None = None
    """Title (of scores, curves, dynamics, arms). None: a default of the kind."""
    models: Names | None = None
    """Keys of ``models``; None: the suite's."""
    datasets: Names | None = None
    """Keys of ``datasets``; None: the suite's."""
    arms: Names | None = None
    """Keys of ``arms``, the first being the baseline; None: the suite's."""
    benchmarks: Names | None = None
    """Keys of ``benchmarks``; None: the suite's."""
    learning_rate_scales: Annotated[list[Scale], Field(min_length=1)] | None = None
    """Factors on the suite's learning rate: each arm is trained with each of them. None: 1 only."""

    @model_validator(mode="after")
    def _scales_differ(self) -> Item:
        scales = self.learning_rate_scales or []
        if len({f"{scale:g}" for scale in scales}) < len(scales):
            raise ValueError(f"learning_rate_scales {scales}: must differ in their first six digits")
        return self


class Override(Schema):
    """Settings of some of a suite's runs that differ from the rest. Later overrides take precedence."""

    models: Names | None = None
    """Keys of ``models``; None: all. The override applies to the runs of these models, data sets and arms."""
    datasets: Names | None = None
    """Keys of ``datasets``; None: all."""
    arms: Names | None = None
    """Keys of ``arms``; None: all."""
    rule: dict[str, Any] = Field(default_factory=dict)
    """Settings of the update rule. (For another rule or objective define another arm.)"""
    objective: dict[str, Any] = Field(default_factory=dict)
    """Keys of the objective, merged key by key."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Keys of ``train``, merged key by key."""
    execution: dict[str, Any] = Field(default_factory=dict)
    """Keys of ``execution``, merged key by key, except ``resources`` and ``engine.tensor_parallel``."""
    instruction: Instruction | None = None
    """Overrides the suite's instruction."""
    max_prompt_tokens: Count | None = None
    """Overrides the model's."""
    max_completion_tokens: Count | None = None
    """Overrides the model's."""

    @model_validator(mode="after")
    def _settings_alone(self) -> Override:
        for key in self.rule:
            if key in Arm.model_fields:
                raise ValueError(
                    f"rule.{key}: an override changes settings of the arm's rule only; for another {key} define another arm"
                )
        engine = self.execution.get("engine")
        of_suite = {"resources": self.execution, "engine.tensor_parallel": engine if isinstance(engine, dict) else {}}
        for key, given in of_suite.items():
            if key.rpartition(".")[2] in given:
                raise ValueError(f"execution.{key}: must be the same for all jobs of a suite; use another suite for these runs")
        return self

    def concerns(self, model: str, dataset: str, arm: str | None) -> bool:
        """Whether it applies to this run; without an arm: whether it applies to the runs of every arm."""
        lists = ((self.models, model), (self.datasets, dataset), (self.arms, arm))
        return all(names is None or name in names for names, name in lists)


LISTS = ("models", "datasets", "arms", "benchmarks")
"""Lists of names of other sections, which an item may override."""


class Suite(Schema):
    """Tables and figures, and their runs: models x datasets x arms x seeds, evaluated on benchmarks."""

    items: Annotated[dict[ItemName, Item], Field(min_length=1)]
    """Name -> table or figure. The runs of the suite are those of its items; shared runs are trained once."""
    models: Names
    """Keys of ``models``: the starting policies."""
    datasets: Names
    """Keys of ``datasets``: the training sets."""
    arms: Names
    """Keys of ``arms``; the first is the baseline of comparisons."""
    seeds: Annotated[list[Whole], Field(min_length=1)]
    """Training seeds."""
    benchmarks: Names
    """Keys of ``benchmarks``: the test sets on which checkpoints are evaluated."""
    overrides: list[Override] = Field(default_factory=list)
    """Different settings for some of the runs. Later overrides take precedence."""
    instruction: Instruction
    """User turn of the prompts, in training and evaluation; {problem} is replaced by the problem."""
    difficulty: Difficulty | None = None
    """Filter of the training rows by the starting policy's pass rate. None: train on all rows."""
    train: Train
    evaluate: Evaluate
    sampler: Sampler = Sampler()
    execution: Execution

    @model_validator(mode="after")
    def _no_repeats(self) -> Suite:
        lists = {key: getattr(self, key) for key in (*LISTS, "seeds")}
        lists |= {f"items.{name}.{key}": getattr(item, key) or [] for name, item in self.items.items() for key in LISTS}
        for key, values in lists.items():
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(f"{key} names {', '.join(repeated)} twice")
        return self

    @model_validator(mode="after")
    def _there_are_checkpoints_to_choose_from(self) -> Suite:
        if self.train.export_every is None and self.evaluate.checkpoint.startswith("best_on"):
            choice = f"evaluate.checkpoint = {self.evaluate.checkpoint}"
            raise ValueError(f"train.export_every must be set: {choice} selects among the checkpoints that it keeps")
        return self

    @model_validator(mode="after")
    def _samples_are_of_benchmarks(self) -> Suite:
        known = {*self.benchmarks, *(name for item in self.items.values() for name in item.benchmarks or [])}
        for name, samples in self.evaluate.samples_of.items():
            if name not in known:
                raise ValueError(f"evaluate.samples_of.{name} = {samples}: allowed are {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _overrides_fit(self) -> Suite:
        for place, override in enumerate(self.overrides):
            for part in ("train", "execution"):
                changed(getattr(self, part), getattr(override, part), f"overrides[{place}].{part}")
        return self

    @model_validator(mode="after")
    def _a_library_holds_whole_models(self) -> Suite:
        together = self.execution.engine.tensor_parallel
        if self.sampler.library == "transformers" and together > 1:
            raise ValueError(f"execution.engine.tensor_parallel {together} needs sampler.library vllm")
        return self
