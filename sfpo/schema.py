"""Validation of settings: a frozen base class that rejects unknown keys, and error messages that name key, value and remedy."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

KEY = "[key]"
"""pydantic's location of an error in a key itself."""
S = TypeVar("S", bound=BaseModel)


class ConfigError(ValueError):
    """An invalid setting: the message names the key, the value, and what is allowed."""


class Schema(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


def parse(kind: type[S], raw: Any, where: str) -> S:
    """Validate ``raw`` as ``kind``; the message lists all errors.

    Raises:
        ConfigError: names each key, its value and what is allowed.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(kind, fault) for fault in error.errors()]
        raise ConfigError(f"{where}:\n  " + "\n  ".join(lines)) from None


def faults(kind: type[BaseModel], raw: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """Location of each error in ``raw``, and its message as in ``parse``."""
    try:
        kind.model_validate(raw)
    except ValidationError as error:
        return [(fault["loc"], _explain(kind, fault)) for fault in error.errors()]
    return []


def _explain(kind: type[BaseModel], fault: Any) -> str:
    shown, allowed = _locate(kind, [str(part) for part in fault["loc"]])
    key = ".".join(shown) or "(whole file)"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed here: {', '.join(sorted(allowed))}{nearest(shown[-1], allowed)}"
    if fault["type"] == "missing":
        return f"{key}: missing; it must be given"
    if fault["type"] == "union_tag_invalid":
        return f"{key}.source = {fault['ctx']['tag']!r}: allowed are {fault['ctx']['expected_tags']}"
    if fault["type"] == "value_error":
        return message if not shown else f"{key}: {message}"
    return f"{key} = {fault['input']!r}: {message[0].lower()}{message[1:]}"


def _locate(kind: type[BaseModel], location: list[str]) -> tuple[list[str], set[str]]:
    """The key as spelled in the file (pydantic adds the tag of a union), and the keys allowed at its level."""
    schema = kind.model_json_schema()
    node, shown, allowed = schema, [], set()
    for part in location:
        tags = node.get("discriminator", {}).get("mapping", {})
        if part in tags:
            node = _follow(schema, {"$ref": tags[part]})
            continue
        if part != KEY:
            shown.append(part)
        allowed = set(node.get("properties", {}))
        of_any_name = [*node.get("patternProperties", {}).values(), node.get("additionalProperties"), node.get("items")]
        node = node.get("properties", {}).get(part) or next((child for child in of_any_name if isinstance(child, dict)), {})
        node = _follow(schema, node)
    return shown, allowed


def _follow(schema: dict, node: dict) -> dict:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
