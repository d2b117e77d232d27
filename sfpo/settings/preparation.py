"""Settings of the jobs that prepare data and starting models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from sfpo.config import Benchmark, Dataset, Difficulty, Engine, GraderName, Model, ModelLimits, Name, Sampler, ScratchModel
from sfpo.settings.job import JobSettings


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


class FilterSettings(JobSettings):
    """data/<suite>/filtered/<model>+<dataset>/settings.json: a training set without rows too easy or too hard for a model."""

    model_path: str
    """Folder of the starting policy, in Hugging Face format."""
    model: str
    """Identity of the starting policy."""
    data_path: str
    """Folder with train.parquet and validation.parquet."""
    data: str
    """Identity of the data set."""
    grader: GraderName
    limits: ModelLimits
    instruction: str
    difficulty: Difficulty
    sampler: Sampler
    engine: Engine

    def inputs(self) -> list[str]:
        return [str(Path(self.model_path).parent), self.data_path]

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"model_path", "data_path", "engine"})
