"""UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor, and a corrector that uses the next evaluation a second time.

Here ``m[0]``, ``m[1]``, ... are the predicted data at the levels ``at[0]`` (the start of the step), ``at[1]`` (one step before),
... and ``to`` is the level of the step's end. For the corrector ``m`` begins with the prediction there. Both are one formula,
that of data prediction with B(h) = e^h - 1 ("bh2"). With a step of h in lam = log(a / s) it is

    x' = (s' / s) x + a' (1 - e^-h) [m_0 + sum_i rho_i (m_i - m_0) / r_i],    r_i = (lam_i - lam_0) / h.

The rho_i make the step exact where m is a polynomial in lam. As in published code, a single rho is 1/2 instead: in the predictor
of order 2 and in the corrector of order 1.

The corrected state takes the place of the predicted one in the next step. The network is not evaluated there, so the corrector is
free. It raises the order by 1: `unipc2` has order 3 and `unipc3` order 4, but for their first steps, which have lower orders.
Without the corrector `unipc2` is `dpmpp_2m`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmbench.flow.prediction import X
from fmbench.flow.solvers.multistep import Level, Multistep, matching


def predictor(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """UniP: from the predictions of earlier steps."""
    h = to.lam - at[0].lam
    return unified(x, m[0], m[1:], [(level.lam - at[0].lam) / h for level in at[1:]], at[0], to)


def corrector(x: Any, m: Sequence[Any], at: Sequence[Level], to: Level) -> Any:
    """UniC: from the prediction at the end of the step too, where r = 1."""
    h = to.lam - at[0].lam
    return unified(x, m[1], [m[0], *m[2:]], [1.0, *((level.lam - at[0].lam) / h for level in at[1:])], at[0], to)


# Many parameters: the quantities of the paper's formula.
def unified(x: Any, m_0: Any, m: Sequence[Any], r: Sequence[Any], at: Level, to: Level) -> Any:
    """The formula of the module, from the predictions m_i and their places r_i."""
    h = to.lam - at.lam
    means = [1 / -np.expm1(-h) - 1 / h]  # of (u / h)^k under the weight e^u, 0 < u < h: what sum_i rho_i r_i^(k-1) must be
    for k in range(2, len(r) + 1):
        means.append(1 / -np.expm1(-h) - k / h * means[-1])
    rho = [1 / 2] if len(r) == 1 else matching(r, means[: len(r)])
    d = m_0 + sum(rho_i * (m_i - m_0) / r_i for rho_i, m_i, r_i in zip(rho, m, r, strict=True))
    return to.s / at.s * x - to.a * np.expm1(-h) * d


UNIPC2, UNIPC3 = (Multistep(X, "lam", (predictor,) * n, (corrector,) * n, lower_order_final=True) for n in (2, 3))
