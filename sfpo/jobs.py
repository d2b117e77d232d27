"""From params.yaml to the settings file of every job: ``python -m sfpo.jobs`` checks params.yaml and writes them.

A settings file holds all that decides a job's result, so that the workflow's question "is this result stale?" becomes one about
files: the file's content changes exactly when the job must run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.config import LocalModel, ModelLimits, Params, ScratchModel, load_params
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


def check(params: Params) -> None:
    """All that can be known to fail before the first job: rule settings, mirror files, local models.

    Raises:
        ConfigError: names the key, the value and the remedy.
    """
    for name, arm in params.arms.items():
        try:
            make_update_rule(arm.rule, **arm.rule_settings)
        except ValueError as error:
            raise ConfigError(f"arms.{name}.{error}") from None
        except TypeError as error:  # a word or a list where the rule compares numbers
            raise ConfigError(f"arms.{name} = {arm.rule_settings}: a value has the wrong type ({error})") from None
    suite = params.active
    for name in suite.datasets:
        for rows in params.datasets[name].parts.values():
            check_mirror(rows, params.data_mirror)
    for name in suite.benchmarks:
        check_mirror(params.benchmarks[name].rows, params.data_mirror, "test")
    graded = [*(params.datasets[name] for name in suite.datasets), *(params.benchmarks[name] for name in suite.benchmarks)]
    if any(one.grader == "code" for one in graded):
        _check_isolation()
    for name in suite.models:
        model = params.models[name]
        if isinstance(model, LocalModel):
            require_chat_template(Path(model.path))


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
    suite = params.active
    for name in suite.datasets:
        settings = DatasetSettings(name=name, dataset=params.datasets[name], data_mirror=params.data_mirror)
        yield f"data/{params.suite}/train/{name}/settings.json", settings
    for name in suite.benchmarks:
        settings = BenchmarkSettings(name=name, benchmark=params.benchmarks[name], data_mirror=params.data_mirror)
        yield f"data/{params.suite}/benchmarks/{name}/settings.json", settings
    for name in suite.models:
        model = params.models[name]
        warm_up_data = f"data/{params.suite}/train/{suite.datasets[0]}" if isinstance(model, ScratchModel) else None
        grader = params.datasets[suite.datasets[0]].grader
        settings = ModelSettings(
            name=name, model=model, instruction=suite.instruction, warm_up_data=warm_up_data, grader=grader
        )
        yield f"models/{params.suite}/{name}/settings.json", settings
        yield f"evaluations/{params.suite}/{name}/base/settings.json", _evaluation(params, name, None)
    report = _report(params)
    for run in report.runs:
        yield f"runs/{run.path}/settings.json", _run(params, run)
        yield f"evaluations/{run.path}/settings.json", _evaluation(params, run.model, run)
    yield f"results/{params.suite}/settings.json", report


def _run(params: Params, run: RunId) -> RunSettings:
    suite, arm = params.active, params.arms[run.arm]
    return RunSettings(
        run=run,
        model_path=f"models/{run.suite}/{run.model}/checkpoint",
        data_path=f"data/{run.suite}/train/{run.dataset}",
        grader=params.datasets[run.dataset].grader,
        limits=_limits(params, run.model),
        instruction=suite.instruction,
        arm=arm,
        objective=params.objectives[arm.objective],
        train=suite.train,
        engine=suite.engine,
    )


def _evaluation(params: Params, model: str, run: RunId | None) -> EvaluationSettings:
    suite = params.active
    of_base = f"models/{params.suite}/{model}/checkpoint"
    return EvaluationSettings(
        model=model,
        run=run,
        checkpoint=f"runs/{run.path}/{suite.evaluate.checkpoint}" if run else of_base,
        benchmarks={name: f"data/{params.suite}/benchmarks/{name}/problems.parquet" for name in suite.benchmarks},
        graders={name: params.benchmarks[name].grader for name in suite.benchmarks},
        limits=_limits(params, model),
        instruction=suite.instruction,
        evaluate=suite.evaluate,
        engine=suite.engine,
    )


def _limits(params: Params, model: str) -> ModelLimits:
    return ModelLimits.model_validate(params.models[model].model_dump(include=set(ModelLimits.model_fields)))


def _report(params: Params) -> ReportSettings:
    suite = params.active
    return ReportSettings(
        suite=params.suite,
        models=suite.models,
        datasets=suite.datasets,
        arms={name: params.arms[name].title or name.upper() for name in suite.arms},
        seeds=suite.seeds,
        benchmarks={name: params.benchmarks[name].title for name in suite.benchmarks},
        out_of_distribution=[name for name in suite.benchmarks if params.benchmarks[name].out_of_distribution],
        samples=suite.evaluate.samples,
    )


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
    arguments = parser.parse_args(argv)
    try:
        params = load_params(arguments.params)
        check(params)
    except ConfigError as error:
        sys.exit(str(error))
    settings = resolve(params)
    written = write_settings(settings)
    print(f"suite {params.suite}: {len(settings)} jobs, {len(written)} settings files written or changed")
    for path in settings:
        print(f"  {path}{'  (new)' if path in written else ''}")


if __name__ == "__main__":
    main()
