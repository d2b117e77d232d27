"""The manifest of a checkpoint folder: its files and their checksums, which are verified whenever the checkpoint is read."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
LARGE = 64 * 2**20
"""Bytes. The digest of a file of this size or larger is cached, since hashing it takes noticeable time."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfpo" / "sha256"


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(path: Path) -> str:
    """As ``file_sha256``; the digest of a large file is cached until its size, inode or ctime (which programs cannot set)
    changes."""
    status = path.stat()
    if status.st_size < LARGE:
        return file_sha256(path)
    version = f"{path.resolve()} {status.st_size} {status.st_ino} {status.st_ctime_ns}"
    kept = CACHE / hashlib.sha256(version.encode()).hexdigest()
    if not kept.is_file():
        write_text(kept, file_sha256(path))
    return kept.read_text()


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, also after a crash."""
    write_text(path, json.dumps(strict(content), indent=1, allow_nan=False) + "\n")


def strict(value: Any) -> Any:
    """The value with null in place of NaN and infinity, which are not valid JSON."""
    if isinstance(value, dict):
        return {key: strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Write text atomically (temporary file, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def write_manifest(folder: Path, digest: Callable[[Path], str] = file_sha256, **facts: Any) -> None:
    """Write the digest of every file below ``folder``, and ``facts`` (step, settings hash ...), to its manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    listed = {str(path.relative_to(folder)): digest(path) for path in files}
    write_json(folder / MANIFEST, {**facts, "files": listed})


def read_manifest(folder: Path, digest: Callable[[Path], str] = file_sha256) -> dict[str, Any]:
    """The manifest of ``folder``, after checking every file against it.

    Args:
        digest: the function that the manifest was written with.

    Raises:
        FileNotFoundError: there is no manifest, or a listed file is missing.
        ValueError: a file does not match its listed checksum.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no manifest; the checkpoint was not finished")
    manifest = json.loads(path.read_text())
    for name, listed in manifest["files"].items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: listed in the manifest, but missing")
        if digest(folder / name) != listed:
            raise ValueError(f"{folder / name}: damaged (its checksum differs from that in {MANIFEST})")
    return manifest
