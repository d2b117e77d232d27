"""Settings of tables, figures and pages."""

from __future__ import annotations

from pydantic import Field

from sfpo.config import CheckpointChoice, Count, Name, at_rate
from sfpo.settings.job import JobSettings
from sfpo.settings.training import RunId


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
