"""params.yaml as text: plain YAML, and ``extends`` between entries."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from sfpo.config.changes import merged
from sfpo.schema import ConfigError, nearest

SECTIONS = ("suites", "arms", "objectives", "models", "datasets", "benchmarks")
"""Sections of named entries. An entry may have ``extends: <another entry of its section>``: its own keys are then merged into
that entry, key by key; a suite's ``items`` are replaced as a whole."""


def extended(raw: dict[str, Any]) -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    """``raw`` with every ``extends`` resolved (see SECTIONS); and (section, entry) -> error message for each entry that refers
    to an undefined entry or, directly or indirectly, to itself, and is therefore not resolved."""
    whole, wrong = dict(raw), {}
    for section in SECTIONS:
        entries = raw.get(section)
        if not isinstance(entries, dict):
            continue
        whole[section] = dict(entries)
        for name in entries:
            try:
                whole[section][name] = _extend(entries, section, [name])
            except ConfigError as error:
                wrong[section, str(name)] = str(error)
    return whole, wrong


def _extend(entries: dict[str, Any], section: str, chain: list[str]) -> Any:
    entry = entries[chain[-1]]
    if not isinstance(entry, dict) or "extends" not in entry:
        return entry
    key, base = f"{section}.{chain[-1]}.extends", entry["extends"]
    own = {setting: value for setting, value in entry.items() if setting != "extends"}
    if not isinstance(base, str) or base not in entries:
        raise ConfigError(undefined(key, base, entries))
    if base in chain:
        raise ConfigError(f"{key}: {' extends '.join([*chain, base])}: an entry cannot extend itself")
    of_base = _extend(entries, section, [*chain, base])
    both = merged(of_base, own) if isinstance(of_base, dict) else own
    return {**both, "items": own["items"]} if "items" in own else both


class PlainLoader(yaml.SafeLoader):
    """A YAML subset that every tool can edit: duplicate keys, anchors and merge keys are errors; 1e-6 is a number (YAML
    1.2)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(
                f"line {event.start_mark.line + 1}: anchors and aliases are not supported, since tools that edit this file, "
                "such as `dvc exp run -S`, would change every place that shares them; use `extends: <entry>` or repeat them"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            line = f"line {key_node.start_mark.line + 1}"
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"{line}: the merge key '<<' is not supported; use `extends: <entry>`")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.YAMLError(f"{line}: a list or a mapping cannot be a key")
            if key in seen:
                raise yaml.YAMLError(f"{line}: the key '{key}' is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$"), list("-+0123456789.")
)


def undefined(key: str, value: Any, known: Mapping[str, Any]) -> str:
    """The error message for an undefined name."""
    return f"{key}: '{value}' is not defined; defined are: {', '.join(sorted(map(str, known)))}{nearest(str(value), known)}"
