"""The processes (ranks) of one training job: a single process, or those that torchrun started.

With a single process there is no process group, and the collective operations return their input. torch is imported inside
functions: its number of threads, which ``cores`` gives, must be set before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its job. The methods are collective: all ranks must call them in the same order."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    """One-dimensional mesh of all ranks; None: there is no process group."""
    writers: ProcessGroup | None = None
    """A second process group of all ranks, for background threads that write while the main threads compute."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes the files of which there is one per job."""
        return self.rank == 0

    def gather(self, value: T, group: ProcessGroup | None = None) -> list[T]:
        """The values of all ranks, in rank order, on every rank.

        Args:
            group: ``writers`` in a background thread.
        """
        if self.mesh is None:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group)
        return values

    def of_first(self, make: Callable[[], T]) -> T:
        """The result of ``make`` on the first rank, on every rank. What it raises there is raised on every rank."""
        made, fault = None, None
        if self.first:
            try:
                made = make()
            except Exception as error:  # the other ranks would wait for it
                fault = error
        made, fault = self.gather((made, fault))[0]
        if fault is not None:
            raise fault
        return cast(T, made)

    def gather_tensors(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """The one-dimensional CPU tensors of all ranks, of whatever lengths, in rank order, on every rank."""
        if self.mesh is None:
            return [tensors]
        import torch
        import torch.distributed as dist

        own = torch.tensor([len(tensor) for tensor in tensors])
        every = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(every, own)
        lengths = torch.stack(every)
        gathered = []
        for tensor, of_ranks, most in zip(tensors, lengths.T.tolist(), lengths.amax(0).tolist(), strict=True):
            padded = torch.cat([tensor, tensor.new_zeros(most - len(tensor))])
            parts = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(parts, padded)
            gathered.append([part[:length] for part, length in zip(parts, of_ranks, strict=True)])
        return list(zip(*gathered, strict=True))

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum the tensor over all ranks, in place (all-reduce); bitwise equal on every rank."""
        if self.mesh is not None:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor


SINGLE_PROCESS = Ranks()


def cores() -> int:
    """Number of cores for this process: those available, divided by the number of the job's processes on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def init_distributed() -> Ranks:
    """Initialize torch.distributed for the processes that torchrun (or another launcher with torch's env:// method) started.

    The process group is not destroyed here: vLLM uses it too and destroys it when the process ends.
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
