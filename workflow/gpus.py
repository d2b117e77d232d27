"""Assigns GPUs to jobs on one machine: ``python -m workflow.gpus 2 COMMAND ...`` runs COMMAND on two free GPUs.

``snakemake --resources gpu=8`` only counts GPUs and does not assign them to jobs. Here each GPU has a lock file, held by a file
descriptor that COMMAND inherits: the kernel releases the lock when COMMAND ends in any way. COMMAND replaces this process, so
that it receives signals and its exit status is that of the job.

- GPUs are chosen from CUDA_VISIBLE_DEVICES; if it is not set, from all that nvidia-smi lists.
- With 0 GPUs they are hidden from COMMAND. With `auto` it gets one if the machine has GPUs, and otherwise runs on the CPU.
- In a Slurm job Slurm assigns the GPUs by CUDA_VISIBLE_DEVICES. Only if an allocation has more GPUs than requested here
  (`salloc --gpus=8`, then snakemake inside) are they divided among the jobs of that allocation. Within a step of a Slurm job
  COMMAND is started as its own step (own_step), so that it receives Slurm's signals.
- Locks are per user and machine; jobs of other users are not taken into account.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

LOCKS = Path("/tmp") / f"sfpo-gpus-{os.getuid()}"
"""Folder of this user's locks on this machine. Not in $TMPDIR, which can differ between jobs."""
POLL_SECONDS = 0.2
AUTO = "auto"
TURN = "turn.lock"
"""Lock held while choosing GPUs, to avoid a deadlock of two jobs that each hold half of the GPUs they need."""


class NoSuchGpus(ValueError):
    """More GPUs are requested than there are."""


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Names of the GPUs that this process may use: numbers, or UUIDs where CUDA_VISIBLE_DEVICES has those.

    Raises:
        subprocess.CalledProcessError: nvidia-smi fails.
    """
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        try:
            command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
            listed = ",".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        except FileNotFoundError:
            return []
    names: list[str] = []
    for name in map(str.strip, listed.split(",")):
        if name in ("", "-1"):  # CUDA reads up to the first name that is none
            break
        names.append(name)
    return names


@contextmanager
def own_gpus(asked: int | str, environment: Mapping[str, str] = os.environ, locks: Path = LOCKS) -> Iterator[dict[str, str]]:
    """Wait until the requested number of GPUs is free, and lock them; yields the environment for a process that uses them.

    Args:
        asked: number of GPUs. 0: GPUs are hidden from the process; "auto": one if the machine has GPUs.
        environment: as in os.environ.
        locks: folder of the lock files.

    Raises:
        NoSuchGpus: there are fewer GPUs than requested.
        PermissionError: the lock folder belongs to another user.
        subprocess.CalledProcessError: nvidia-smi fails.
    """
    own = dict(environment)
    listed = "CUDA_VISIBLE_DEVICES" in environment
    allocation = environment.get("SLURM_JOB_ID")
    gpus = [] if asked == 0 or (allocation and not listed) else _visible(environment, asked)
    count = min(1, len(gpus)) if asked == AUTO else int(asked)
    if count == 0:
        own["CUDA_VISIBLE_DEVICES"] = ""
    if count == 0 or (allocation and not listed):
        yield own
        return
    if allocation and len(gpus) <= count:
        yield own
        return
    if len(gpus) < count:
        source = "CUDA_VISIBLE_DEVICES" if listed else "nvidia-smi"
        raise NoSuchGpus(f"{count} GPUs requested; {source} has {len(gpus)}: {', '.join(gpus) or 'none'}")
    folder = locks / f"slurm-{allocation}" if allocation else locks  # GPUs may be numbered from 0 in each allocation
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    taken = _take(count, gpus, folder)
    try:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        if not listed:
            own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # numbering of nvidia-smi; CUDA's default starts with the fastest GPU
        yield own
    finally:
        for descriptor in taken.values():
            os.close(descriptor)


def _visible(environment: Mapping[str, str], asked: int | str) -> list[str]:
    try:
        return visible_gpus(environment)
    except subprocess.CalledProcessError:
        if asked == AUTO:  # nvidia-smi without a device or a driver: there is no GPU
            return []
        raise


def _take(count: int, gpus: Sequence[str], folder: Path) -> dict[str, int]:
    """GPU -> descriptor of its lock, for ``count`` GPUs. While waiting, it holds none."""
    reported = False
    while True:
        turn = _lock(folder / TURN)
        try:
            taken: dict[str, int] = {}
            for name in gpus:
                if len(taken) < count and (descriptor := _lock_if_free(folder / f"{name.replace('/', '-')}.lock")) is not None:
                    taken[name] = descriptor
            if len(taken) == count:
                return taken
            for descriptor in taken.values():
                os.close(descriptor)
        finally:
            os.close(turn)
        if not reported:
            print(f"waiting for {count} of the GPUs {', '.join(gpus)} (locks in {folder})", file=sys.stderr, flush=True)
            reported = True
        time.sleep(POLL_SECONDS)


def _lock_if_free(path: Path) -> int | None:
    """As ``_lock``; None: another process holds it."""
    try:
        return _lock(path, fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _lock(path: Path, flags: int = 0) -> int:
    """A descriptor that holds the file and outlives exec. Waits for the file, or raises BlockingIOError under LOCK_NB."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except BlockingIOError:
        os.close(descriptor)
        raise
    os.set_inheritable(descriptor, True)
    return descriptor


def own_step(count: int, environment: Mapping[str, str], tasks: int = 1) -> list[str]:
    """The srun prefix that starts a command inside a step of a Slurm job as its own step of ``tasks`` tasks, on the job's CPUs
    and GPUs; empty if that is not needed.

    Snakemake's Slurm plugin runs Snakemake as the step, and the command as its child. With proctrack/cgroup, which most
    clusters use, Slurm sends SIGTERM only to the main process of a step, so the command would not be notified of preemption or
    the time limit. With other proctrack plugins it is notified, but so would be srun, which would end the command before it has
    saved.
    """
    if "SLURM_STEP_ID" not in environment or (tasks == 1 and not _steps_alone_are_told(environment)):
        return []
    same = ["srun", "--quiet", "--overlap", f"--ntasks={tasks}", "--mem=0", "--cpu-bind=quiet", "--input=none"]
    same += ["--nodes=1"] if tasks == 1 else ["--kill-on-bad-exit=1"]  # on as many nodes as the job has; all end with one
    cpus = environment.get("SLURM_CPUS_PER_TASK")
    return [*same, *([f"--cpus-per-task={cpus}"] if cpus else []), *([f"--gpus={count}"] if count else [])]


def _steps_alone_are_told(environment: Mapping[str, str]) -> bool:
    asked = subprocess.run(["scontrol", "show", "config"], env=dict(environment), capture_output=True, text=True, check=True)
    return "proctrack/cgroup" in asked.stdout


def _count(word: str) -> int | str:
    if word != AUTO and not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word}: must be a number of GPUs, or {AUTO}")
    return word if word == AUTO else int(word)


def main(argv: Sequence[str] | None = None) -> None:
    """Replace this process by the command, with its GPUs. On errors of ``own_gpus``: exit status 1 and a one-line message."""
    parser = argparse.ArgumentParser(prog="python -m workflow.gpus", description=__doc__.splitlines()[0])
    parser.add_argument("--locks", type=Path, default=LOCKS, help="folder of the lock files (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=1, help="in a step of a Slurm job: start the command so many times")
    parser.add_argument("count", type=_count, help="GPUs that the command needs; 0: none; auto: one where there is one")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    arguments = parser.parse_args(argv)
    if not arguments.command:
        parser.error("name a command")
    try:
        with own_gpus(arguments.count, locks=arguments.locks) as environment:
            gpus = 0 if arguments.count == AUTO else arguments.count
            command = [*own_step(gpus, environment, arguments.tasks), *arguments.command]
            os.execvpe(command[0], command, environment)
    except (NoSuchGpus, PermissionError, subprocess.CalledProcessError) as error:
        sys.exit(f"workflow.gpus: {error}")


if __name__ == "__main__":
    main()
