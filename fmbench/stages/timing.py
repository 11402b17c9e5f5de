"""How long a solve took."""

import time
from typing import Self

import torch


class Stopwatch:
    """Wall seconds spent inside of its ``with`` blocks, with all that a GPU still had to do at their end."""

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
