"""Writes docs/settings.md: every key of params.yaml with its type, default and meaning, from the schema in sfpo/config.

    python docs/settings_page.py

tests/test_docs.py fails while the page differs from the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sfpo.algorithms.update_rules import complete_settings, rule_names
from sfpo.config import Params

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Every key of `params.yaml`. The file is checked as a whole before any job starts: an unknown key or an impossible value is an
error that names the key, the value and what is allowed. `python -m sfpo.jobs` checks the file and lists the jobs.

`extends: <entry>` copies another entry of the same section; keys next to it override that entry's, nested ones one by one.
A suite's `execution` sets how jobs are computed and changes no result; everything else under `train`, `sampler` and the
named entries is part of a run's recipe ([first run](first-run.md#change-something)).

<!-- Written by docs/settings_page.py from sfpo/config; do not edit. -->
"""
RULES = """
## Settings of the update rules

Further keys of an arm are settings of its rule; [Methods](methods.md) explains them.
"""


def page() -> str:
    """The whole page."""
    schema = Params.model_json_schema()
    parts = [HEAD, *_sections(schema)]
    parts += [RULES]
    parts += [_rule_table(name) for name in rule_names()]
    return "\n".join(parts).rstrip() + "\n"


def _sections(schema: dict[str, Any]) -> Iterator[str]:
    yield _object("params.yaml", {**schema, "description": "Keys of the file's top level."}, schema)
    seen: set[str] = set()
    waiting = _referred(schema)
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        waiting = [*_referred(schema["$defs"][name]), *waiting]
        yield _object(name, schema["$defs"][name], schema)


def _referred(node: Any) -> list[str]:
    """Names of the definitions that a node refers to directly, in order."""
    if isinstance(node, dict):
        own = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
        return own + [name for key, value in node.items() if key not in ("$defs", "mapping") for name in _referred(value)]
    return [name for value in node for name in _referred(value)] if isinstance(node, list) else []


def _object(name: str, node: dict[str, Any], schema: dict[str, Any]) -> str:
    lines = [
        f"\n## {name}\n\n{_prose(node.get('description', ''))}\n",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    required = set(node.get("required", []))
    for key, value in node.get("properties", {}).items():
        default = "*required*" if key in required else f"`{_plain(value.get('default'))}`" if "default" in value else ""
        lines.append(f"| `{key}` | {_type(value)} | {default} | {_prose(_meaning(value, schema))} |")
    return "\n".join(lines)


def _meaning(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """The key's own docstring; without one, that of the kind of settings that it holds."""
    kinds = _referred(node)
    return node.get("description") or (schema["$defs"][kinds[0]].get("description", "") if len(kinds) == 1 else "")


def _type(node: dict[str, Any]) -> str:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in node or "const" in node:
        return " or ".join(f"`{_plain(value)}`" for value in node.get("enum", [node.get("const")]))
    for key in ("anyOf", "oneOf", "allOf"):
        if key in node:
            return " or ".join(dict.fromkeys(_type(part) for part in node[key]))
    if node.get("type") == "array":
        inner = node.get("items") or {"anyOf": node.get("prefixItems", [{}])}
        return f"list of {_type(inner)}"
    if node.get("type") == "object":
        inner = next(iter(node.get("patternProperties", {}).values()), None) or node.get("additionalProperties")
        return f"name: {_type(inner)}" if isinstance(inner, dict) else "keys and values"
    names = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
    return names.get(node.get("type", ""), "any") + _bounds(node)


def _bounds(node: dict[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {_plain(node[key])}" for key, sign in words.items() if key in node)


def _rule_table(name: str) -> str:
    rows = [f"| `{key}` | `{_plain(value)}` |" for key, value in complete_settings(name, {}).items()]
    return (
        "\n".join([f"\n### {name}\n", "| key | default |", "| --- | --- |", *rows]) if rows else f"\n### {name}\n\nNo settings."
    )


def _plain(value: Any) -> str:
    """A value as params.yaml spells it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return str(value)


def _prose(text: str) -> str:
    """A docstring in one line of a Markdown table."""
    return re.sub(r"\s+", " ", text).replace("``", "`").replace("|", "\\|").strip()


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
