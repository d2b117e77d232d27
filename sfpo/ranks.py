"""The processes of one training job: one alone, or those that torchrun started together.

Alone there is no process group, and every operation here gives back what it was given. torch is imported where it is needed:
its threads are fixed by then, and ``cores`` says to how many.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its job. What it asks of the others, all of them must ask in the same order."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    """All ranks in one dimension; None: there is no process group."""
    writers: ProcessGroup | None = None
    """All ranks in a process group of their own, for threads that write while these compute."""

    @property
    def first(self) -> bool:
        """The rank that writes what is written once."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks, on every rank."""
        if self.mesh is None:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum_(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor added up, in place; the same bits on every rank."""
        if self.mesh is not None:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor


SINGLE_PROCESS = Ranks()


def cores() -> int:
    """Cores for this process: those that it may use, shared with the job's other processes on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def init_distributed() -> Ranks:
    """Join the processes that torchrun (or another launcher that keeps to torch's env://) started with this one.

    The process group lasts as long as the process: vLLM, which uses it too, takes it down when the process ends.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return SINGLE_PROCESS
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    mesh = init_device_mesh("cuda" if on_gpu else "cpu", (dist.get_world_size(),))
    return Ranks(dist.get_rank(), dist.get_world_size(), mesh, dist.new_group(backend="gloo"))
