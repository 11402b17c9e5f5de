"""Several processes at one job, as ``torchrun`` starts them. A process on its own is a group of one, and pays nothing for it."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fmbench.config.specs import launcher
from fmbench.errors import ConfigError
from fmbench.system.devices import take_gpu

Item = TypeVar("Item")
Result = TypeVar("Result")

# Should a process die, torchrun ends the others; a slow one (a checkpoint on a slow disk, a long solve) must not.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Group:
    """The processes at one job: all run the same code, the first alone writes."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """This process's share of n things in a row.

        Raises:
            ValueError: n is not a multiple of the number of processes.
        """
        if n % self.size:
            raise ValueError(f"{n} cannot be shared by {self.size} processes evenly")
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, entry by entry; the same numbers on each of them."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """``function`` of each item, in order, on every process; each computes its share of them.

        What ``function`` gives is pickled and should be on the CPU.
        """
        if self.size == 1:
            yield from map(function, items)
            return
        for start in range(0, len(items), self.size):
            mine = items[start + self.rank : start + self.rank + 1]
            results: list[Any] = [None] * self.size
            dist.all_gather_object(results, [function(item) for item in mine])
            for result in results:
                yield from result

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group; a process that fails need not, torchrun ends the others."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Group()


def launched() -> int:
    """How many processes were started together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device_of(name: str) -> str:
    """``cuda`` with the number of the GPU that is this process's; any other name as it is.

    Processes that torchrun started take the machine's first GPUs, one each; one on its own takes the least taken.
    """
    if name != "cuda":
        return name
    return take_gpu() if launched() == 1 else f"cuda:{os.environ['LOCAL_RANK']}"


def join(device: torch.device) -> Group:
    """The group that torchrun started this process in, by NCCL between GPUs and gloo between CPUs.

    Raises:
        ConfigError: the processes cannot find each other.
    """
    if launched() == 1:
        return ALONE
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the {launched()} processes cannot find each other ({error}); start them by {launcher(launched())}"
        ) from None
    return Group(dist.get_rank(), dist.get_world_size())
