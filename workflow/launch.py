"""A training job of several processes: ``python -m workflow.launch 8 sfpo.train SETTINGS ...`` runs the module in 8 of them.

torchrun starts them, ends all of them when one dies, and names the first that failed. What is added: SIGTERM is passed on to
every process, and they are left the time to save; torchrun itself would kill them half a minute later. In a Slurm step of
several tasks each task starts its share of the processes, which meet at the first task's host. With one process the module is
run in this one.
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
"""From the death of one process to the end of the others: the job ends within a minute."""
PORTS = range(20_000, 30_000)
"""A job's own, by its number: below those that the kernel gives to others by itself."""


def torchrun_arguments(processes: int, environment: Mapping[str, str]) -> list[str]:
    """How torchrun is told of all processes.

    Args:
        processes: of the whole job.
        environment: as in os.environ; Slurm's variables say how many tasks share the work.

    Raises:
        ValueError: the tasks cannot share the processes evenly.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if processes % tasks:
        raise ValueError(f"{processes} processes cannot be shared out among {tasks} tasks")
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
    """SIGTERM to every child."""
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.launch", description=__doc__.splitlines()[0])
    parser.add_argument("processes", type=int, help="of the whole job")
    parser.add_argument("module", help="what each of them runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    told = parser.parse_args(argv)
    if told.processes == 1:
        sys.argv = [told.module, *told.arguments]
        runpy.run_module(told.module, run_name="__main__", alter_sys=True)
        return
    from torch.distributed.run import main as torchrun

    try:
        how = torchrun_arguments(told.processes, os.environ)
    except ValueError as error:
        sys.exit(f"workflow.launch: {error}")
    signal.signal(signal.SIGTERM, pass_on)
    torchrun([*how, "-m", told.module, *told.arguments])


if __name__ == "__main__":
    main()
