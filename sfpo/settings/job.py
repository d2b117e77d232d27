"""The base of all settings files, their identity, and how they are read and written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from sfpo.schema import ConfigError, Schema, parse

J = TypeVar("J", bound="JobSettings")


class JobSettings(Schema):
    """Base of all settings files."""

    def identity(self) -> dict[str, Any]:
        """The settings that determine the job's result, as plain JSON values."""
        return self.model_dump(mode="json")

    def inputs(self) -> list[str]:
        """Folders of the jobs whose results this job reads."""
        return []


def load_settings(kind: type[J], path: str | Path, identity: str | None = None) -> J:
    """Read one job's settings file.

    Args:
        identity: expected ``settings_hash``; None: not checked.

    Raises:
        ConfigError: the file is missing or invalid, or its hash is not ``identity``.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such settings file; `python -m sfpo.jobs --write` writes those of the active suite")
    settings = parse(kind, yaml.safe_load(path.read_text()), str(path))
    if identity is not None and settings_hash(settings) != identity:
        raise ConfigError(f"{path}: changed since the workflow started; start the workflow again")
    return settings


def to_json(settings: BaseModel) -> str:
    """The text of a settings file: equal settings give equal text."""
    return settings.model_dump_json(indent=1) + "\n"


def settings_hash(settings: JobSettings) -> str:
    """Identity of the job's result: hex sha256 of ``identity``."""
    return content_hash(settings.identity())


def content_hash(content: dict[str, Any]) -> str:
    """The order of keys matters: that of a table's arms or a data set's parts is visible in the result."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
