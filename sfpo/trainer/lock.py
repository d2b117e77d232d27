"""One process a run folder: a lock that the kernel drops when its holder dies, however it dies."""

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
    """Another process trains this run."""


@contextmanager
def run_lock(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the run folder; the file says who does.

    Args:
        wait: until its holder has ended, say a process that outlived the workflow that started it.

    Raises:
        RunLocked: names the process that holds it.
    """
    path = folder / LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            if not wait:
                raise RunLocked(f"{folder}: {holder} trains this run already; wait for it, or stop it first") from None
            log.warning("%s: %s trains this run already; waiting for its end", folder, holder)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
        file.truncate(0)
