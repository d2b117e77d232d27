"""Settings of a training run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sfpo.config import Execution, GraderName, ModelLimits, Name, Objective, Sampler, Train
from sfpo.schema import Schema
from sfpo.settings.job import JobSettings, content_hash


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
        return content_hash(self.recipe.model_dump(mode="json", exclude={"train": {"steps"}}))
