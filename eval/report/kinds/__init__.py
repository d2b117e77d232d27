"""Kinds of tables and figures. One kind, one file; the file's name is what an item of params.yaml `shows`.

A kind added as a new file here can be named in params.yaml at once. The heads of these files import nothing heavy: the workflow
and ``python -m sfpo.jobs`` load all of them to learn which files there will be, so pandas and seaborn are imported where they
draw.
"""

from __future__ import annotations

import importlib
import pkgutil

from eval.report.kinds.base import Kind
from sfpo.schema import nearest

__all__ = ["Kind", "find_kind", "kind_names"]


def kind_names() -> list[str]:
    """The kinds that can be named: every module of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def find_kind(name: str) -> Kind:
    """The kind called ``name``.

    Raises:
        ValueError: there is no such kind; the message names those that there are.
    """
    if name not in kind_names():
        raise ValueError(f"shows = {name!r}: allowed are {', '.join(kind_names())}{nearest(name, kind_names())}")
    return importlib.import_module(f"{__name__}.{name}").KIND
