"""A pretrained model: a local folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError

from sfpo.config import HubModel, LocalModel
from sfpo.schema import ConfigError

TAKEN = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model", "LICENSE*")
"""Files to copy: weights, configuration and tokenizer. No code and no pickle."""


def copy_local(model: LocalModel, folder: Path) -> None:
    """Copy the files of a model folder.

    Raises:
        ConfigError: there is no such folder, or no safetensors weights in it.
    """
    source = Path(model.path)
    if not source.is_dir():
        raise ConfigError(f"path = '{model.path}': no such folder; name one in Hugging Face format")
    for name in taken(model.path, (path.name for path in source.iterdir() if path.is_file())):
        shutil.copyfile(source / name, folder / name)


def download(model: HubModel, folder: Path) -> str:
    """Download the files of a hub repository, and return the commit that ``model.revision`` refers to.

    Raises:
        ConfigError: the hub cannot be reached or does not give the model, or it has no safetensors weights.
    """
    try:
        info = HfApi().model_info(model.id, revision=model.revision)
        if info.sha is None:
            raise ConfigError(f"hub model '{model.id}': the hub does not report the commit of revision '{model.revision}'")
        names = taken(f"hub model '{model.id}'", (file.rfilename for file in info.siblings or ()))
        snapshot_download(model.id, revision=info.sha, allow_patterns=names, local_dir=folder)
    except (OSError, HTTPError, HFValidationError) as error:
        raise ConfigError(
            f"hub model '{model.id}', revision '{model.revision}' cannot be downloaded ({error}); check the id, your access to "
            "it and the connection, or use a copy of it: {source: local, path: ...}"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # metadata of the download
    return info.sha


def taken(where: str, names: Iterable[str]) -> list[str]:
    """The files to copy from a model folder: those at its top level that match ``TAKEN``.

    Raises:
        ConfigError: no configuration, or no weights in safetensors.
    """
    present = sorted(names)
    chosen = [name for name in present if "/" not in name and any(fnmatch(name, pattern) for pattern in TAKEN)]
    if "config.json" not in chosen:
        raise ConfigError(f"{where}: has no config.json; it is not a model in Hugging Face format")
    if not any(name.endswith(".safetensors") for name in chosen):
        other = [name for name in present if name.endswith((".bin", ".pt", ".pth", ".gguf"))]
        raise ConfigError(
            f"{where}: has no .safetensors weights (other weights: {', '.join(other) or 'none'}); other formats are not "
            "loaded, since they can contain code: convert the model with `save_pretrained`, or use a revision that has them"
        )
    return chosen
