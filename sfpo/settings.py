"""The settings file of each job: everything that determines its result, and how it is computed. ``sfpo.jobs`` writes them.

``settings_hash`` is the identity of a job's result: a hash of the settings that determine it, including the identities of its
inputs. How a job is computed (execution), paths, and titles in the report are not part of it. Each result records the identity
of its settings; if that differs from the current identity, the result is stale.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, Field

from sfpo.config import (
    Benchmark,
    CheckpointChoice,
    Count,
    Dataset,
    Engine,
    Evaluate,
    Execution,
    GraderName,
    Model,
    ModelLimits,
    Name,
    Objective,
    Sampler,
    ScratchModel,
    Train,
    at_rate,
)
from sfpo.schema import ConfigError, Schema, parse

J = TypeVar("J", bound="JobSettings")


class JobSettings(Schema):
    """Base of all settings files."""

    def identity(self) -> dict[str, Any]:
        """The settings that determine the job's result, as plain JSON values."""
        return self.model_dump(mode="json")

    def inputs(self) -> list[str]:
        """Folders of the jobs whose results this job reads."""
        return []


class RunId(Schema):
    """One training run."""

    suite: Name
    model: Name
    dataset: Name
    arm: Name
    seed: Annotated[int, Field(ge=0)]

    @property
    def path(self) -> str:
        """Folder below runs/ and evaluations/."""
        return f"{self.suite}/{self.model}/{self.dataset}/{self.arm}/seed{self.seed}"


class DatasetSettings(JobSettings):
    """data/<suite>/train/<dataset>/settings.json"""

    name: Name
    dataset: Dataset
    data_mirror: str | None
    contents: dict[str, str] = Field(default_factory=dict)
    """Part -> sha256 of its file under ``data_mirror``."""

    def identity(self) -> dict[str, Any]:
        dataset = self.dataset.model_dump(mode="json", exclude={"parts": {part: {"mirror"} for part in self.dataset.parts}})
        return {"dataset": dataset, "contents": self.contents}


class BenchmarkSettings(JobSettings):
    """data/<suite>/benchmarks/<benchmark>/settings.json"""

    name: Name
    benchmark: Benchmark
    data_mirror: str | None
    contents: dict[str, str] = Field(default_factory=dict)
    """{"rows": sha256 of their file under ``data_mirror``}."""

    def identity(self) -> dict[str, Any]:
        left_out: dict[str, bool | set[str]] = {"title": True, "out_of_distribution": True, "rows": {"mirror"}}
        return {"benchmark": self.benchmark.model_dump(mode="json", exclude=left_out), "contents": self.contents}


class ModelSettings(JobSettings):
    """models/<suite>/<model>/settings.json"""

    name: Name
    model: Model
    instruction: str
    warm_up_data: str | None
    """Folder of the prepared data set for the warm-up; None: no warm-up."""
    data: str | None
    """Identity of that data set."""
    grader: GraderName
    """Of that data set."""
    contents: dict[str, str] = Field(default_factory=dict)
    """File -> sha256, of a local model."""

    def inputs(self) -> list[str]:
        return [self.warm_up_data] if self.warm_up_data else []

    def identity(self) -> dict[str, Any]:
        learned = self.model_dump(mode="json", include={"instruction", "data", "grader"})
        if isinstance(self.model, ScratchModel):
            return {"model": self.model.model_dump(mode="json"), **learned}
        if self.model.warm_up:  # the token limits decide which examples are used
            return {"model": self.model.model_dump(mode="json", exclude={"path"}), "contents": self.contents, **learned}
        model = self.model.model_dump(mode="json", exclude={*ModelLimits.model_fields, "warm_up", "seed", "path"})
        return {"model": model, "contents": self.contents}


class RuleSettings(Schema):
    """An update rule."""

    name: str
    """A module of sfpo.algorithms.update_rules."""
    settings: dict[str, Any]
    """All of its settings, defaults included."""


class Recipe(Schema):
    """All settings that determine a run's results."""

    model: str
    """Identity of the starting policy."""
    data: str
    """Identity of the data set."""
    grader: GraderName
    limits: ModelLimits
    instruction: str
    seed: Annotated[int, Field(ge=0)]
    rule: RuleSettings
    learning_rate_scale: float
    """Factor on the optimizer's learning rate."""
    objective: Objective
    train: Train
    sampler: Sampler

    def most_sequences(self, engines: int) -> int:
        """Largest number of completions that each of ``engines`` engines samples at once. (An engine with much shorter prompts
        can get a few more; they are queued.)"""
        train, validation = self.train, self.train.validation
        training = math.ceil(train.prompts_per_step / engines) * train.completions_per_prompt
        return max(training, math.ceil(validation.prompts / engines) * validation.samples)


class RunSettings(JobSettings):
    """runs/<suite>/<model>/<dataset>/<arm>/seed<k>/settings.json"""

    run: RunId
    model_path: str
    """Folder of the starting policy, in Hugging Face format."""
    data_path: str
    """Folder with train.parquet and validation.parquet."""
    recipe: Recipe
    execution: Execution

    def inputs(self) -> list[str]:
        return [str(Path(self.model_path).parent), self.data_path]

    def identity(self) -> dict[str, Any]:
        return self.recipe.model_dump(mode="json")

    @property
    def recipe_hash(self) -> str:
        """Identity of the run without its number of steps, which can be raised later; saved states are stored under it."""
        return _hash(self.recipe.model_dump(mode="json", exclude={"train": {"steps"}}))


class EvaluationSettings(JobSettings):
    """evaluations/<suite>/.../settings.json: the checkpoints of one run on the benchmarks of the suite."""

    model: Name
    run: RunId | None
    """None: the untrained model, the row 'base'."""
    policy: str
    """Identity of the run, or of the untrained model."""
    checkpoints: Annotated[dict[Name, str], Field(min_length=1)]
    """Name (base, best, last, step_<n>) -> its folder, in Hugging Face format. All are of one architecture."""
    benchmarks: dict[Name, str]
    """Benchmark -> its parquet file."""
    problems: dict[Name, str]
    """Benchmark -> its identity."""
    graders: dict[Name, GraderName]
    limits: ModelLimits
    instruction: str
    instructions: dict[Name, str]
    """Benchmark -> its own instruction, where it has one."""
    evaluate: Evaluate
    sampler: Sampler
    engine: Engine

    def inputs(self) -> list[str]:
        policy = f"runs/{self.run.path}" if self.run else str(Path(next(iter(self.checkpoints.values()))).parent)
        return [policy, *(str(Path(problems).parent) for problems in self.benchmarks.values())]

    def identity(self) -> dict[str, Any]:
        left_out = {"checkpoint", "samples_of"}  # what the report shows; k of each benchmark is added below
        evaluate = self.evaluate.model_dump(mode="json", exclude=left_out)
        own = {name: k for name, k in sorted(self.evaluate.samples_of.items()) if name in self.problems}
        return {
            **self.model_dump(mode="json", include={"policy", "limits", "instruction", "instructions", "sampler"}),
            "problems": {name: [self.problems[name], self.graders[name]] for name in sorted(self.problems)},
            "checkpoints": sorted(self.checkpoints),
            "evaluate": {**evaluate, **({"samples_of": own} if own else {})},
        }


class ArmStep(Schema):
    """The settings of one arm's step that differ between arms."""

    rule: RuleSettings
    learning_rate_scale: float
    objective: Objective


class TrajectorySettings(JobSettings):
    """evaluations/<suite>/<model>/<dataset>/trajectory-<item>/settings.json: one step of several arms from one policy."""

    start: RunSettings
    """The run whose last checkpoint the step starts from; batch, Adam moments and loss contours use its recipe."""
    arms: dict[Name, ArmStep]

    @property
    def checkpoint(self) -> str:
        """Folder of the policy that the step starts from."""
        return f"runs/{self.start.run.path}/last"

    def inputs(self) -> list[str]:
        return [f"runs/{self.start.run.path}", self.start.data_path]

    def identity(self) -> dict[str, Any]:
        return {"start": settings_hash(self.start), **self.model_dump(mode="json", include={"arms"})}


class ReportSettings(JobSettings):
    """results/<suite>/items/<item>/settings.json: the content of a table or figure."""

    suite: Name
    item: Name
    shows: Name
    """The kind: a module of eval.report.kinds."""
    scored: bool
    """Whether it shows benchmark scores (by lm-eval), not only training metrics."""
    title: str | None
    models: list[Name]
    datasets: list[Name]
    arms: dict[Name, str]
    """Arm -> its title."""
    seeds: list[int]
    benchmarks: dict[Name, str]
    """Benchmark -> its title."""
    out_of_distribution: list[Name]
    samples: dict[Name, Count]
    """Benchmark -> k of its avg@k and pass@k."""
    checkpoint: CheckpointChoice
    """The checkpoint whose scores are shown."""
    learning_rate_scales: tuple[float, ...] = (1.0,)
    """Multiples of the suite's learning rate at which each arm is shown."""
    base: dict[Name, str]
    """Model -> folder of the evaluation of the untrained model."""
    made_from: dict[str, str] = Field(default_factory=dict)
    """Folder -> identity of every run, evaluation and data set that it reads."""
    missing: tuple[str, ...] = ()
    """Runs that are missing from the report of an unfinished suite."""

    def inputs(self) -> list[str]:
        return list(self.made_from)

    @property
    def runs(self) -> list[RunId]:
        return [
            RunId(suite=self.suite, model=model, dataset=dataset, arm=at_rate(arm, scale), seed=seed)
            for model in self.models
            for dataset in self.datasets
            for arm in self.arms
            for scale in self.learning_rate_scales
            for seed in self.seeds
        ]

    def trajectory(self, model: str, dataset: str) -> str:
        """Folder of the recorded step of an item that shows one."""
        return f"evaluations/{self.suite}/{model}/{dataset}/trajectory-{self.item}"


class PageSettings(JobSettings):
    """results/<suite>/pages/<page>/settings.json: a page made from all tables and figures of a suite."""

    suite: Name
    page: Name
    items: dict[Name, str]
    """Table or figure -> its identity."""

    def inputs(self) -> list[str]:
        return [f"results/{self.suite}/items/{item}" for item in self.items]


def load_settings(kind: type[J], path: str | Path, identity: str | None = None) -> J:
    """Read one job's settings file.

    Args:
        identity: expected ``settings_hash``; None: not checked.

    Raises:
        ConfigError: the file is missing or invalid, or its hash is not ``identity``.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such settings file; `python -m sfpo.jobs --write` writes those of the active suite")
    settings = parse(kind, yaml.safe_load(path.read_text()), str(path))
    if identity is not None and settings_hash(settings) != identity:
        raise ConfigError(f"{path}: changed since the workflow started; start the workflow again")
    return settings


def to_json(settings: BaseModel) -> str:
    """The text of a settings file: equal settings give equal text."""
    return settings.model_dump_json(indent=1) + "\n"


def settings_hash(settings: JobSettings) -> str:
    """Identity of the job's result: hex sha256 of ``identity``."""
    return _hash(settings.identity())


def _hash(content: dict[str, Any]) -> str:
    """The order of keys matters: that of a table's arms or a data set's parts is visible in the result."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
