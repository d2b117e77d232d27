"""The tables and figures of a suite, and their runs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TypeVar

from eval.report.kinds import Kind, find_kind
from sfpo.config import Item, ModelLimits, Params
from sfpo.jobs.overrides import instruction_of, limits_of, overrides_of
from sfpo.schema import ConfigError
from sfpo.settings import ReportSettings, RunId

T = TypeVar("T")


def reports(params: Params) -> list[ReportSettings]:
    """The tables and figures of the active suite, without the identities of their inputs."""
    suite = params.active
    items = [
        ReportSettings(
            suite=params.suite,
            item=name,
            shows=item.shows,
            scored=_kind(params, name, item).scored,
            title=item.title,
            models=item.models or suite.models,
            datasets=item.datasets or suite.datasets,
            arms={arm: params.arms[arm].title or arm.upper() for arm in _arms(params, item)},
            seeds=suite.seeds,
            benchmarks={one: params.benchmarks[one].title for one in item.benchmarks or suite.benchmarks},
            out_of_distribution=[
                one for one in item.benchmarks or suite.benchmarks if params.benchmarks[one].out_of_distribution
            ],
            samples={one: suite.evaluate.samples_for(one) for one in item.benchmarks or suite.benchmarks},
            checkpoint=suite.evaluate.checkpoint,
            learning_rate_scales=_scales(params, name, item),
            base={},
        )
        for name, item in suite.items.items()
    ]
    return [item.model_copy(update={"base": _bases(params, item)}) if item.scored else item for item in items]


def _kind(params: Params, name: str, item: Item) -> Kind:
    try:
        kind = find_kind(item.shows)
    except ValueError as error:
        raise ConfigError(f"suites.{params.suite}.items.{name}.{error}") from None
    if kind.all_checkpoints and params.active.train.export_every is None:
        needs = f"items.{name} shows {item.shows}, which needs intermediate checkpoints"
        raise ConfigError(f"suites.{params.suite}.train.export_every must be set: {needs}")
    return kind


def _arms(params: Params, item: Item) -> list[str]:
    """The arms of the item, else of the suite (only the first two for kinds that show a recorded step)."""
    return item.arms or (params.active.arms[:2] if find_kind(item.shows).records_step else params.active.arms)


def _scales(params: Params, name: str, item: Item) -> tuple[float, ...]:
    if item.learning_rate_scales and not find_kind(item.shows).over_rates:
        raise ConfigError(f"suites.{params.suite}.items.{name}.learning_rate_scales: {item.shows} can only show one rate")
    return tuple(item.learning_rate_scales or [1.0])


def runs(items: Iterable[ReportSettings]) -> list[RunId]:
    """The runs of these tables and figures, each once."""
    return union(item.runs for item in items)


def union(lists: Iterable[Iterable[T]]) -> list[T]:
    """Each element once, in the order of first appearance."""
    return list(dict.fromkeys(chain.from_iterable(lists)))


def recorded(item: ReportSettings) -> list[tuple[str, str]]:
    """(model, dataset) of each recorded step that an item shows."""
    if not find_kind(item.shows).records_step:
        return []
    return [(model, dataset) for model in item.models for dataset in item.datasets]


def _bases(params: Params, item: ReportSettings) -> dict[str, str]:
    """Model -> folder of the evaluation of the untrained model, with the same prompts and token limits as the item's runs."""
    found: dict[str, str] = {}
    for model in item.models:
        first, *others = (run for run in item.runs if run.model == model)
        for other in others:
            if _prompts(params, model, other.dataset, other.arm) != _prompts(params, model, first.dataset, first.arm):
                raise ConfigError(
                    f"suites.{params.suite}.items.{item.item}: its runs {first.dataset}/{first.arm} and {other.dataset}/"
                    f"{other.arm} have different prompts or token limits, so they need different scores of the untrained "
                    f"{model}; use an item for each"
                )
        found[model] = f"evaluations/{params.suite}/{model}/{_base(params, model, first.dataset, first.arm)}"
    return found


def _base(params: Params, model: str, dataset: str, arm: str) -> str:
    own = _prompts(params, model, dataset, arm)
    if own == (limits_of(params, model, []), params.active.instruction):
        return "base"
    # '+' is not allowed in names, so no two pairs have the same folder.
    return f"base-{dataset}" if own == _prompts(params, model, dataset, None) else f"base-{dataset}+{arm}"


def _prompts(params: Params, model: str, dataset: str, arm: str | None) -> tuple[ModelLimits, str]:
    """Token limits and instruction of runs; without an arm: with the overrides that apply to every arm."""
    concerning = overrides_of(params, model, dataset, arm)
    return limits_of(params, model, concerning), instruction_of(params, concerning)
