"""Settings with some keys changed, by dotted path."""

from typing import Any, TypeVar

from sfpo.config.changes import merged
from sfpo.schema import Schema

S = TypeVar("S", bound=Schema)


def changed(settings: S, **changes: Any) -> S:
    """``changed(run, recipe__train__steps=6)``: the settings with recipe.train.steps 6, checked anew."""
    nested: dict[str, Any] = {}
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = value.model_dump() if isinstance(value, Schema) else value
    return type(settings).model_validate(merged(settings.model_dump(), nested))
