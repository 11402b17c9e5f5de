"""Multistep methods: one evaluation of the network a step, with the predictions of earlier steps used again.

Notation, here and in the files of the families. A step goes from the level ``at[0]`` to the level ``to``; ``at[1]``, ``at[2]``,
... are the levels of the steps before it. A :class:`Level` has t, a, s, lam = log(a / s) and rho = s / a. ``x`` is the state at
``at[0]``, and ``m[i]`` what the network predicts at ``at[i]``: the data x1, the noise x0 or the velocity, one kind for a method.

A method is a formula for each order, from x and m to the next state. The formula is linear in them. It therefore runs once before
the first step and for all steps together: x and m are then unit vectors, the numbers of a level are columns with a row for each
step, and the result holds the weights of x, m[0], m[1], ... in every step. The loop after that only adds tensors.

The ends of a path need two rules, which are in :meth:`Multistep.plan` and so in no formula:

* Where the method's clock is infinite at one end of a step (lam at a = 0 and at s = 0, rho at a = 0), the step is that of DDIM,
  x' = a' x1 + s' x0. Its limit exists on every path.
* A level with an infinite clock is infinitely far away, so it has no weight in later steps.

Memory: beside x, a method of order p holds the last p predictions, one more state with a corrector.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmbench.flow.fields import Field, checked
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import EPSILON, VELOCITY, Prediction, X, convert
from fmbench.flow.solvers.constant import check_constant


class Level(NamedTuple):
    """What a formula knows of a time of the grid; each a number, or a column of shape (steps, 1)."""

    t: Any
    a: Any
    s: Any
    lam: Any
    rho: Any


Formula = Callable[[Any, Sequence[Any], Sequence[Level], Level], Any]
"""From (x, m, at, to) to the next state. It may use numpy's functions; it must be linear in x and m."""


@dataclass(frozen=True)
class Multistep:
    """A multistep method.

    Attributes:
        prediction: what its formulas take from the network.
        clock: the field of :class:`Level` in which it interpolates: ``t``, ``lam`` or ``rho``.
        predictors: its formulas of order 1, 2, ..., each for as many predictions as its order. The first steps and the steps of
            a lowered order take those of lower order.
        correctors: formulas that correct the state at the end of a step when its prediction is known: ``m`` then starts with
            that new prediction. The corrected state costs no evaluation. None for the last step, which has no new prediction.
        lower_order_final: whether step k of N, k from 0, has at most the order N - k, so that the last step has order 1.
    """

    prediction: Prediction
    clock: str
    predictors: tuple[Formula, ...]
    correctors: tuple[Formula, ...] = ()
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        if self.clock not in ("t", "lam", "rho"):
            raise ValueError(f"the clock must be t, lam or rho, not {self.clock!r}")
        if not self.predictors or len(self.correctors) not in (0, len(self.predictors)):
            raise ValueError("a multistep method needs a formula of order 1, and a corrector for every order or for none")

    def solve(self, network: Field, x: Tensor, grid: Tensor, path: AffinePath, prediction: Prediction = VELOCITY) -> Tensor:
        """Integrate along ``grid``, with one evaluation of the network a step.

        Args:
            network: its prediction at (t, x), t of shape ().
            x: initial state, shape (B, *).
            grid: times, float64, shape (N + 1,), increasing or decreasing.
            prediction: what the network puts out.

        Returns:
            The final state, shape (B, *). It has a derivative by x and by the parameters of the network.

        Raises:
            ValueError: the grid requires a gradient, or the network returns another shape, type or device than that of x.
        """
        return self.plan(grid, path, prediction).run(network, x)

    def plan(self, grid: Tensor, path: AffinePath, prediction: Prediction = VELOCITY) -> "Plan":
        """The weights of every step of :meth:`solve`."""
        check_constant("grid", grid)
        levels = _levels(grid, path)
        steps = len(grid) - 1
        finite = np.isfinite(getattr(levels, self.clock)[:, 0])
        orders = [_order(k, finite, len(self.predictors), self.lower_order_final) for k in range(steps)]
        own = _conversion(grid[:-1], path, prediction, self.prediction)
        planned = {k: _ddim_step(k, grid, levels, path, prediction) for k in range(steps) if not orders[k]}
        for order in sorted({order for order in orders if order}):
            ks = np.array([k for k in range(steps) if orders[k] == order])
            weights = _weights(self.predictors[order - 1], levels, ks, order)
            corrected = _weights(self.correctors[order - 1], levels, ks, order, corrects=True) if self.correctors else None
            for i, k in enumerate(ks.tolist()):
                kept = own.scale[k - order + 1 : k + 1][::-1]
                correction = None
                if corrected is not None and k + 1 < steps and finite[k + 1]:
                    correction = _scaled(corrected[i], [own.scale[k + 1], *kept])
                planned[k] = _Step(own.ratio[k], *_scaled(weights[i], kept), correction)
        return Plan(grid, [planned[k] for k in range(steps)], len(self.predictors))


class _Step(NamedTuple):
    """A step in numbers: q = p + ratio x from the network's output p, then x' = scale x + sum_i weights[i] q_i, newest first.

    ``corrector`` has the same two for the state at the step's end, with the new q first; None for no correction.
    """

    ratio: float
    scale: float
    weights: tuple[float, ...]
    corrector: tuple[float, tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Plan:
    """All steps of a method on one grid and path, for the networks of one kind."""

    grid: Tensor
    steps: list[_Step]
    order: int

    def run(self, network: Field, x: Tensor) -> Tensor:
        """The final state of a solve from ``x``, as :meth:`Multistep.solve` describes it."""
        network = checked(network)
        times = self.grid.to(x.device).unbind()
        kept: deque[Tensor] = deque(maxlen=self.order)
        before, corrector = x, None
        for t, (ratio, scale, weights, following) in zip(times, self.steps, strict=False):
            p = network(t, x)
            q = p.add(x, alpha=ratio) if ratio else p
            if corrector:
                x = _combine(before, corrector[0], (q, *kept), corrector[1])
            kept.appendleft(q)
            before, corrector = x, following
            x = _combine(x, scale, kept, weights)
        return x


def _combine(x: Tensor, scale: float, terms: Sequence[Tensor], weights: tuple[float, ...]) -> Tensor:
    """scale x + sum_i w_i q_i in a new tensor, over as many terms as there are weights."""
    x = x.add(terms[0], alpha=weights[0]) if scale == 1 else x.mul(scale).add_(terms[0], alpha=weights[0])
    for q, w in zip(islice(terms, 1, None), weights[1:], strict=False):
        x.add_(q, alpha=w)
    return x


def _order(k: int, finite: np.ndarray, highest: int, lower: bool) -> int:
    """The order of step k; 0 for the step of DDIM, where the clock is infinite at one of its ends."""
    if not (finite[k] and finite[k + 1]):
        return 0
    known = k + 1 if finite[: k + 1].all() else k - int(np.flatnonzero(~finite[: k + 1])[-1])
    return min(highest, known, len(finite) - 1 - k if lower else highest)


def _levels(grid: Tensor, path: AffinePath) -> Level:
    """The levels of a grid as columns (N + 1, 1)."""
    t = grid.detach().cpu().double()
    c = path.coefficients(t)
    return Level(*(v.numpy()[:, None] for v in (t, c.a, c.s, path.log_snr(t) / 2, c.s / c.a)))


class _Conversion(NamedTuple):
    """The conversion of a network's output p at each time to m = scale (p + ratio x)."""

    ratio: list[float]
    scale: list[float]


def _conversion(times: Tensor, path: AffinePath, source: Prediction, target: Prediction) -> _Conversion:
    """The conversion is linear, so that it is known from its values at p = 1, x = 0 and at p = 0, x = 1."""
    one, zero = torch.ones_like(times), torch.zeros_like(times)
    scale, shift = (convert(p, x, times, path, source, target) for p, x in ((one, zero), (zero, one)))
    return _Conversion((shift / scale).tolist(), scale.tolist())


def _ddim_step(k: int, grid: Tensor, levels: Level, path: AffinePath, prediction: Prediction) -> _Step:
    """x' = a' x1 + s' x0 with x0 or x1 taken from x = a x1 + s x0, whichever divides by no zero."""
    a, s, a_to, s_to = (float(v[i, 0]) for i in (k, k + 1) for v in (levels.a, levels.s))
    m = _conversion(grid[k : k + 1], path, prediction, X if s else EPSILON)
    scale, weight = (s_to / s, a_to - a * s_to / s) if s else (a_to / a, s_to)
    return _Step(m.ratio[0], scale, (weight * m.scale[0],))


def _weights(formula: Formula, levels: Level, ks: np.ndarray, order: int, corrects: bool = False) -> np.ndarray:
    """The weights of x and of every m in the steps ks, shape (steps, 1 + number of m)."""
    x, *m = np.eye(order + 1 + corrects)
    at = [Level(*(v[ks - i] for v in levels)) for i in range(order)]
    found = formula(x, m, at, Level(*(v[ks + 1] for v in levels)))
    return np.broadcast_to(found, (len(ks), len(m) + 1))


def _scaled(weights: np.ndarray, scales: Sequence[float]) -> tuple[float, tuple[float, ...]]:
    """The weight of x, and those of q from those of m = scale q."""
    first, *rest = weights.tolist()
    return first, tuple(w * scale for w, scale in zip(rest, scales, strict=True))


def matching(nodes: Sequence[Any], moments: Sequence[Any]) -> list[Any]:
    """The weights b_i for which sum_i b_i nodes_i^k = moments_k for k = 0, 1, ...: as many nodes as moments.

    Nodes and moments are numbers or columns (steps, 1), and so is each weight.
    """
    if not nodes:
        return []
    c = np.stack(np.broadcast_arrays(*nodes), -1)
    powers = c[..., None, :] ** np.arange(len(nodes))[:, None]
    right = np.stack([m + np.zeros(c.shape[:-1]) for m in moments], -1)
    return list(np.moveaxis(np.linalg.solve(powers, right[..., None])[..., 0], -1, 0))
