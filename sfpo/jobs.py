"""From params.yaml to the settings file of every job: ``python -m sfpo.jobs`` checks params.yaml and writes them.

A settings file holds all that decides a job's result, so that the workflow's question "is this result stale?" becomes one about
files: the file's content changes exactly when the job must run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.config import (
    Arm,
    CheckpointChoice,
    LocalModel,
    ModelLimits,
    Override,
    Params,
    ScratchModel,
    Train,
    load_params,
    merged,
)
from sfpo.data.prompts import require_chat_template
from sfpo.data.sources import check_mirror
from sfpo.manifest import write_text
from sfpo.rewards.graders import make_grader
from sfpo.schema import ConfigError
from sfpo.settings import (
    BenchmarkSettings,
    DatasetSettings,
    EvaluationSettings,
    ModelSettings,
    ReportSettings,
    RunId,
    RunSettings,
    to_json,
)

T = TypeVar("T")


def check(params: Params) -> None:
    """All that can be known to fail before the first job: rule settings, mirror files, local models.

    Raises:
        ConfigError: names the key, the value and the remedy.
    """
    for name, arm in params.arms.items():
        _check_rule(f"arms.{name}", arm)
    settings = list(resolve(params).values())
    for run in settings:
        if isinstance(run, RunSettings):
            _check_rule(f"suites.{params.suite}.overrides: arm {run.run.arm}", run.arm)
    tables = [one for one in settings if isinstance(one, DatasetSettings)]
    for one in tables:
        for rows in one.dataset.parts.values():
            check_mirror(rows, params.data_mirror)
    benchmarks = [one.benchmark for one in settings if isinstance(one, BenchmarkSettings)]
    for benchmark in benchmarks:
        check_mirror(benchmark.rows, params.data_mirror, "test")
    if any(one.grader == "code" for one in [*(one.dataset for one in tables), *benchmarks]):
        _check_isolation()
    for one in settings:
        if isinstance(one, ModelSettings) and isinstance(one.model, LocalModel):
            require_chat_template(Path(one.model.path))


def _check_rule(key: str, arm: Arm) -> None:
    try:
        make_update_rule(arm.rule, **arm.rule_settings)
    except ValueError as error:
        raise ConfigError(f"{key}.{error}") from None
    except TypeError as error:  # a word or a list where the rule compares numbers
        raise ConfigError(f"{key} = {arm.rule_settings}: a value has the wrong type ({error})") from None


def _check_isolation() -> None:
    with make_grader("code", workers=1) as grader:
        try:
            grader.check_isolation()
        except RuntimeError as error:
            raise ConfigError(f"grader = 'code': {error}") from None


def resolve(params: Params) -> dict[str, BaseModel]:
    """Path of a settings file -> its content, for every job of the active suite."""
    return dict(_resolve(params))


def _resolve(params: Params) -> Iterator[tuple[str, BaseModel]]:
    suite, items = params.active, reports(params)
    for name in union(item.datasets for item in items):
        settings = DatasetSettings(name=name, dataset=params.datasets[name], data_mirror=params.data_mirror)
        yield f"data/{params.suite}/train/{name}/settings.json", settings
    for name in union(item.benchmarks for item in items if item.scored):
        settings = BenchmarkSettings(name=name, benchmark=params.benchmarks[name], data_mirror=params.data_mirror)
        yield f"data/{params.suite}/benchmarks/{name}/settings.json", settings
    for name in union(item.models for item in items):
        model, dataset = params.models[name], next(item.datasets[0] for item in items if name in item.models)
        settings = ModelSettings(
            name=name,
            model=model,
            instruction=suite.instruction,
            warm_up_data=f"data/{params.suite}/train/{dataset}" if isinstance(model, ScratchModel) else None,
            grader=params.datasets[dataset].grader,
        )
        yield f"models/{params.suite}/{name}/settings.json", settings
    scored = [item for item in items if item.scored]
    for name in union(item.models for item in scored):
        benchmarks = union(item.benchmarks for item in scored if name in item.models)
        checkpoints = {"base": f"models/{params.suite}/{name}/checkpoint"}
        yield f"evaluations/{params.suite}/{name}/base/settings.json", _evaluation(params, name, None, checkpoints, benchmarks)
    for run in runs(items):
        yield f"runs/{run.path}/settings.json", _run(params, run)
    for run in runs(scored):
        showing = [item for item in scored if run in item.runs]
        benchmarks, checkpoints = union(item.benchmarks for item in showing), _checkpoints(params, run, showing)
        yield f"evaluations/{run.path}/settings.json", _evaluation(params, run.model, run, checkpoints, benchmarks)
    for item in items:
        yield f"results/{params.suite}/items/{item.item}/settings.json", item


def reports(params: Params) -> list[ReportSettings]:
    """The tables and figures of the active suite."""
    suite = params.active
    return [
        ReportSettings(
            suite=params.suite,
            item=name,
            shows=item.shows,
            title=item.title,
            models=item.models or suite.models,
            datasets=item.datasets or suite.datasets,
            arms={arm: params.arms[arm].title or arm.upper() for arm in item.arms or suite.arms},
            seeds=suite.seeds,
            benchmarks={one: params.benchmarks[one].title for one in item.benchmarks or suite.benchmarks},
            out_of_distribution=[
                one for one in item.benchmarks or suite.benchmarks if params.benchmarks[one].out_of_distribution
            ],
            samples=suite.evaluate.samples,
            checkpoint=suite.evaluate.checkpoint,
        )
        for name, item in suite.items.items()
    ]


def runs(items: Iterable[ReportSettings]) -> list[RunId]:
    """The runs that these tables and figures show, each once."""
    return union(item.runs for item in items)


def union(lists: Iterable[Iterable[T]]) -> list[T]:
    """Each element once, in the order of first appearance."""
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _run(params: Params, run: RunId) -> RunSettings:
    suite, arm = params.active, params.arms[run.arm]
    rule = arm.model_dump()
    for override in _overrides(params, run):
        rule |= override.rule
    return RunSettings(
        run=run,
        model_path=f"models/{run.suite}/{run.model}/checkpoint",
        data_path=f"data/{run.suite}/train/{run.dataset}",
        grader=params.datasets[run.dataset].grader,
        limits=_limits(params, run.model, run),
        instruction=_instruction(params, run),
        arm=Arm.model_validate(rule),
        objective=params.objectives[arm.objective],
        train=_train(params, run),
        engine=suite.engine,
    )


def _train(params: Params, run: RunId) -> Train:
    train = params.active.train.model_dump()
    for override in _overrides(params, run):
        train = merged(train, override.train)
    return Train.model_validate(train)


def _overrides(params: Params, run: RunId) -> list[Override]:
    return [one for one in params.active.overrides if one.concerns(run.model, run.dataset, run.arm)]


def _checkpoints(params: Params, run: RunId, showing: list[ReportSettings]) -> dict[str, str]:
    """Those that the tables and figures show, or choose from."""
    among = [f"exports/step_{step}" for step in _train(params, run).exported_steps] + ["last"]
    choices: dict[CheckpointChoice, list[str]] = {"best": ["best"], "last": ["last"]}
    asked = union(["best", *among] if item.shows == "selection" else choices.get(item.checkpoint, among) for item in showing)
    return {Path(name).name: f"runs/{run.path}/{name}" for name in asked}


def _evaluation(
    params: Params, model: str, run: RunId | None, checkpoints: dict[str, str], benchmarks: list[str]
) -> EvaluationSettings:
    suite = params.active
    return EvaluationSettings(
        model=model,
        run=run,
        checkpoints=checkpoints,
        benchmarks={name: f"data/{params.suite}/benchmarks/{name}/problems.parquet" for name in benchmarks},
        graders={name: params.benchmarks[name].grader for name in benchmarks},
        limits=_limits(params, model, run),
        instruction=_instruction(params, run),
        instructions={name: own for name in benchmarks if (own := params.benchmarks[name].instruction)},
        evaluate=suite.evaluate,
        engine=suite.engine,
    )


def _instruction(params: Params, run: RunId | None) -> str:
    changed = [override.instruction for override in _overrides(params, run) if override.instruction] if run else []
    return changed[-1] if changed else params.active.instruction


def _limits(params: Params, model: str, run: RunId | None) -> ModelLimits:
    """The model's own, unless an override says otherwise; the untrained model always has its own."""
    limits = params.models[model].model_dump(include=set(ModelLimits.model_fields))
    for override in _overrides(params, run) if run else []:
        limits |= override.model_dump(include=set(limits), exclude_none=True)
    return ModelLimits.model_validate(limits)


def runs_by_item(items: list[ReportSettings]) -> str:
    """For each table and figure: the training runs that it shows, and those of them that no earlier one has asked for."""
    lines, known = [], set()
    for item in items:
        parts = [(item.models, "model"), (item.datasets, "data set"), (item.arms, "arm"), (item.seeds, "seed")]
        matrix = " x ".join(f"{len(names)} {word}{'s' * (len(names) > 1)}" for names, word in parts)
        new = [run for run in item.runs if run not in known]
        known.update(new)
        evaluated = f", evaluated on {len(item.benchmarks)} benchmarks" if item.scored else ""
        lines.append(f"  {item.item:<10} {len(item.runs):>3} runs ({matrix}), {len(new)} of them new{evaluated}")
    return "\n".join([f"{len(known)} training runs:", *lines])


def write_settings(settings: dict[str, BaseModel], root: Path = Path(".")) -> list[str]:
    """Write each settings file whose content is not that already; returns the paths written."""
    written = []
    for path, content in settings.items():
        text = to_json(content)
        if not (root / path).is_file() or (root / path).read_text() != text:
            write_text(root / path, text)
            written.append(path)
    return written


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--suite", help="this one in place of the file's")
    arguments = parser.parse_args(argv)
    try:
        params = load_params(arguments.params, arguments.suite)
        check(params)
    except ConfigError as error:
        sys.exit(str(error))
    settings = resolve(params)
    written = write_settings(settings)
    print(f"suite {params.suite}: {len(settings)} jobs, {len(written)} settings files written or changed")
    print(runs_by_item(reports(params)))
    for path in settings:
        print(f"  {path}{'  (new)' if path in written else ''}")


if __name__ == "__main__":
    main()
