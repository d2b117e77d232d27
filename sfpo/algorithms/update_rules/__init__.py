"""Update rules: the updates on one batch of rollouts. One file and one class per rule; the file's name is the rule's name.

    rule = make_update_rule("sfpo", num_fast_steps=3, alpha=0.8)
    report = rule.step(policy, batch)

A rule added as a new file here can be used in params.yaml without further registration.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sfpo.algorithms.update_rules.base import EXECUTION, GradientPolicy, Passes, Policy, StepReport, Update, UpdateRule

__all__ = [
    "GradientPolicy",
    "Passes",
    "Policy",
    "StepReport",
    "Update",
    "UpdateRule",
    "complete_settings",
    "make_update_rule",
    "rule_names",
]


def rule_names() -> list[str]:
    """Names of all rules: every module of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def make_update_rule(name: str, execution: Mapping[str, Any] | None = None, **settings: Any) -> UpdateRule[GradientPolicy]:
    """The rule ``name`` with its settings, for a policy that implements ``GradientPolicy``, as required by some rules.

    Args:
        execution: execution settings by name; those that the rule does not have are ignored.

    Raises:
        ValueError: there is no such rule or setting, or a value is invalid; the message names what is allowed.
    """
    rule_class = _rule_class(name)
    known = {field.name: field.metadata.get(EXECUTION, False) for field in fields(rule_class) if field.init}
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{setting}: unknown setting of rule {name}; allowed are: {', '.join(known) or 'none'}")
    computing = {key: value for key, value in (execution or {}).items() if known.get(key)}
    return rule_class(**{**settings, **computing})


def complete_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a rule that affect its result, including defaults.

    Raises:
        ValueError: as ``make_update_rule``; or a setting is an execution setting, which belongs to the suite.
    """
    rule = make_update_rule(name, **settings)
    computing = [field.name for field in fields(rule) if field.metadata.get(EXECUTION)]
    for setting in settings:
        if setting in computing:
            raise ValueError(f"{setting}: an execution setting; set it in the suite's `execution`")
    return {field.name: getattr(rule, field.name) for field in fields(rule) if field.init and field.name not in computing}


def _rule_class(name: str) -> type[UpdateRule[GradientPolicy]]:
    if name not in rule_names():
        raise ValueError(f"rule = {name!r}: allowed are {', '.join(rule_names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    rule_classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, UpdateRule) and value.__module__ == module.__name__
    ]
    if len(rule_classes) != 1:
        raise ValueError(f"{module.__file__}: must define one UpdateRule, defines {len(rule_classes)}")
    return rule_classes[0]
