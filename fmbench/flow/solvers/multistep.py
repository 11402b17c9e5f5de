"""Multistep methods: one evaluation of the network a step, with the predictions of earlier steps used again.

Notation, here and in the files of the families. A step goes from the level ``at[0]`` to the level ``to``; ``at[1]``, ``at[2]``,
... are the levels of the steps before it. A :class:`Level` has t, a, s, lam = log(a / s) and rho = s / a. ``x`` is the state at
``at[0]``, and ``m[i]`` what the network predicts at ``at[i]``: the data x1, the noise x0 or the velocity, one kind for a method.

A method is a formula for each order, from x and m to the next state. The formula is linear in them. It therefore runs once before
the first step and for all steps together: x and m are then unit vectors, the numbers of a level are columns with a row for each
step, and the result holds the weights of x, m[0], m[1], ... in every step. The loop after that only adds tensors, or
multiplies all of the past by the weights where states are small (:mod:`fmbench.flow.solvers.weighted_steps`).

The ends of a path need two rules, which are in :meth:`Multistep.plan` and so in no formula:

* Where the method's clock is infinite at one end of a step (lam at a = 0 and at s = 0, rho at a = 0), the step is that of DDIM,
  x' = a' x1 + s' x0. Its limit exists on every path.
* A level with an infinite clock is infinitely far away, so it has no weight in later steps.

A corrector costs no evaluation, and no tensor operation but one for the prediction that it reaches further back. The corrected
state is the predicted one plus a sum of predictions, so :func:`_with_correction` puts it into the weights of the next step.

Memory: a method of order p holds p - 1 earlier predictions, p of them with a corrector. Each is as large as a batch of states.
For small states it is n + 2 states and n + 2 outputs of the network, with n earlier predictions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import EPSILON, VELOCITY, Prediction, X, convert
from fmbench.flow.solvers.constant import check_constant
from fmbench.flow.solvers.weighted_steps import Conversion, Plan, Sum, steps_of


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

    def plan(self, grid: Tensor, path: AffinePath, prediction: Prediction = VELOCITY) -> Plan:
        """The weights of every step of :meth:`solve`.

        Raises:
            ValueError: the grid requires a gradient, or a corrector follows a predictor in which x has no weight.
        """
        check_constant("grid", grid)
        levels = _levels(grid, path)
        steps = len(grid) - 1
        finite = np.isfinite(getattr(levels, self.clock)[:, 0])
        orders = [_order(k, finite, len(self.predictors), self.lower_order_final) for k in range(steps)]
        predicted = self._sums(self.predictors, orders, levels)
        conversions = _conversions(grid[:-1], path, prediction, self.prediction)
        for k in np.flatnonzero(np.equal(orders, 0)).tolist():
            if not finite[k]:
                conversions[k] = Conversion(1.0, 0.0)
            predicted[k] = _ddim_step(k, grid, levels, path, self.prediction if finite[k] else prediction)
        sums = dict(predicted)
        for k, correction in self._sums(self.correctors, orders, levels, 1).items():
            if k + 1 < steps:
                sums[k + 1] = _with_correction(predicted[k + 1], predicted[k], correction)
        return Plan(grid, steps_of([sums[k] for k in range(steps)], conversions), tuple(orders))

    def _sums(self, formulas: Sequence[Formula], orders: Sequence[int], levels: Level, more: int = 0) -> dict[int, Sum]:
        """The weights of every step that has a formula; ``more`` is 1 for correctors, which know one prediction more."""
        found = {}
        for order, formula in enumerate(formulas, start=1):
            if ks := [k for k, own in enumerate(orders) if own == order]:
                weights = _weights(formula, levels, np.array(ks), order, more)
                found.update({k: Sum(x, m) for k, (x, *m) in zip(ks, weights.tolist(), strict=True)})
        return found


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


def _conversions(times: Tensor, path: AffinePath, source: Prediction, target: Prediction) -> list[Conversion]:
    """The conversion of a network's output at each time. It is linear: its values at p = 1, x = 0 and p = 0, x = 1 are enough."""
    one, zero = torch.ones_like(times), torch.zeros_like(times)
    f, g = (convert(p, x, times, path, source, target).tolist() for p, x in ((one, zero), (zero, one)))
    return [Conversion(*both) for both in zip(f, g, strict=True)]


def _ddim_step(k: int, grid: Tensor, levels: Level, path: AffinePath, source: Prediction) -> Sum:
    """x' = a' x1 + s' x0 from any prediction, with x0 or x1 taken from x = a x1 + s x0, whichever divides by no zero."""
    a, s, a_to, s_to = (float(v[i, 0]) for i in (k, k + 1) for v in (levels.a, levels.s))
    ((f, g),) = _conversions(grid[k : k + 1], path, source, X if s else EPSILON)
    state, weight = (s_to / s, a_to - a * s_to / s) if s else (a_to / a, s_to)
    return Sum(state + weight * g, [weight * f])


def _weights(formula: Formula, levels: Level, ks: np.ndarray, order: int, more: int = 0) -> np.ndarray:
    """The weights of x and of every m in the steps ks, shape (steps, 1 + number of m)."""
    x, *m = np.eye(order + 1 + more)
    at = [Level(*(v[ks - i] for v in levels)) for i in range(order)]
    found = formula(x, m, at, Level(*(v[ks + 1] for v in levels)))
    return np.broadcast_to(found, (len(ks), len(m) + 1))


def _with_correction(step: Sum, before: Sum, correction: Sum) -> Sum:
    """A step from the corrected state y, in terms of the predicted state x that the network has seen.

    The step before went from y_ to x = before(y_), and its correction is y = correction(y_). Without y_,
    y = A / C (x - W m) + B m, with C, W for the weights of y_ and m in ``before`` and A, B for those in ``correction``.
    """
    if not before.state:
        raise ValueError("a corrected step needs a predictor in which x has a weight; give the method no correctors")
    ratio = correction.state / before.state
    shift = [b - ratio * w for b, w in zip(correction.weights, [0.0, *before.weights], strict=True)]
    both = zip_longest(step.weights, shift, fillvalue=0.0)
    return Sum(step.state * ratio, [w + step.state * d for w, d in both])


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
