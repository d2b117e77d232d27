"""Lock of a run's folder, so that only one process trains it. The kernel releases it when its holder exits or is killed."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

LOCK = "train.lock"


class RunLocked(RuntimeError):
    """Another process is training this run."""


@contextmanager
def run_lock(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder. The lock file names the holder.

    Args:
        wait: wait until the current holder has ended, instead of raising (for example a process that outlived its workflow).

    Raises:
        RunLocked: another process holds the lock; the message names it.
    """
    path = folder / LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            if not wait:
                raise RunLocked(f"{folder}: {holder} is already training this run; wait for it, or stop it first") from None
            log.warning("%s: %s is already training this run; waiting for it to end", folder, holder)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
        file.truncate(0)
