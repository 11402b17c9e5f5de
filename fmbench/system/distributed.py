"""Several processes that work on one job, started by ``torchrun``. A single process is a group of one, at no cost."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fmbench.config.execution import launcher
from fmbench.errors import ConfigError
from fmbench.system.devices import take_gpu
from fmbench.system.progress import tell

Item = TypeVar("Item")
Result = TypeVar("Result")

# If a process dies, torchrun ends the others. A slow process (a checkpoint on a slow disk, a long solve) must not end them.
_TIMEOUT = timedelta(days=1)
_PATIENCE = 10.0
"""Seconds until a process says that it waits for the others at the start."""


@dataclass(frozen=True)
class Group:
    """The processes of one job. All run the same code; only the first one writes."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """Return the slice of n items that belongs to this process.

        Raises:
            ValueError: n is not a multiple of the number of processes.
        """
        if n % self.size:
            raise ValueError(f"{n} items cannot be shared evenly by {self.size} processes; use a multiple of {self.size}")
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of ``values`` over the processes, entry by entry. Every process gets the same numbers."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield ``function`` of each item, in order, on every process. Each process computes its share of the items.

        The results are pickled and should be on the CPU.
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
        """Wait until every process has reached this call."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group. A process that fails need not do so, since torchrun ends the others."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Group()


def launched() -> int:
    """Return how many processes were started together: 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(name: str) -> str:
    """Choose the device of this process: ``cuda`` gets the number of a GPU, any other name stays unchanged.

    Processes that torchrun started take the machine's first GPUs, one each. A single process takes the GPU with the fewest jobs.
    """
    if name != "cuda":
        return name
    return take_gpu() if launched() == 1 else f"cuda:{os.environ['LOCAL_RANK']}"


def join_group(device: torch.device, say: Callable[[str], None] = tell) -> Group:
    """Join the processes that torchrun started with this one: by NCCL between GPUs, by gloo between CPUs.

    Args:
        say: gets a message if the other processes do not come within seconds.

    Raises:
        ConfigError: the processes cannot find each other.
    """
    if launched() == 1:
        return ALONE
    _check_address(os.environ.get("MASTER_ADDR", ""))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    notice = threading.Timer(_PATIENCE, say, [_waiting()])
    notice.daemon = True
    notice.start()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the {launched()} processes cannot find each other ({error}); start them by {launcher(launched())}"
        ) from None
    finally:
        notice.cancel()
    return Group(dist.get_rank(), dist.get_world_size())


def _check_address(host: str) -> None:
    """Check that the address at which the processes meet is known here. torch would look it up again for a day."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise ConfigError(
            f"the {launched()} processes should meet at {host!r}, but this machine does not know that address ({error}); "
            f"start them by {launcher(launched())}"
        ) from None


def _waiting() -> str:
    """The message of a process that waits for the others at the start."""
    rank, host, port = (os.environ.get(name) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    return (
        f"process {rank} waits at {host}:{port} for the other {launched() - 1}; if they do not come, start all of them by "
        f"{launcher(launched())}"
    )
