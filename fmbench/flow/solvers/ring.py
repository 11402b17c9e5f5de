"""Steps with known weights, for small states: a ring of the last states and outputs, and one product with it for each step.

With few numbers a call takes longer than its arithmetic, so that a step of many additions is slow. Here every step takes three
operations, whatever its order:

1. the network's output is copied into the ring,
2. the ring times the weights of the step is the next state, written into the place whose weights are zero,
3. that state is copied for the network, so that nobody who keeps it sees it overwritten.

The ring has states and outputs, and no predictions made of them. Where weights are huge, as near a = 0 and s = 0, the newest
output then still has a small weight, as in Euler's method.

Memory: a method with n older predictions holds n + 2 states and as many outputs.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from fmbench.flow.fields import Field

SMALL = 1024
"""States of up to this many numbers are small. For larger ones the products read more than the additions that they save."""


class Ring:
    """The steps of a method.

    Args:
        steps: for each step the weights of x and of the network's output there, at the step before, ...: newest first.
    """

    def __init__(self, steps: Sequence[Sequence[tuple[float, float]]]) -> None:
        self.size = 1 + max(map(len, steps), default=0)
        weights = np.zeros((len(steps), 2, self.size))
        for k, terms in enumerate(steps):
            for i, both in enumerate(terms):
                weights[k, :, (k - i) % self.size] = both
        rows = torch.from_numpy(weights).flatten(1)
        self.weights = {dtype: rows.to(dtype).unbind() for dtype in (torch.float32, torch.float64)}

    def run(self, network: Field, x: Tensor, times: Sequence[Tensor]) -> Tensor:
        """The final state (B, *) of a solve from ``x`` (B, *), for the time of each step."""
        past = x.new_zeros(2, self.size, *x.shape)
        numbers = past.flatten(2).flatten(0, 1)
        states, outputs, columns, rows = past[0].unbind(), past[1].unbind(), numbers.T, numbers[: self.size].unbind()
        states[0].copy_(x)
        places = cycle(zip(outputs, _next(rows), _next(states), strict=True))
        for t, weights, (output, row, state) in zip(times, self.weights[x.dtype], places, strict=False):
            output.copy_(network(t, x))
            torch.mv(columns, weights, out=row)
            x = state.clone()
        return x


def suits(x: Tensor) -> bool:
    """Whether a solve from ``x`` can use a :class:`Ring`, and is faster with it.

    It has no derivatives. Its weights have the type of the states, so it is for types as precise as float32. It is for the CPU:
    a GPU may round the factors of a product.
    """
    types = torch.float32, torch.float64
    return x.numel() <= SMALL and x.device.type == "cpu" and x.dtype in types and not torch.is_grad_enabled()


def _next(places: Sequence[Tensor]) -> list[Tensor]:
    """Places of the ring, each in turn for the step before it."""
    return [*places[1:], places[0]]
