"""Gives files back the modification times that a checkout loses.

Snakemake decides by modification times. After `git clone` and `dvc pull` they are those of the checkout, in any order, so that
finished jobs look stale. Each product folder therefore carries a ledger.json: for every file its sha256 and its time when the
workflow last ended. Before the graph is built, a file whose content is still that of the ledger gets its time back; a file that
was changed keeps its new one, and what depends on it runs again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sfpo.manifest import file_sha256, write_json

LEDGER = "ledger.json"
VOUCHED_FOR = (".safetensors",)
"""Large files that no rule names: the manifest beside them is the rule's file, and lists their checksums."""


def record_mtimes(roots: Iterable[str], base: Path = Path(".")) -> None:
    """Write the ledger of each product folder that exists; content is read again only where the time has changed."""
    for root in _existing(roots, base):
        known = _read(root)
        entries = {}
        for path in _files(root):
            name, mtime = str(path.relative_to(root)), path.stat().st_mtime_ns
            old = known.get(name)
            digest = old["sha256"] if old and old["mtime_ns"] == mtime else file_sha256(path)
            entries[name] = {"sha256": digest, "mtime_ns": mtime}
        if entries != known:
            write_json(root / LEDGER, entries)


def restore_mtimes(roots: Iterable[str], base: Path = Path(".")) -> int:
    """Set the recorded time of every file whose content is the recorded one; returns how many were set."""
    restored = 0
    for root in _existing(roots, base):
        for name, entry in _read(root).items():
            path = root / name
            if not path.is_file() or path.stat().st_mtime_ns == entry["mtime_ns"]:
                continue
            if file_sha256(path) == entry["sha256"]:
                os.utime(path, ns=(entry["mtime_ns"], entry["mtime_ns"]))
                restored += 1
    return restored


def _existing(roots: Iterable[str], base: Path) -> Iterator[Path]:
    return (base / root for root in roots if (base / root).is_dir())


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != LEDGER and path.suffix not in VOUCHED_FOR and "state" not in path.parts:
            yield path


def _read(root: Path) -> dict[str, dict]:
    path = root / LEDGER
    return json.loads(path.read_text()) if path.is_file() else {}
