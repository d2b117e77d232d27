"""Folders of weights: Hugging Face exports for readers, and the state from which a killed run goes on.

Both are written beside their final place and renamed, so that a folder with a manifest is a whole one. No pickle: tensors are
safetensors, the rest is JSON.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from sfpo.manifest import read_manifest, write_json, write_manifest
from sfpo.trainer.policy import Policy

log = logging.getLogger(__name__)

KEPT_STATES = 2
"""States on disk: the newest, and the one before it in case the newest is damaged."""


def export_checkpoint(policy: Policy, start: str | Path, folder: Path, **facts: Any) -> None:
    """Write the policy as a Hugging Face folder, in the data type that the starting checkpoint is stored in.

    Args:
        start: the starting checkpoint; its configuration, tokenizer and generation settings are copied.
        facts: step, settings hash ...; they go into the manifest.
    """
    partial = _fresh(folder.with_name(f".{folder.name}.partial"))
    for path in Path(start).iterdir():
        if path.is_file() and path.suffix != ".safetensors" and not path.name.endswith((".index.json", "manifest.json")):
            shutil.copy(path, partial)
    config = json.loads((Path(start) / "config.json").read_text())
    stored = getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")  # older checkpoints: torch_dtype
    # One name for each stored tensor: transformers ties the others again when it loads.
    weights = {name: parameter.detach().to("cpu", stored).contiguous() for name, parameter in policy.model.named_parameters()}
    save_torch_state_dict(weights, partial)
    write_manifest(partial, **facts)
    _replace(partial, folder)


def save_state(policy: Policy, folder: Path, step: int, trainer_state: dict[str, Any]) -> None:
    """Write ``folder``/step_<step>: weights, optimizer, and ``trainer_state``; older states beyond KEPT_STATES are removed."""
    partial = _fresh(folder / ".partial")
    weights = {name: parameter.detach().cpu() for name, parameter in policy.model.named_parameters()}
    save_file(weights, partial / "weights.safetensors")
    moments = policy.optimizer.state_dict()["state"]
    tensors = {f"{index}.{key}": value.cpu() for index, entry in moments.items() for key, value in entry.items()}
    save_file(tensors, partial / "optimizer.safetensors")
    write_json(partial / "trainer.json", trainer_state)
    write_manifest(partial, step=step)
    _replace(partial, folder / f"step_{step:06d}")
    for old in sorted(folder.glob("step_*"))[:-KEPT_STATES]:
        shutil.rmtree(old)


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole state below ``folder`` and its trainer state; a damaged one is reported and passed over."""
    for candidate in sorted(folder.glob("step_*"), reverse=True):
        try:
            read_manifest(candidate)
        except (FileNotFoundError, ValueError) as fault:
            log.warning("%s is not used: %s", candidate, fault)
            continue
        return candidate, json.loads((candidate / "trainer.json").read_text())
    return None


def load_state(policy: Policy, state: Path) -> None:
    """Put the weights and the optimizer's moments of a saved state into ``policy``."""
    weights = load_file(state / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            parameter.copy_(weights[name])
    _load_moments(policy, load_file(state / "optimizer.safetensors"))


def _load_moments(policy: Policy, tensors: dict[str, torch.Tensor]) -> None:
    state = policy.optimizer.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    policy.optimizer.load_state_dict(state)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _replace(partial: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
