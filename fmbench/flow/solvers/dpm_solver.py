"""DPM-Solver, single-step (Lu et al. 2022, arXiv:2206.00927): exponential integrators of the predicted noise in lam = log(a / s).

The exact solution over a step of h in lam, with eps for the predicted noise on the way, is

    x' = (a' / a) x - a' * integral over the step of e^-lam eps dlam.

`dpm_2s` and `dpm_3s` (DPM-Solver-2 and -3, algorithms 1 and 2 there) evaluate eps inside the step too, at lam + r h, and so
cost 2 and 3 evaluations a step. They spend any number of evaluations exactly, as DPM-Solver-fast does: steps of the full order,
then one of what is left. If nothing is left, the last step of order 3 becomes one of order 2 and one of order 1.

A step that starts or ends where lam is infinite (a = 0 or s = 0) is that of DDIM, of order 1. In the formulas ``p`` is the
place at the start of the step and ``to`` the place of its end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fmbench.flow.fields import Field, checked
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import EPSILON, VELOCITY, Prediction, convert
from fmbench.flow.solvers.constant import check_constant
from fmbench.flow.solvers.ddim import ddim


class Place(NamedTuple):
    """A time on the path, with its numbers."""

    t: Tensor
    a: float
    s: float
    lam: float


Noise = Callable[[Place, Tensor], Tensor]
"""The predicted noise at a place and a state."""


def first(eps: Noise, x: Tensor, p: Place, to: Place) -> Tensor:
    """DDIM: eps is constant over the step."""
    h = to.lam - p.lam
    return to.a / p.a * x - to.s * math.expm1(h) * eps(p, x)


def second(eps: Noise, x: Tensor, p: Place, mid: Place, to: Place) -> Tensor:
    """Algorithm 1, with r = 1/2."""
    h, half = to.lam - p.lam, mid.lam - p.lam
    u = mid.a / p.a * x - mid.s * math.expm1(half) * eps(p, x)
    return to.a / p.a * x - to.s * math.expm1(h) * eps(mid, u)


def third(eps: Noise, x: Tensor, p: Place, one: Place, two: Place, to: Place) -> Tensor:
    """Algorithm 2, with r1 = 1/3 and r2 = 2/3."""
    h, h1, h2 = to.lam - p.lam, one.lam - p.lam, two.lam - p.lam
    e = eps(p, x)
    u1 = one.a / p.a * x - one.s * math.expm1(h1) * e
    d1 = eps(one, u1) - e
    u2 = two.a / p.a * x - two.s * (math.expm1(h2) * e + h2 / h1 * (math.expm1(h2) / h2 - 1) * d1)
    d2 = eps(two, u2) - e
    return to.a / p.a * x - to.s * (math.expm1(h) * e + h / h2 * (math.expm1(h) / h - 1) * d2)


STEPS: dict[int, Callable[..., Tensor]] = {1: first, 2: second, 3: third}
INSIDE: dict[int, tuple[float, ...]] = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}
"""Where a step of each order evaluates eps beside its start, as fractions r of h."""


@dataclass(frozen=True)
class SingleStep:
    """DPM-Solver of an order up to 3, which is also the evaluations that a step costs."""

    order: int

    @property
    def cost(self) -> int:
        return self.order

    def spend(self, nfe: int, field: Field, x: Tensor, grid: Callable[[int], Tensor], path: AffinePath) -> Tensor:
        """The final state (B, *) of a solve from x with exactly ``nfe`` evaluations of the velocity field."""
        finite = path.log_snr(grid(1)).isfinite().tolist()
        orders = self.orders(nfe, starts=not finite[0], ends=not finite[1])
        return self.solve(field, x, grid(len(orders)), path, orders)

    def orders(self, nfe: int, starts: bool = False, ends: bool = False) -> list[int]:
        """The orders of the steps that spend ``nfe``, for a path that starts or ends where lam is infinite.

        Raises:
            ValueError: ``nfe`` is not positive.
        """
        if nfe < 1:
            raise ValueError(f"the number of evaluations must be positive, not {nfe}")
        if nfe == 1:
            return [1]
        whole, rest = divmod(nfe - starts - ends, self.order)
        orders = [self.order] * whole + [rest] * (rest > 0)
        if orders and orders[-1] == 3 and not ends:
            orders[-1:] = [2, 1]
        return [1] * starts + orders + [1] * ends

    def solve(
        self, network: Field, x: Tensor, grid: Tensor, path: AffinePath, orders: Sequence[int], prediction: Prediction = VELOCITY
    ) -> Tensor:
        """Integrate along ``grid``, with one order for each step.

        Args:
            network: its prediction at (t, x), t of shape ().
            x: initial state, shape (B, *).
            grid: times, float64, shape (N + 1,).
            prediction: what the network puts out.

        Returns:
            The final state, shape (B, *).

        Raises:
            ValueError: not as many orders as steps, a grid that requires a gradient, a step of higher order from or to a time
                where lam is infinite, or a network that returns another shape, type or device than that of x.
        """
        check_constant("grid", grid)
        network = checked(network)
        if len(orders) != len(grid) - 1:
            raise ValueError(f"{len(grid) - 1} steps need as many orders, not {len(orders)}")

        def eps(p: Place, y: Tensor) -> Tensor:
            return convert(network(p.t, y), y, p.t, path, prediction, EPSILON)

        for k, (order, places) in enumerate(zip(orders, _places(grid, path, orders), strict=True)):
            if math.isfinite(places[0].lam) and math.isfinite(places[-1].lam):
                x = STEPS[order](eps, x, *(p._replace(t=p.t.to(x.device)) for p in places))
            elif order == 1:
                x = ddim(network, x, grid[k : k + 2], path, prediction)
            else:
                raise ValueError(f"log(a / s) is infinite at one end of step {k}, which must then have order 1, not {order}")
        return x


def _places(grid: Tensor, path: AffinePath, orders: Sequence[int]) -> list[list[Place]]:
    """The start of each step, its inner places and its end; all inner times in one inversion of the path's log SNR."""
    grid = grid.detach().cpu().double()
    lam = (path.log_snr(grid) / 2).tolist()
    inside = [lam[k] + r * (lam[k + 1] - lam[k]) for k, order in enumerate(orders) for r in INSIDE[order]]
    inner = path.time_of_log_snr(2 * torch.tensor(inside, dtype=torch.float64))

    def placed(times: Tensor, lams: Sequence[float]) -> list[Place]:
        c = path.coefficients(times)
        return [Place(*values) for values in zip(times.unbind(), c.a.tolist(), c.s.tolist(), lams, strict=True)]

    ends, between = placed(grid, lam), iter(placed(inner, inside))
    return [[ends[k], *(next(between) for _ in INSIDE[order]), ends[k + 1]] for k, order in enumerate(orders)]


DPM_2S, DPM_3S = SingleStep(2), SingleStep(3)
