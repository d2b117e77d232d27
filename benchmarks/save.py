"""Time of saving a checkpoint (weights and both Adam moments), relative to a plain write of the same number of bytes.

Both include fsync. A save uses torch.distributed.checkpoint, computes checksums, and renames the folder at the end. On a GPU,
training waits only until the state is copied to host memory; that part is timed too, with the copy made on a CPU.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Result, result, spread
from benchmarks.sides import Candidate, Options, Turns, single_turn
from benchmarks.workload import Work, given_batch, work_of


def saves(turns: Turns, work: Work) -> None:
    """A turn: seconds of a plain write, of a save, and of the part that training waits for if a thread saves."""
    from transformers import AutoConfig

    from sfpo.trainer.background import Background
    from sfpo.trainer.checkpoint import save_state

    turns.wait()
    policy = work.policy(1)
    policy.descend(given_batch(AutoConfig.from_pretrained(work.checkpoint).vocab_size, 8, 2, [4, 4]))  # allocates the moments
    with tempfile.TemporaryDirectory(dir=".") as name:  # the disk that runs are saved to
        folder = Path(name)
        blocking, threaded = Background(threaded=False), Background(threaded=True)
        save_state(policy, folder, 1, {}, blocking)  # warm-up: the first save has one-time costs
        content = b"".join(path.read_bytes() for path in sorted((folder / "step_000001").iterdir()))
        figures = {
            "plain": timed(lambda: write(folder / "plain", content)),
            "save": timed(lambda: save_state(policy, folder, 2, {}, blocking)),
            "wait": timed(lambda: save_state(policy, folder, 3, {}, threaded)),
        }
        threaded.wait()
        shutil.rmtree(folder / "step_000001")
    turns.report({"seconds": figures["save"], "mib": len(content) / 2**20, **figures})


def write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(options: Options) -> Result:
    turns = [single_turn(Candidate(saves, 1, {"work": work_of(options)})) for _ in range(options.repetitions)]
    found = {
        "save_over_plain_write": spread([turn["save"] / turn["plain"] for turn in turns]),
        "save_wait_over_plain_write": spread([turn["wait"] / turn["plain"] for turn in turns]),
        "saved_mib": spread([turn["mib"] for turn in turns]),
        "save_seconds": spread([turn["save"] for turn in turns]),
    }
    return result(found, {})
