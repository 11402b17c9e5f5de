"""Exponential moving average of weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class EMA:
    """average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) at the n-th update (n from 0).

    The average starts as a copy of the weights. d is small at first, so that the average forgets this start. n is part of the
    state, so a resumed run continues with the right d.

    Attributes:
        parameters: the weights that are averaged.
        averages: their averages, in the same order.

    Raises:
        ValueError: the decay is not in [0, 1).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), not {decay}")
        self.decay, self.updates = decay, 0
        self.parameters: list[Tensor] = list(parameters)
        self.averages = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Update all averages, in one call."""
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - d)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[nn.Parameter]) -> None:
        """Write the averages into the parameters of another network, which are in the same order."""
        for p, average in zip(parameters, self.averages, strict=True):
            p.copy_(average)

    def state_dict(self) -> dict[str, list[Tensor] | int]:
        """The averages and the number of updates."""
        return {"averages": self.averages, "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Restore a state of :meth:`state_dict`.

        Raises:
            ValueError: the shapes or the number of the averages differ.
        """
        for mine, theirs in zip(self.averages, state["averages"], strict=True):
            if mine.shape != theirs.shape:  # copy_ would broadcast silently
                raise ValueError(f"an average of shape {tuple(theirs.shape)} does not fit weights of {tuple(mine.shape)}")
            mine.copy_(theirs)
        self.updates = int(state["updates"])
