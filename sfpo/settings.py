"""The settings file of each job: all that decides its result, and nothing else. ``sfpo.jobs`` writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, Field

from sfpo.config import (
    Arm,
    Benchmark,
    CheckpointChoice,
    Count,
    Dataset,
    Engine,
    Evaluate,
    GraderName,
    Model,
    ModelLimits,
    Name,
    Objective,
    Shows,
    Train,
)
from sfpo.schema import ConfigError, Schema, parse

S = TypeVar("S", bound=BaseModel)


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


class DatasetSettings(Schema):
    """data/<suite>/train/<dataset>/settings.json"""

    name: Name
    dataset: Dataset
    data_mirror: str | None


class BenchmarkSettings(Schema):
    """data/<suite>/benchmarks/<benchmark>/settings.json"""

    name: Name
    benchmark: Benchmark
    data_mirror: str | None


class ModelSettings(Schema):
    """models/<suite>/<model>/settings.json"""

    name: Name
    model: Model
    instruction: str
    warm_up_data: str | None
    """Folder of the prepared data set that a scratch model is warmed up on; None for every other source."""
    grader: GraderName
    """Of that data set."""


class RunSettings(Schema):
    """runs/<suite>/<model>/<dataset>/<arm>/seed<k>/settings.json: all that decides a run's numbers."""

    run: RunId
    model_path: str
    """Folder of the starting policy, in Hugging Face format."""
    data_path: str
    """Folder with train.parquet and validation.parquet."""
    grader: GraderName
    limits: ModelLimits
    instruction: str
    arm: Arm
    objective: Objective
    train: Train
    engine: Engine


class EvaluationSettings(Schema):
    """evaluations/<suite>/.../settings.json: the checkpoints of one run on the benchmarks of the suite."""

    model: Name
    run: RunId | None
    """None: the untrained model, the row 'base'."""
    checkpoints: Annotated[dict[Name, str], Field(min_length=1)]
    """Name (base, best, last, step_<n>) -> its folder, in Hugging Face format. All are of one architecture."""
    benchmarks: dict[Name, str]
    """Benchmark -> its parquet file."""
    graders: dict[Name, GraderName]
    limits: ModelLimits
    instruction: str
    instructions: dict[Name, str]
    """Of benchmarks that have one of their own."""
    evaluate: Evaluate
    engine: Engine


class ReportSettings(Schema):
    """results/<suite>/items/<item>/settings.json: what a table or figure shows."""

    suite: Name
    item: Name
    shows: Shows
    title: str | None
    models: list[Name]
    datasets: list[Name]
    arms: dict[Name, str]
    """Arm -> its title."""
    seeds: list[int]
    benchmarks: dict[Name, str]
    """Benchmark -> its title."""
    out_of_distribution: list[Name]
    samples: Count
    """k of avg@k and pass@k."""
    checkpoint: CheckpointChoice
    """Whose scores are shown."""
    missing: tuple[str, ...] = ()
    """Runs that a report of an unfinished suite leaves out."""

    @property
    def scored(self) -> bool:
        """It shows what lm-eval finds, not training alone."""
        return self.shows in ("scores", "arms", "contamination", "selection")

    @property
    def runs(self) -> list[RunId]:
        return [
            RunId(suite=self.suite, model=model, dataset=dataset, arm=arm, seed=seed)
            for model in self.models
            for dataset in self.datasets
            for arm in self.arms
            for seed in self.seeds
        ]


def load_settings(kind: type[S], path: str | Path) -> S:
    """Read one job's settings file.

    Raises:
        ConfigError: the file is missing, or does not fit ``kind``.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such settings file; `python -m sfpo.jobs` writes those of the active suite")
    return parse(kind, yaml.safe_load(path.read_text()), str(path))


def to_json(settings: BaseModel) -> str:
    """The text of a settings file: equal settings give equal text."""
    return settings.model_dump_json(indent=1) + "\n"


def settings_hash(settings: BaseModel) -> str:
    """sha256 of the settings file's text; outputs record the one they came from."""
    return hashlib.sha256(to_json(settings).encode()).hexdigest()
