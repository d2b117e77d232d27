"""Slow-Fast Policy Optimization (arXiv 2510.04072): the update for a training loop of your own, its rivals, and the benchmark
suite that compares them.

What ``__all__`` names needs torch alone. ``sfpo.integrations`` needs the trainer that it integrates with, everything else the
packages of ``sfpo[suite]``.
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
    """A name of ``__all__``, imported when first asked for: a check of params.yaml does not wait for torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
