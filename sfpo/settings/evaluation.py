"""Settings of the jobs that evaluate checkpoints and record a step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sfpo.config import Engine, Evaluate, GraderName, ModelLimits, Name, Objective, Sampler
from sfpo.schema import Schema
from sfpo.settings.job import JobSettings, settings_hash
from sfpo.settings.training import RuleSettings, RunId, RunSettings


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
