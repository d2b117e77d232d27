"""A real Slurm of one node on this machine, for tests and to try the profile: daemons on the loopback, all files in one folder.

    python -m tests.workflow.slurm_node --install             slurm and munge, from Debian's or Ubuntu's packages
    python -m tests.workflow.slurm_node snakemake --profile workflow/profiles/slurm --slurm-status-command squeue

starts it, runs the command with Slurm's commands first on its PATH, and stops it; as root. Nothing is written to /etc/slurm: a
Slurm that this machine may belong to stays as it is.

Two CPUs, two pretended GPUs, and two partitions: `low` is preempted by `high`, with GRACE_SECONDS between SIGTERM and SIGKILL.
No accounting, hence no sacct: Snakemake asks squeue. No cgroups: they need rights that containers rarely grant.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
DAEMONS = ("slurmctld", "slurmd", "munged")
CLIENTS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel")
GRACE_SECONDS = 60
LIMIT_SECONDS = 60
TOLD_CHARACTERS = 500
"""Of each log, in an error."""
CONFIGURATION = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
NodeName=trial NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 Gres=gpu:2
PartitionName=low Nodes=trial Default=YES PriorityTier=1 GraceTime={grace}
PartitionName=high Nodes=trial PriorityTier=2 PreemptMode=OFF
"""
GPUS = """\
AutoDetect=off
NodeName=trial Name=gpu File=/dev/null
NodeName=trial Name=gpu File=/dev/zero
"""


class NoSlurm(RuntimeError):
    """Slurm cannot be installed or started here; says why."""


def install() -> None:
    """Slurm and munge from the distribution's packages, unless they are here; no service is started.

    Raises:
        NoSlurm: not root, no apt-get, or the packages cannot be had.
    """
    if not missing():
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise NoSlurm(f"{', '.join(PACKAGES)}: to be installed by root, with apt-get")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # at runlevel 1 a package starts no service
    get = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    for command in (get, ["apt-get", "update"], get):  # the first may know of no packages, or of old ones
        done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if command is get and done.returncode == 0:
            return
    raise NoSlurm(f"{' '.join(get)} gave {done.returncode}: {done.stderr[-TOLD_CHARACTERS:]}")


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in (*DAEMONS, *CLIENTS) if not _program(name)]


@contextmanager
def slurm_node() -> Iterator[dict[str, str]]:
    """Runs the node; yields the environment in which Slurm's commands and jobs are its own.

    Raises:
        NoSlurm: it is not installed, or does not start; says why.
    """
    if missing():
        raise NoSlurm(f"{', '.join(missing())}: not installed (`make test-slurm` does it)")
    if os.getuid() != 0:
        raise NoSlurm("only root can start Slurm's daemons")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # munge: its socket must be within everyone's reach
        _write(folder)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))},
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        }
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        commands = {
            "munged": ["--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
            "slurmctld": ["-D", "-i", "-f", f"{folder}/slurm.conf"],
            "slurmd": ["-D", "-N", "trial", "-f", f"{folder}/slurm.conf"],
        }
        for name, arguments in commands.items():
            stack.enter_context(_daemon(_program(name), arguments, folder / f"{name}.out"))
            if name == "munged":
                _wait(lambda: (folder / "munge.socket").exists(), folder)
        _wait(lambda: _run(environment, "sinfo", "--noheader", "--format=%T") == "idle", folder)
        try:
            yield environment
        finally:
            _run(environment, "scancel", "--user=root")
            _wait(lambda: _run(environment, "squeue", "--noheader") == "", folder)


def _write(folder: Path) -> None:
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    host = socket.gethostname().split(".")[0]
    text = CONFIGURATION.format(folder=folder, host=host, ports=ports, grace=GRACE_SECONDS)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(GPUS)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for name in CLIENTS:
        # The commands find their Slurm by themselves: SLURM_CONF does not reach jobs, nor what Snakemake starts in them.
        (folder / "bin" / name).write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_program(name)} "$@"\n')
        (folder / "bin" / name).chmod(0o755)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")


@contextmanager
def _daemon(program: str, arguments: list[str], log: Path) -> Iterator[None]:
    """A process that ends with the block, and with this process."""
    with log.open("w") as output:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", program, *arguments], stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip() or "failed"


def _wait(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            logs = [*folder.glob("*.log"), *folder.glob("*.out")]
            told = [f"{path.name}: {path.read_text(errors='replace')[-TOLD_CHARACTERS:]}" for path in logs]
            raise NoSlurm("\n".join(["Slurm does not get ready", *told]))
        time.sleep(0.2)


def main() -> int:
    """Run the command of this process's arguments; its exit status."""
    if sys.argv[1:] == ["--install"]:
        install()
        return 0
    with slurm_node() as environment:
        return subprocess.run(sys.argv[1:] or ["sinfo"], env=environment, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoSlurm as error:
        sys.exit(str(error))
