"""Adams-Bashforth methods: the polynomial through the last predictions, integrated over a step (Hairer, Norsett & Wanner, III.1).

| name              | prediction | clock     | state | weights                                                               |
|-------------------|------------|-----------|-------|-----------------------------------------------------------------------|
| `ab2`-`ab4`       | velocity   | t         | x     | of the exact integral, on any grid                                    |
| `deis2`, `deis3`  | noise      | rho = s/a | x / a | the same: rhoAB-DEIS of Zhang & Chen 2022, arXiv:2204.13902           |
| `ipndm`           | noise      | rho       | x / a | of equal steps, on any grid (Zhang & Chen 2022), order 4              |

Here ``m[0]``, ``m[1]``, ... are the predictions at the levels ``at[0]`` (the start of the step), ``at[1]`` (one step before), ...
and ``to`` is the level of its end. At order 1 `ab` is Euler's method, and `deis` and `ipndm` are DDIM. diffusers' DEIS has a
polynomial in log rho and is another method. `ipndm` has its order only on grids that are uniform in rho.
"""

from collections.abc import Sequence
from typing import Any

from fmbench.flow.prediction import EPSILON, VELOCITY
from fmbench.flow.solvers.multistep import Level, Multistep, matching

EQUAL_STEPS = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def adams_bashforth(z: Any, f: Sequence[Any], nodes: Sequence[Any], end: Any) -> Any:
    """z + the integral from nodes[0] to ``end`` of the polynomial with the values f[i] at nodes[i]."""
    h = end - nodes[0]
    c = [(node - nodes[0]) / h for node in nodes]
    b = matching(c, [1 / (k + 1) for k in range(len(c))])  # sum_i b_i c_i^k is the integral of u^k over 0 < u < 1
    return z + h * sum(b_i * f_i for b_i, f_i in zip(b, f, strict=True))


def ab(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """dx = u dt."""
    return adams_bashforth(x, m, [level.t for level in at], to.t)


def deis(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """d(x / a) = x0 d(s / a)."""
    return to.a * adams_bashforth(x / at[0].a, m, [level.rho for level in at], to.rho)


def ipndm(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """d(x / a) = x0 d(s / a) with the weights of equal steps."""
    mean = sum(b_i * m_i for b_i, m_i in zip(EQUAL_STEPS[len(m) - 1], m, strict=True))
    return to.a * (x / at[0].a + (to.rho - at[0].rho) * mean)


AB2, AB3, AB4 = (Multistep(VELOCITY, "t", (ab,) * order) for order in (2, 3, 4))
DEIS2, DEIS3 = (Multistep(EPSILON, "rho", (deis,) * order) for order in (2, 3))
IPNDM = Multistep(EPSILON, "rho", (ipndm,) * 4)
