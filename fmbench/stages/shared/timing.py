"""A stopwatch that waits for the GPU."""

import time
from typing import Self

import torch


class Stopwatch:
    """Adds up the wall seconds of its ``with`` blocks, until the GPU has finished the work started in them."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, 0.0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()

    def __enter__(self) -> Self:
        self.began = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += self._now() - self.began
