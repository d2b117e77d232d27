"""Update rules: what to do with one batch of rollouts. One rule, one file, one class; the file's name is the rule's name.

    rule = make_update_rule("sfpo", num_fast_steps=3, alpha=0.8)
    report = rule.step(policy, batch)

A rule added as a new file here can be named in params.yaml at once.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields
from typing import Any

from sfpo.algorithms.update_rules.base import Policy, StepReport, UpdateRule

__all__ = ["Policy", "StepReport", "UpdateRule", "make_update_rule", "rule_names"]


def rule_names() -> list[str]:
    """The rules that can be named: every module of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def make_update_rule(name: str, **settings: Any) -> UpdateRule:
    """The rule called ``name`` with its settings.

    Raises:
        ValueError: there is no such rule or setting, or a value is impossible; the message names what is allowed.
    """
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
    known = [field.name for field in fields(rule_classes[0]) if field.init]
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{setting}: unknown setting of rule {name}; allowed are: {', '.join(known) or 'none'}")
    return rule_classes[0](**settings)
