"""Resolves params.yaml into the settings of every job of a suite."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from eval.report.kinds import find_kind
from sfpo.algorithms.update_rules import complete_settings
from sfpo.config import (
    Benchmark,
    CheckpointChoice,
    Dataset,
    Difficulty,
    GeneratedRows,
    LocalModel,
    Params,
    TableRows,
)
from sfpo.config.changes import merged
from sfpo.data.sources import mirror_files
from sfpo.jobs.items import recorded, reports, runs, union
from sfpo.jobs.overrides import instruction_of, limits_of, overridden, overrides_of, train_of
from sfpo.manifest import content_sha256
from sfpo.schema import ConfigError
from sfpo.settings import (
    ArmStep,
    BenchmarkSettings,
    DatasetSettings,
    EvaluationSettings,
    FilterSettings,
    JobSettings,
    ModelSettings,
    PageSettings,
    Recipe,
    ReportSettings,
    RuleSettings,
    RunId,
    RunSettings,
    TrajectorySettings,
    settings_hash,
)

PAGES = ("metrics", "runs_page", "completions_page", "report_page")
"""Pages made from all tables and figures of a suite."""


def resolve(params: Params) -> dict[str, JobSettings]:
    """Path of a settings file -> its content, for every job of the active suite, in topological order (inputs first).

    Raises:
        ConfigError: settings are incompatible with each other, or a mirror file or local model is missing.
    """
    return dict(_Resolver(params).jobs())


class _Resolver:
    """The jobs of the active suite; ``identities`` has those of the jobs resolved so far, by folder."""

    def __init__(self, params: Params) -> None:
        self.params, self.suite, self.items = params, params.active, reports(params)
        self.scored = [item for item in self.items if item.scored]
        self.identities: dict[str, str] = {}

    def jobs(self) -> Iterator[tuple[str, JobSettings]]:
        """Each job's settings file and settings."""
        for folder, settings in self._jobs():
            self.identities[folder] = settings_hash(settings)
            yield f"{folder}/settings.json", settings

    def _jobs(self) -> Iterator[tuple[str, JobSettings]]:
        """Folder and settings."""
        params, name_of_suite = self.params, self.params.suite
        models = union(item.models for item in self.items)
        for name in datasets(params):
            yield self._data(name), _dataset(name, params.datasets[name], params.data_mirror)
        for name in union(item.benchmarks for item in self.scored):
            yield self._problems(name), _benchmark(name, params.benchmarks[name], params.data_mirror)
        for name in models:
            yield self._model_folder(name), self._model(name)
        if self.suite.difficulty:
            for model, dataset in dict.fromkeys((run.model, run.dataset) for run in runs(self.items)):
                yield self._training_data(model, dataset), self._filter(model, dataset, self.suite.difficulty)
        for run in runs(self.items):
            yield f"runs/{run.path}", self._run(run)
        for folder, run in self._untrained().items():
            yield folder, self._evaluation(folder, run, trained=False)
        for run in runs(self.scored):
            yield f"evaluations/{run.path}", self._evaluation(f"evaluations/{run.path}", run, trained=True)
        for item in self.items:
            for model, dataset in recorded(item):
                yield item.trajectory(model, dataset), self._trajectory(item, model, dataset)
        for item in self.items:
            made_from = {folder: self.identities[folder] for folder in self._read_by(item)}
            yield self._item(item.item), item.model_copy(update={"made_from": made_from})
        for page in PAGES:
            identities = {item.item: self.identities[self._item(item.item)] for item in self.items}
            yield f"results/{name_of_suite}/pages/{page}", PageSettings(suite=name_of_suite, page=page, items=identities)

    def _item(self, name: str) -> str:
        return f"results/{self.params.suite}/items/{name}"

    def _data(self, name: str) -> str:
        return f"data/{self.params.suite}/train/{name}"

    def _training_data(self, model: str, dataset: str) -> str:
        """The folder of the rows that a model is trained on."""
        return f"data/{self.params.suite}/filtered/{model}+{dataset}" if self.suite.difficulty else self._data(dataset)

    def _problems(self, name: str) -> str:
        return f"data/{self.params.suite}/benchmarks/{name}"

    def _model_folder(self, name: str) -> str:
        return f"models/{self.params.suite}/{name}"

    def _untrained(self) -> dict[str, RunId]:
        """Folder of each evaluation of an untrained model -> one of the runs that are compared with it."""
        return {item.base[run.model]: run for item in reversed(self.scored) for run in reversed(item.runs)}

    def _read_by(self, item: ReportSettings) -> list[str]:
        """Folders of the jobs whose results an item reads."""
        read = [f"runs/{run.path}" for run in item.runs]
        if item.scored:
            read += [f"evaluations/{run.path}" for run in item.runs] + union([item.base.values()])
        read += [item.trajectory(*group) for group in recorded(item)]
        if find_kind(item.shows).reads_texts:
            read += [*map(self._data, item.datasets), *map(self._problems, item.benchmarks)]
        return read

    def _model(self, name: str) -> ModelSettings:
        model = self.params.models[name]
        dataset = model.warm_up.dataset if model.warm_up else None
        return ModelSettings(
            name=name,
            model=model,
            instruction=self.suite.instruction,
            warm_up_data=self._data(dataset) if dataset else None,
            data=self.identities[self._data(dataset)] if dataset else None,
            grader=self.params.datasets[dataset].grader if dataset else "math",
            contents=_local_files(Path(model.path)) if isinstance(model, LocalModel) else {},
        )

    def _filter(self, model: str, dataset: str, difficulty: Difficulty) -> FilterSettings:
        """One filter for the runs of all arms, with the overrides that apply to every arm."""
        concerning = overrides_of(self.params, model, dataset, None)
        folder = self._training_data(model, dataset)
        return FilterSettings(
            model_path=f"{self._model_folder(model)}/checkpoint",
            model=self.identities[self._model_folder(model)],
            data_path=self._data(dataset),
            data=self.identities[self._data(dataset)],
            grader=self.params.datasets[dataset].grader,
            limits=limits_of(self.params, model, concerning),
            instruction=instruction_of(self.params, concerning),
            difficulty=difficulty,
            sampler=self.suite.sampler,
            engine=overridden(self.suite.execution, concerning, "execution", folder).engine,
        )

    def _run(self, run: RunId) -> RunSettings:
        params, (name, scale) = self.params, self.params.scaled_arms.get(run.arm, (run.arm, 1.0))
        arm, concerning = params.arms[name].at(scale), overrides_of(params, run.model, run.dataset, run.arm)
        where = f"suites.{run.suite}.overrides, together, for {run.path}"
        rule = reduce(merged, (one.rule for one in concerning), arm.rule_settings)
        complete = checked_rule(arm.rule, rule, f"{where}: rule" if rule != arm.rule_settings else f"arms.{name}")
        recipe = Recipe(
            model=self.identities[self._model_folder(run.model)],
            data=self.identities[self._training_data(run.model, run.dataset)],
            grader=params.datasets[run.dataset].grader,
            limits=limits_of(params, run.model, concerning),
            instruction=instruction_of(params, concerning),
            seed=run.seed,
            rule=RuleSettings(name=arm.rule, settings=complete),
            learning_rate_scale=arm.learning_rate_scale,
            objective=overridden(params.objectives[arm.objective], concerning, "objective", where),
            train=train_of(params, concerning, where),
            sampler=self.suite.sampler,
        )
        return RunSettings(
            run=run,
            model_path=f"{self._model_folder(run.model)}/checkpoint",
            data_path=self._training_data(run.model, run.dataset),
            recipe=recipe,
            execution=overridden(self.suite.execution, concerning, "execution", where),
        )

    def _evaluation(self, folder: str, run: RunId, trained: bool) -> EvaluationSettings:
        """Evaluation of a run, or of the untrained model with the prompts and token limits of that run."""
        params, of_model = self.params, self._model_folder(run.model)
        concerning = overrides_of(params, run.model, run.dataset, run.arm)
        showing = [item for item in self.scored if (run in item.runs if trained else item.base.get(run.model) == folder)]
        names = union(item.benchmarks for item in showing)
        return EvaluationSettings(
            model=run.model,
            run=run if trained else None,
            policy=self.identities[f"runs/{run.path}" if trained else of_model],
            checkpoints=_checkpoints(params, run, showing) if trained else {"base": f"{of_model}/checkpoint"},
            benchmarks={name: f"{self._problems(name)}/problems.parquet" for name in names},
            problems={name: self.identities[self._problems(name)] for name in names},
            graders={name: params.benchmarks[name].grader for name in names},
            limits=limits_of(params, run.model, concerning),
            instruction=instruction_of(params, concerning),
            instructions={name: own for name in names if (own := params.benchmarks[name].instruction)},
            evaluate=self.suite.evaluate,
            sampler=self.suite.sampler,
            engine=overridden(self.suite.execution, concerning, "execution", folder).engine,
        )

    def _trajectory(self, item: ReportSettings, model: str, dataset: str) -> TrajectorySettings:
        seed = item.seeds[0]
        of_arms = {
            arm: self._run(RunId(suite=item.suite, model=model, dataset=dataset, arm=arm, seed=seed)) for arm in item.arms
        }
        steps = {
            arm: ArmStep(
                rule=run.recipe.rule, learning_rate_scale=run.recipe.learning_rate_scale, objective=run.recipe.objective
            )
            for arm, run in of_arms.items()
        }
        return TrajectorySettings(start=list(of_arms.values())[:2][-1], arms=steps)


def checked_rule(name: str, settings: dict[str, Any], key: str) -> dict[str, Any]:
    """All settings of an update rule, defaults included.

    Raises:
        ConfigError: one is invalid; the message begins with ``key``.
    """
    try:
        return complete_settings(name, settings)
    except ValueError as error:
        raise ConfigError(f"{key}.{error}") from None
    except TypeError as error:
        raise ConfigError(f"{key} = {settings}: a value has the wrong type ({error})") from None


def datasets(params: Params) -> list[str]:
    """Data sets for training or warm-up."""
    items = reports(params)
    models = [params.models[name] for name in union(item.models for item in items)]
    warming = [model.warm_up.dataset for model in models if model.warm_up]
    return union([*(item.datasets for item in items), warming])


def _dataset(name: str, dataset: Dataset, data_mirror: str | None) -> DatasetSettings:
    contents = {part: digest for part, rows in dataset.parts.items() if (digest := _digest(rows, data_mirror))}
    return DatasetSettings(name=name, dataset=dataset, data_mirror=data_mirror, contents=contents)


def _benchmark(name: str, benchmark: Benchmark, data_mirror: str | None) -> BenchmarkSettings:
    digest = _digest(benchmark.rows, data_mirror)
    contents = {"rows": digest} if digest else {}
    return BenchmarkSettings(name=name, benchmark=benchmark, data_mirror=data_mirror, contents=contents)


def _digest(rows: GeneratedRows | TableRows, data_mirror: str | None) -> str | None:
    """Digests of the mirror files, in order; None: there are none."""
    digests = [content_sha256(path) for path in mirror_files(rows, data_mirror)]
    return " ".join(digests) or None


def _local_files(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; it should contain a local model")
    return {path.name: content_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _checkpoints(params: Params, run: RunId, showing: list[ReportSettings]) -> dict[str, str]:
    """Name -> folder of the checkpoints that the tables and figures show or select from."""
    train = train_of(params, overrides_of(params, run.model, run.dataset, run.arm), run.path)
    among = [f"exports/step_{step}" for step in train.exported_steps] + ["last"]
    choices: dict[CheckpointChoice, list[str]] = {"best": ["best"], "last": ["last"]}
    chosen = [find_kind(item.shows).all_checkpoints or item.checkpoint not in choices for item in showing]
    if any(chosen) and train.export_every is None:
        where = f"suites.{params.suite}.overrides, together, for {run.path}"
        raise ConfigError(f"{where}: train.export_every must be set: a table selects among the checkpoints that it keeps")
    asked = union(
        ["best", *among] if find_kind(item.shows).all_checkpoints else choices.get(item.checkpoint, among) for item in showing
    )
    return {Path(name).name: f"runs/{run.path}/{name}" for name in asked}
