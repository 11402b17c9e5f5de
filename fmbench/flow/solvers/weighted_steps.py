"""Steps whose weights are all known before the first one, and their loop, with as few operations on tensors as it can have.

Small states without derivatives have a loop of their own (:mod:`fmbench.flow.solvers.ring`): a call takes longer than its
arithmetic there. The rest of this page is about all others.

A step is x' = A x + w_0 m_0 + w_1 m_1 + ..., newest first. Here m = f p + g x is a conversion of what the network put out, p, at
this state or an earlier one. An older m is kept as q = x + (f / g) p, which is m / g (as p, where g = 0). A step takes

1. x + beta p, all that Euler's method has;
2. one for each older q: an addition, or a linear interpolation between the sum so far and q;
3. one to keep this step's q, unless it is p;
4. a multiplication of x by A before all others, unless A = 1 or all are interpolations.

Interpolations take the place of additions where the weights of x, q_1, q_2, ... sum to 1. They do on the straight path and on VE
for a network that predicts the velocity, since there a state and its predicted data move together with the origin.

Memory: beside x and x', the states q that a later step uses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from fmbench.flow.fields import Field, checked
from fmbench.flow.solvers.ring import Ring, suits

ROUNDING = 1e-12
"""Weights that sum to 1 up to this do so exactly, before rounding."""
SMALLEST = 0.1
"""A chain of interpolations divides by partial sums of the weights. One below this would enlarge rounding errors."""


class Sum(NamedTuple):
    """The weights of a step: that of the state x, and those of m, newest first."""

    state: float
    weights: Sequence[float]


class Conversion(NamedTuple):
    """The weights of p and x in m = f p + g x."""

    f: float
    g: float

    @property
    def kept(self) -> float:
        """The weight of p in the kept q = x + (f / g) p; infinite for q = p."""
        return self.f / self.g if self.g else math.inf

    @property
    def scale(self) -> float:
        """m / q."""
        return self.g if math.isfinite(self.kept) else self.f


Terms = tuple[tuple[float, float], ...]
"""The weights of x and p at a step, at the step before, ..."""


class Step(NamedTuple):
    """A step in numbers: y = factor x + first p, then every older q in turn.

    Attributes:
        older: the place of every q in the history, newest first, and its weight w.
        blends: whether an older q makes y' = (1 - w) y + w q of y, or else y' = y + w q.
        keep: q = x + keep p of this step is kept, q = p if infinite; None if no later step uses it.
        terms: the weights of x and p at this step, at the step before, ...: the same step without any q.
    """

    factor: float
    first: float
    older: tuple[tuple[int, float], ...]
    blends: bool
    keep: float | None
    terms: Terms


def steps_of(sums: Sequence[Sum], conversions: Sequence[Conversion]) -> list[Step]:
    """The steps with these weights, for the conversion of the network's output to m in each."""
    steps = []
    for k, (state, weights) in enumerate(sums):
        known = list(zip(weights, conversions[k::-1], strict=False))
        (g, f), *terms = [(w * c.g, w * c.f) for w, c in known]
        older = [w * c.scale for w, c in known[1:]]
        used = any(len(later.weights) > i for i, later in enumerate(sums[k + 1 :], start=1))
        steps.append(_step(((state + g, f), *terms), older, conversions[k].kept if used else None))
    return steps


def _step(terms: Terms, older: Sequence[float], keep: float | None) -> Step:
    """The step with these terms, and with the weights of its older q_1, q_2, ..."""
    state, first = terms[0]
    sums = list(accumulate((state, *older)))
    if abs(sums[-1] - 1) < ROUNDING and min(map(abs, sums)) > SMALLEST:
        blends = [w / so_far for w, so_far in zip(older, sums[1:], strict=True)]
        return Step(1.0, first / state, tuple(enumerate(blends)), True, keep, terms)
    return Step(state, first, tuple(enumerate(older)), False, keep, terms)


@dataclass(frozen=True)
class Plan:
    """All steps of a method on one grid and path, for the networks of one kind.

    Attributes:
        grid: times, float64, shape (N + 1,).
        orders: the order of every step; 0 for that of DDIM at an end of the path.
    """

    grid: Tensor
    steps: list[Step]
    orders: tuple[int, ...]

    @cached_property
    def ring(self) -> Ring:
        """The same steps for small states."""
        return Ring([step.terms for step in self.steps])

    def run(self, network: Field, x: Tensor) -> Tensor:
        """The final state (B, *) of a solve from ``x`` (B, *); ``network`` gives its prediction at (t, x), t of shape ()."""
        network, times = checked(network), self.grid[:-1].to(x.device).unbind()
        return self.ring.run(network, x, times) if suits(x) else self._run(network, x, times)

    def _run(self, network: Field, x: Tensor, times: Sequence[Tensor]) -> Tensor:
        """The final state of a solve by additions."""
        kept: tuple[Tensor, ...] = ()
        memory = max((len(step.older) for step in self.steps), default=0)
        for t, a, (_, first, older, blends, keep, _) in zip(times, self._factors(x.dtype), self.steps, strict=True):
            p = network(t, x)
            y = x.add(p, alpha=first) if a is None else x.mul(a).add_(p, alpha=first)
            if blends:
                for i, w in older:
                    y.lerp_(kept[i], w)
            else:
                for i, w in older:
                    y.add_(kept[i], alpha=w)
            if keep is not None:
                kept = (x.add(p, alpha=keep) if keep != math.inf else p, *kept[: memory - 1])
            x = y
        return x

    def _factors(self, dtype: torch.dtype) -> Sequence[Tensor | None]:
        """The factors as tensors, which multiply faster than numbers do; None for 1."""
        values = [step.factor for step in self.steps]
        if all(value == 1 for value in values):
            return [None] * len(values)
        tensors = torch.tensor(values, dtype=torch.promote_types(dtype, torch.float32)).unbind()
        return [None if value == 1 else tensor for value, tensor in zip(values, tensors, strict=True)]
