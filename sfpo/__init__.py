"""Slow-Fast Policy Optimization: the update rule, its rivals, and the training job that compares them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfpo.slow_fast import SlowFast

__all__ = ["SlowFast"]


def __getattr__(name: str) -> Any:
    """``sfpo.SlowFast``, imported when first asked for: the package itself must load without torch."""
    if name == "SlowFast":
        from sfpo.slow_fast import SlowFast

        return SlowFast
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
