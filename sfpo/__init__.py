"""Slow-Fast Policy Optimization (arXiv 2510.04072): the update for your own training loop, its baselines, and the benchmark
suite that compares them.

The names in ``__all__`` need only torch. ``sfpo.integrations`` needs the trainer that it integrates with; everything else needs
the packages of ``sfpo[suite]``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfpo.algorithms.entropy_trigger import EntropyTrigger
    from sfpo.algorithms.update_rules import make_update_rule
    from sfpo.slow_fast import SlowFast

__all__ = ["EntropyTrigger", "SlowFast", "make_update_rule"]

_HOMES = {
    "EntropyTrigger": "sfpo.algorithms.entropy_trigger",
    "SlowFast": "sfpo.slow_fast",
    "make_update_rule": "sfpo.algorithms.update_rules",
}


def __getattr__(name: str) -> Any:
    """Import the names of ``__all__`` on first access, so that checking params.yaml does not import torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
