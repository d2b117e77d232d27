"""Kinds of tables and figures, one file per kind. The file's name is the value of ``shows`` in an item of params.yaml.

A new file here is available in params.yaml without registration. These modules import pandas and seaborn only inside ``write``:
the workflow and ``python -m sfpo.jobs`` import all of them to list the output files, which should be fast.
"""

from __future__ import annotations

import importlib
import pkgutil

from eval.report.kinds.base import Kind
from sfpo.schema import nearest

__all__ = ["Kind", "find_kind", "kind_names"]


def kind_names() -> list[str]:
    """All kinds: the modules of this package except ``base``."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def find_kind(name: str) -> Kind:
    """The kind called ``name``.

    Raises:
        ValueError: there is no such kind; the message lists the kinds.
    """
    if name not in kind_names():
        raise ValueError(f"shows = {name!r}: allowed are {', '.join(kind_names())}{nearest(name, kind_names())}")
    return importlib.import_module(f"{__name__}.{name}").KIND
