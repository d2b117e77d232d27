"""A training job of several processes: ``python -m workflow.launch 8 sfpo.train SETTINGS ...`` runs the module in 8 of them.

torchrun starts them, ends all of them when one dies, and names the first that failed. In addition, SIGTERM is forwarded to
every process, and they get time to save; torchrun itself would kill them after 30 s. In a Slurm step of several tasks each task
starts its share of the processes, with the rendezvous on the host of the first task. A single process is run without torchrun.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SHUTDOWN_SECONDS = 40
"""Seconds from the death of one process until the others are killed, so that the job ends within a minute."""
PORTS = range(20_000, 30_000)
"""Rendezvous ports, chosen by job id; below the kernel's ephemeral ports."""


def torchrun_arguments(processes: int, environment: Mapping[str, str]) -> list[str]:
    """torchrun's arguments for all processes of the job.

    Args:
        processes: total number of the job.
        environment: as in os.environ; the number of tasks is read from Slurm's variables.

    Raises:
        ValueError: the tasks cannot share the processes evenly.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if processes % tasks:
        raise ValueError(f"{processes} processes cannot be divided evenly among {tasks} tasks")
    own = ["--nproc-per-node", str(processes // tasks), "--shutdown-timeout", str(SHUTDOWN_SECONDS)]
    signals = ["--signals-to-handle", "SIGINT,SIGHUP,SIGQUIT"]
    if tasks == 1:
        return [*own, *signals, "--standalone"]
    # Where srun ran (workflow.gpus, on the job's first node), and with it the first task.
    first = environment["SLURM_LAUNCH_NODE_IPADDR"]
    port = PORTS[int(environment["SLURM_JOB_ID"]) % len(PORTS)]
    rank = environment["SLURM_PROCID"]
    return [*own, *signals, "--nnodes", str(tasks), "--node-rank", rank, "--master-addr", first, "--master-port", str(port)]


def pass_on(*_: object) -> None:
    """Signal handler: forward SIGTERM to all child processes."""
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.launch", description=__doc__.splitlines()[0])
    parser.add_argument("processes", type=int, help="total number of processes of the job")
    parser.add_argument("module", help="module that each process runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parsed = parser.parse_args(argv)
    if parsed.processes == 1:
        sys.argv = [parsed.module, *parsed.arguments]
        runpy.run_module(parsed.module, run_name="__main__", alter_sys=True)
        return
    from torch.distributed.run import main as torchrun

    try:
        options = torchrun_arguments(parsed.processes, os.environ)
    except ValueError as error:
        sys.exit(f"workflow.launch: {error}")
    signal.signal(signal.SIGTERM, pass_on)
    torchrun([*options, "-m", parsed.module, *parsed.arguments])


if __name__ == "__main__":
    main()
