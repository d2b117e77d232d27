"""GPUs of its own for each job on one machine: ``python -m workflow.gpus 2 COMMAND ...`` runs COMMAND on two that are free.

``snakemake --resources gpu=8`` counts GPUs and tells no job which are its own. Here a GPU is one lock file, held through a
descriptor that COMMAND inherits: the kernel drops the lock when COMMAND ends, however it ends. COMMAND replaces this process,
so that signals reach it and its exit status is the job's.

- The GPUs to choose from are those of CUDA_VISIBLE_DEVICES; without it, all that nvidia-smi lists.
- With 0 GPUs COMMAND sees none. With `auto` it gets one where there is one, and else runs on the CPU.
- In a Slurm job the choice is Slurm's, and CUDA_VISIBLE_DEVICES holds it. Only where an allocation has more GPUs than asked for
  (`salloc --gpus=8`, then snakemake inside) are they divided, among the jobs of that allocation. Within a step of a Slurm job
  COMMAND is made a step of its own (own_step), so that Slurm's signals reach it.
- The locks are of one user on one machine; other users' jobs are not seen.
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
"""Where this user's locks on this machine are. Not in $TMPDIR, which may be another for each job."""
POLL_SECONDS = 0.2
AUTO = "auto"
TURN = "turn.lock"
"""Held while choosing, so that no two jobs each take half of what they need and wait for the other."""


class NoSuchGpus(ValueError):
    """More GPUs are asked for than there are."""


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
    """Hold GPUs, after waiting until so many are free; yields the environment for a process that uses them.

    Args:
        asked: number of GPUs. 0: the process sees none; "auto": one where there is one.
        environment: as in os.environ.
        locks: folder of the lock files.

    Raises:
        NoSuchGpus: there are fewer than asked for in all.
        PermissionError: the lock folder is another user's.
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
        raise NoSuchGpus(f"{count} GPUs asked for; {source} has {len(gpus)}: {', '.join(gpus) or 'none'}")
    folder = locks / f"slurm-{allocation}" if allocation else locks  # GPUs may be numbered from 0 in each allocation
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is another user's")
    taken = _take(count, gpus, folder)
    try:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        if not listed:
            own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # nvidia-smi's numbers; CUDA's own begin with the fastest GPU
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
    """GPU -> descriptor of its lock, for ``count`` of them, or none while it waits."""
    told = False
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
        if not told:
            print(f"waiting for {count} of the GPUs {', '.join(gpus)} (locks in {folder})", file=sys.stderr, flush=True)
            told = True
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
    """What makes a command in a step of a Slurm job a step of its own, ``tasks`` times, on the job's CPUs and GPUs; nothing
    where that is not needed.

    Snakemake's plugin runs Snakemake as the step, and the command below it. With proctrack/cgroup, which most clusters have,
    Slurm sends SIGTERM to a step's own process alone: the command would not hear of preemption or of the time limit. With other
    kinds it hears, and srun does too, which would then end the command before it has saved.
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
        raise argparse.ArgumentTypeError(f"{word}: a number of GPUs, or {AUTO}")
    return word if word == AUTO else int(word)


def main(argv: Sequence[str] | None = None) -> None:
    """Become the command, with GPUs of its own. Errors of ``own_gpus`` end it with status 1 and one line."""
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
