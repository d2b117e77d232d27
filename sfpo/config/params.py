"""Reads params.yaml, and checks the references between its sections."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from sfpo.config.changes import merged
from sfpo.config.data import Benchmark, Dataset
from sfpo.config.methods import Arm, Objective, at_rate
from sfpo.config.models import Model
from sfpo.config.names import Name
from sfpo.config.plain_yaml import SECTIONS, PlainLoader, extended, undefined
from sfpo.config.suites import LISTS, Suite
from sfpo.schema import ConfigError, Schema, faults, parse

log = logging.getLogger(__name__)


class Params(Schema):
    """The content of params.yaml."""

    suite: Name
    """The active suite, which the default targets build."""
    data_mirror: Annotated[str, Field(min_length=1)] | None = None
    """Folder used instead of the hub: each hub data set is read from the file that its ``mirror`` key names. None: download."""
    suites: dict[Name, Suite]
    """Experiments by name: tables, figures and their runs."""
    arms: dict[Name, Arm]
    """Methods by name: an update rule with an objective."""
    objectives: dict[Name, Objective]
    """Policy losses by name."""
    models: dict[Name, Model]
    """Starting policies by name."""
    datasets: dict[Name, Dataset]
    """Training sets by name."""
    benchmarks: dict[Name, Benchmark]
    """Test sets by name; each is scored by the lm-eval task of the same name."""

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        if self.suite not in self.suites:
            raise ValueError(undefined("suite", self.suite, self.suites))
        if "base" in self.arms:
            raise ValueError("arms.base: the name 'base' is used for the untrained model; choose another")
        used = _used(self.model_dump())
        for entry, message in self.undefined_names():
            if entry in used:
                raise ValueError(message)
        return self

    def undefined_names(self) -> Iterator[tuple[tuple[str, str], str]]:
        """(section, entry) and error message, for each reference to a name that is not defined."""
        for entry, key, value, known in self._references():
            if value not in known:
                yield entry, undefined(f"{'.'.join(entry)}.{key}", value, known)

    def _references(self) -> Iterator[tuple[tuple[str, str], str, str, Mapping[str, Any]]]:
        """(section, entry), key, the name it refers to, and the entries that it can refer to."""
        for name, arm in self.arms.items():
            yield ("arms", name), "objective", arm.objective, self.objectives
        for name, model in self.models.items():
            if model.warm_up:
                yield ("models", name), "warm_up.dataset", model.warm_up.dataset, self.datasets
        for name, suite in self.suites.items():
            places = {"": suite, **{f"items.{item}.": one for item, one in suite.items.items()}}
            places |= {f"overrides[{place}].": override for place, override in enumerate(suite.overrides)}
            for place, lists in places.items():
                for key in LISTS:
                    for value in getattr(lists, key, None) or []:
                        yield ("suites", name), f"{place}{key}", value, getattr(self, key)

    @model_validator(mode="after")
    def _arms_at_rates_have_names_of_their_own(self) -> Params:
        for name in self.scaled_arms:
            if name in self.arms:
                raise ValueError(
                    f"arms.{name}: the name of another arm's runs at a scaled learning rate (learning_rate_scales); rename it"
                )
        return self

    @property
    def scaled_arms(self) -> dict[str, tuple[str, float]]:
        """Name of an arm's runs at a scaled learning rate -> the arm and the scale; of the active suite."""
        suite = self.active
        found: dict[str, tuple[str, float]] = {}
        for item in suite.items.values():
            pairs = [(arm, scale) for arm in item.arms or suite.arms for scale in item.learning_rate_scales or [] if scale != 1]
            found |= {at_rate(arm, scale): (arm, scale) for arm, scale in pairs}
        return found

    @property
    def active(self) -> Suite:
        """The suite named by ``suite``."""
        return self.suites[self.suite]


def load_params(
    path: str | Path = "params.yaml",
    suite: str | None = None,
    changes: Mapping[str, Any] | None = None,
    every_suite: bool = False,
) -> Params:
    """Read and validate params.yaml. An error in an entry that the active suite does not use is logged as a warning.

    Args:
        suite: overrides the active suite.
        changes: overrides other keys, merged key by key.
        every_suite: raise for errors in any entry, used or not.

    Raises:
        ConfigError: the file is missing, is not plain YAML (a repeated key, an anchor), or contains an unknown key
            or an invalid value.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; run in the project's root folder, or give the path")
    try:
        raw = yaml.load(path.read_text(), Loader=PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        return parse(Params, raw, str(path))
    raw = merged(raw, {**(changes or {}), **({"suite": suite} if suite is not None else {})})
    return _parse_used(raw, str(path), every_suite)


def _parse_used(raw: dict[str, Any], where: str, every_suite: bool) -> Params:
    """Validate everything; drop invalid entries that the active suite does not use, with a warning each."""
    raw, wrong = extended(raw)
    used = _used(raw) if not every_suite else _entries(raw)
    for entry in sorted(used & wrong.keys()):
        raise ConfigError(f"{where}: {wrong[entry]}")
    of_schema = [((str(loc[0]), str(loc[1])), text) for loc, text in faults(Params, raw) if len(loc) > 1 and loc[0] in SECTIONS]
    unused = [*wrong.items(), *((entry, text) for entry, text in of_schema if entry not in used and entry not in wrong)]
    dropped = {entry for entry, _ in unused}
    params = parse(Params, {key: _without(value, key, dropped) for key, value in raw.items()}, where)
    for entry, text in [*unused, *params.undefined_names()]:  # Params has checked the names in used entries
        if entry in used:
            raise ConfigError(f"{where}: {text}")
        log.warning("%s: invalid, but not used by suite %s: %s", where, params.suite, text)
    return params


def _without(entries: Any, section: str, dropped: set[tuple[str, str]]) -> Any:
    if section not in SECTIONS or not isinstance(entries, dict):
        return entries
    return {name: entry for name, entry in entries.items() if (section, str(name)) not in dropped}


def _entries(raw: dict[str, Any]) -> set[tuple[str, str]]:
    """(section, name) of every entry."""
    return {(section, str(name)) for section in SECTIONS if isinstance(raw.get(section), dict) for name in raw[section]}


def _used(raw: dict[str, Any]) -> set[tuple[str, str]]:
    """(section, name) of the active suite and of every entry that it refers to, directly or indirectly."""
    used: set[tuple[str, str]] = set()
    waiting = [("suites", str(raw.get("suite")))]
    while waiting:
        key = waiting.pop()
        section = raw.get(key[0])
        if key in used or not isinstance(section, dict) or key[1] not in section:
            continue
        used.add(key)
        others = [one for one in SECTIONS if one not in ("suites", key[0])]  # nothing names a suite
        waiting += [(one, name) for one in others for name in _strings(section[key[1]])]
    return used


def _strings(value: Any) -> list[str]:
    """Every string inside a value: an entry counts as used if its name occurs."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _strings(part)]
