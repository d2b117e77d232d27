"""Applies the overrides of a suite to one of its runs."""

from __future__ import annotations

from functools import reduce
from typing import Any, TypeVar

from sfpo.config import ModelLimits, Override, Params, Train
from sfpo.config.changes import merged
from sfpo.schema import Schema, parse

S = TypeVar("S", bound=Schema)


def overrides_of(params: Params, model: str, dataset: str, arm: str | None) -> list[Override]:
    """The overrides of a run; without an arm those that apply to every arm. Runs at a scaled learning rate have those of their
    arm."""
    of_arm = params.scaled_arms.get(arm, (arm, 1.0))[0] if arm else None
    return [one for one in params.active.overrides if one.concerns(model, dataset, of_arm)]


def overridden(settings: S, concerning: list[Override], part: str, where: str) -> S:
    """A section of the suite's settings with the overrides applied. Raises ConfigError if the result is invalid."""
    changes = [getattr(one, part) for one in concerning if getattr(one, part)]
    return parse(type(settings), reduce(merged, changes, settings.model_dump()), f"{where}: {part}") if changes else settings


def train_of(params: Params, concerning: list[Override], where: str) -> Train:
    """``train`` of a run."""
    return overridden(params.active.train, concerning, "train", where)


def instruction_of(params: Params, concerning: list[Override]) -> str:
    """The user turn of a run."""
    changed = [override.instruction for override in concerning if override.instruction]
    return changed[-1] if changed else params.active.instruction


def limits_of(params: Params, model: str, concerning: list[Override]) -> ModelLimits:
    """Token limits of a run."""
    limits: dict[str, Any] = params.models[model].model_dump(include=set(ModelLimits.model_fields))
    for override in concerning:
        limits |= override.model_dump(include=set(limits), exclude_none=True)
    return ModelLimits.model_validate(limits)
