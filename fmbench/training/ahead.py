"""A thread that makes the items of a sequence a few ahead of their use; on a GPU, on a stream of its own."""

import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

AHEAD = 4
"""How many items are made ahead."""
NAME = "fmbench-batches"
"""The name of the thread."""

Item = TypeVar("Item")
Batch = tuple[Tensor, ...]


class Ahead(Generic[Item]):
    """``ahead.take(i)`` is ``make(i)``, for consecutive i from the first that is taken.

    Args:
        make: called in the thread alone.
        last: the first number that is not made.
    """

    def __init__(self, make: Callable[[int], Item], last: int) -> None:
        self.make, self.last = make, last
        self._queue: queue.Queue[tuple[int, Item | Exception]] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, number: int) -> Item:
        """The item of this number.

        Raises:
            ValueError: the number is not the next one.
            Exception: what ``make`` raised.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(number,), name=NAME, daemon=True)
            self._thread.start()
        found, item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        if found != number:
            raise ValueError(f"a stream is read in order: iteration {found} is next, not {number}")
        return item

    def full(self) -> bool:
        """Whether as many items wait as may."""
        return self._queue.full()

    def _run(self, first: int) -> None:
        try:
            for number in range(first, self.last):
                if not self._put(number, self.make(number)):
                    return
        except Exception as error:
            self._put(-1, error)

    def _put(self, number: int, item: Item | Exception) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put((number, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


@dataclass(frozen=True)
class MadeAside:
    """A batch from another thread, and on a GPU the event after which it is there."""

    batch: Batch
    made: torch.cuda.Event | None

    def here(self) -> Batch:
        """The batch, for work on the current stream of this thread."""
        if self.made is not None:
            stream = torch.cuda.current_stream(self.batch[0].device)
            stream.wait_event(self.made)
            for x in self.batch:
                x.record_stream(stream)
        return self.batch


class OnItsOwnStream:
    """Makes batches in another thread. On a GPU it has a stream of its own, so that it waits for its own work alone."""

    def __init__(self, make: Callable[[int], Batch], device: torch.device) -> None:
        self.make, self.device = make, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))  # for the data

    def __call__(self, step: int) -> MadeAside:
        with contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            batch = self.make(step)
            return MadeAside(batch, None if self.stream is None else self.stream.record_event())
