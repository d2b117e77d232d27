"""Settings with some keys changed: overrides of a suite, `extends:`, and keys given on the command line."""

from __future__ import annotations

from typing import Any, TypeVar

from sfpo.schema import Schema, parse

S = TypeVar("S", bound=Schema)


def changed(settings: S, changes: dict[str, Any], key: str) -> S:
    """``settings`` with ``changes`` merged in, nested keys included.

    Raises:
        ConfigError: the changed settings are invalid; the message begins with ``key``.
    """
    return parse(type(settings), merged(settings.model_dump(), changes), key) if changes else settings


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with the changes merged in, nested dicts key by key."""
    both = {key: merged(settings[key], value) for key, value in changes.items() if _are_dicts(settings.get(key), value)}
    return {**settings, **changes, **both}


def _are_dicts(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)
