"""DPM-Solver++, multistep (Lu et al. 2022, arXiv:2211.01095): exponential integrators of the data prediction in lam = log(a / s).

Here ``m[0]``, ``m[1]``, ... are the predicted data at the levels ``at[0]`` (the start of the step), ``at[1]`` (one step before),
... and ``to`` is the level of its end. The exact solution, with a step of h in lam, is

    x' = (s' / s) x + s' * integral over the step of e^lam x1(lam) dlam.

`dpmpp_2m` is the paper's multistep method. `dpmpp_3m` is that of published code (diffusers, k-diffusion). It has half of the
second derivative that the Taylor expansion of x1 has, so its order is 2, with a small error. `unipc3` has the whole one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmbench.flow.prediction import X
from fmbench.flow.solvers.multistep import Level, Multistep


def first(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """DDIM: x1 is constant over the step."""
    h = to.lam - at[0].lam
    return to.s / at[0].s * x - to.a * np.expm1(-h) * m[0]


def second(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """x1 is linear in lam."""
    h = to.lam - at[0].lam
    r = (at[0].lam - at[1].lam) / h
    d = (1 + 1 / (2 * r)) * m[0] - 1 / (2 * r) * m[1]
    return to.s / at[0].s * x - to.a * np.expm1(-h) * d


def third(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """x1 has a slope and a curvature in lam."""
    h = to.lam - at[0].lam
    r0, r1 = (at[0].lam - at[1].lam) / h, (at[1].lam - at[2].lam) / h
    d0, d1 = (m[0] - m[1]) / r0, (m[1] - m[2]) / r1
    slope = d0 + r0 / (r0 + r1) * (d0 - d1)
    curvature = (d0 - d1) / (r0 + r1)
    phi1 = np.expm1(-h)
    phi2 = phi1 / h + 1
    phi3 = phi2 / h - 1 / 2
    return to.s / at[0].s * x - to.a * (phi1 * m[0] - phi2 * slope + phi3 * curvature)


DPMPP_2M = Multistep(X, "lam", (first, second), lower_order_final=True)
DPMPP_3M = Multistep(X, "lam", (first, second, third), lower_order_final=True)
