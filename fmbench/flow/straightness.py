"""How straight the trajectories of a flow are, from the evaluations of a fine solve (Liu et al. 2022, *Flow Straight and Fast*).

With the displacement d = x(t_1) - x(t_0) over the time T = t_1 - t_0 and the velocity v along the trajectory:

    straightness S = mean over samples of the integral of |d / T - v|^2 dt = mean of (integral of |v|^2 dt - |d|^2 / T)
    path length ratio = mean over samples of (integral of |v| dt) / |d|

S is 0 and the ratio is 1 only for straight trajectories; those with S = 0 also have a constant speed, so that one Euler step is
exact. S is given per coordinate. The ratio does not depend on the speed along the trajectory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fmbench.flow.fields import Field


class Straightness(NamedTuple):
    """Of each sample, float64 (B,)."""

    deviation: Tensor
    """The integral of |d / T - v|^2 dt, per coordinate."""
    ratio: Tensor
    """Path length over displacement; infinite for a path that ends where it started."""


class MeasuredField:
    """A field that integrates |v|^2 and |v| by the trapezoidal rule over the times at which a fixed-step solver calls it.

    Each evaluation of a Runge-Kutta step lies on the trajectory up to the square of the step, as the rule's own error does.
    """

    def __init__(self, field: Field) -> None:
        self.field = field
        self._last: tuple[float, Tensor] | None = None
        self._energy: Tensor | float = 0.0
        self._length: Tensor | float = 0.0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        v = self.field(t, x)
        self._advance(float(t), v.detach().double().flatten(1).square().sum(1))
        return v

    def _advance(self, t: float, square: Tensor) -> None:
        if self._last is not None:
            before, last = self._last
            self._energy = self._energy + (t - before) * (last + square) / 2
            self._length = self._length + (t - before) * (last.sqrt() + square.sqrt()) / 2
        self._last = (t, square)

    def straightness(self, x0: Tensor, x1: Tensor, t0: float, t1: float) -> Straightness:
        """How straight the trajectories from x0 (B, *) at t0 to x1 at t1 are. The last speed counts up to t1.

        Raises:
            ValueError: the field was not evaluated.
        """
        if self._last is None:
            raise ValueError("no evaluation of the field, so there is no trajectory; solve with this field first")
        self._advance(t1, self._last[1])
        squares = (x1.double() - x0.double()).flatten(1).square().sum(1)
        deviation = (torch.as_tensor(self._energy) - squares / (t1 - t0)) / x0[0].numel()
        return Straightness(deviation, torch.as_tensor(self._length) / squares.sqrt())
