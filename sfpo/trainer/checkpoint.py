"""Writes Hugging Face exports, and saves and loads the states from which a run resumes.

Both are written to a temporary folder, synced to disk and renamed, so that a folder with its final name is always complete. No
pickle: tensors are safetensors, the rest is JSON. (torch.distributed.checkpoint's default format has a pickle, .metadata; its
Hugging Face format stores the shards' metadata in the header of each safetensors file.)
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import xxhash
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse

from sfpo.manifest import read_manifest, write_json, write_manifest
from sfpo.trainer.background import Background
from sfpo.trainer.policy import Policy

log = logging.getLogger(__name__)

CHUNK = 2**24
"""Number of bytes read at a time."""
STATE_FILE_BYTES = 2**25
"""Target size of a state's files (at least one tensor each). Small files let one thread serialize while another waits for the
disk."""
STATE_WRITERS = 2
"""Number of writer threads per process."""
DISK_MARGIN = 1.1
"""Required free space as a multiple of a save's size."""
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Data types by their names in safetensors."""

REMEDY = "Earlier checkpoints are intact; free some space and start the run again to resume"


class DiskFull(OSError):
    """A save does not fit on the disk; earlier checkpoints are intact."""


def export_checkpoint(
    policy: Policy, start: str | Path, folder: Path, background: Background | None = None, **facts: Any
) -> None:
    """Write the policy as a Hugging Face folder, with the names, layout and data types of the initial checkpoint.

    All ranks must call it, since weights are sharded; the first one writes.

    Args:
        start: the initial checkpoint, whose configuration, tokenizer and generation settings are copied.
        background: runs the write; None: write before returning.
        facts: entries for the manifest, such as step and settings hash.

    Raises:
        DiskFull: not enough space; an older export with the same name is left intact.
    """
    _require_space(folder, sum(p.numel() * p.element_size() for p in policy.model.parameters()))
    stored = stored_types(Path(start))
    background = background or Background(threaded=False)
    background.wait()  # only one copy of the weights in memory
    weights = {}
    for name, weight in policy.weights():
        if policy.ranks.first:
            part = weight.untyped_storage().nbytes() != weight.nbytes  # a view would be mistaken for a tied tensor
            dtype = stored.get(name, weight.dtype)
            weights[name] = weight.to("cpu", dtype, copy=background.threaded or part).contiguous()
    if policy.ranks.first:
        background.run(lambda: _write_export(weights, Path(start), folder, facts))


def stored_types(folder: Path) -> dict[str, torch.dtype]:
    """Name -> data type of the floating-point tensors in a folder's safetensors files (reads only their headers)."""
    types: dict[str, torch.dtype] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            named = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118, it is no mapping
        types |= {name: FLOATS[dtype] for name, dtype in named.items() if dtype in FLOATS}
    return types


def _write_export(weights: dict[str, torch.Tensor], start: Path, folder: Path, facts: dict[str, Any]) -> None:
    partial = _fresh(folder.with_name(f".{folder.name}.partial"))
    with _raising_disk_full(folder):
        for path in start.iterdir():
            if path.is_file() and path.suffix != ".safetensors" and not path.name.endswith((".index.json", "manifest.json")):
                shutil.copy(path, partial)
        save_torch_state_dict(weights, partial)
        write_manifest(partial, **facts)
    _replace(partial, folder)


def save_state(policy: Policy, folder: Path, step: int, trainer_state: dict[str, Any], background: Background) -> None:
    """Write ``folder``/step_<step>: weights, optimizer state, and ``trainer_state``.

    Every rank writes its shards to its own files and computes their checksums; the first writes the rest. With a threaded
    ``background``, training continues after a copy to host memory (torch.distributed.checkpoint's asynchronous save). Checksums
    detect accidental corruption, not tampering, so that a fast hash is enough (benchmarks/save.py).

    Raises:
        DiskFull: not enough space; earlier states are left intact.
    """
    _require_space(folder, 3 * sum(p.numel() * p.element_size() for p in policy.parameters()))  # weights and two moments
    background.wait()  # the previous save
    partial = folder / ".partial"
    policy.ranks.gather(_fresh(partial) if policy.ranks.first else None)  # all ranks wait until the folder exists
    state = policy.state()
    writer = dcp.HuggingFaceStorageWriter(
        str(partial), fqn_to_index_mapping=_files_of(state), thread_count=STATE_WRITERS, save_distributed=True
    )

    def finish(saved: Future[Any] | None = None) -> None:
        with _raising_disk_full(folder):
            if saved is not None:
                saved.result()
            own = {path.name: checksum(path) for path in partial.glob(f"shard-{policy.ranks.rank + 1:05d}-*")}
            sums = {name: one for part in policy.ranks.gather(own, policy.ranks.writers) for name, one in part.items()}
            if policy.ranks.first:
                write_json(partial / "trainer.json", trainer_state)
                write_manifest(partial, lambda path: sums.get(path.name) or checksum(path), step=step)
                _replace(partial, folder / f"step_{step:06d}")

    with _alone_or_not(policy) as no_dist:
        if background.threaded:
            group = policy.ranks.writers
            saved = dcp.async_save(state, storage_writer=writer, process_group=group, no_dist=no_dist)
            written = saved.upload_completion if isinstance(saved, AsyncSaveResponse) else saved
            background.run(lambda: finish(written))
            return
        with _raising_disk_full(folder):
            dcp.save(state, storage_writer=writer, no_dist=no_dist)
    finish()


def _files_of(state: dict[str, torch.Tensor]) -> dict[str, int]:
    """Tensor name -> number of its file, from 1. The same on all ranks, which have the same names."""
    files, filled = {}, 0
    number = 1
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        if filled and filled + size > STATE_FILE_BYTES:
            number, filled = number + 1, 0
        files[name], filled = number, filled + size
    return files


def checksum(path: Path) -> str:
    """xxh3 hash of a file in hex, which is fast enough to be limited by reading."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _raising_disk_full(folder: Path) -> Iterator[None]:
    """Context that raises DiskFull if the disk fills up during a write, regardless of the library that writes."""
    try:
        yield
    except (OSError, SafetensorError, CheckpointException) as error:
        if getattr(error, "errno", None) != errno.ENOSPC and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise DiskFull(f"{folder}: the disk filled up during a save ({error}). {REMEDY}") from error


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """(folder, trainer state) of the newest intact state in ``folder``. Corrupt states are reported and skipped."""
    for candidate in sorted(folder.glob("step_*"), reverse=True):
        try:
            read_manifest(candidate, checksum)
        except (FileNotFoundError, ValueError) as fault:
            log.warning("%s is not used: %s", candidate, fault)
            continue
        return candidate, json.loads((candidate / "trainer.json").read_text())
    return None


def load_state(policy: Policy, state: Path) -> None:
    """Load a saved state's weights and moments into ``policy``; the number of ranks may differ from when it was saved."""
    with _alone_or_not(policy) as no_dist:
        dcp.load(policy.state(), storage_reader=dcp.HuggingFaceStorageReader(str(state)), no_dist=no_dist)


@contextmanager
def _alone_or_not(policy: Policy) -> Iterator[bool]:
    """Whether this is the only rank; silences torch's warning about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield policy.ranks.mesh is None


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _replace(partial: Path, folder: Path) -> None:
    """Rename the finished folder to its final name. An existing folder is renamed first, so that one of them always exists."""
    for path in [*partial.rglob("*"), partial]:
        _sync(path)
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    partial.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_space(folder: Path, needed: float) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < DISK_MARGIN * needed:
        raise DiskFull(
            f"{folder}: a save needs {DISK_MARGIN * needed / 2**20:.0f} MiB, but the disk has {free / 2**20:.0f} MiB left. "
            f"{REMEDY}"
        )
