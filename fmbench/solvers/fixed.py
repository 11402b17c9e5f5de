"""Fixed-step explicit Runge-Kutta: a loop over a grid and a tableau."""

import torch
from torch import Tensor

from fmbench.fields import Field
from fmbench.solvers.tableaux import Tableau


def steps_for(nfe: int, tableau: Tableau) -> int:
    """How many steps spend exactly ``nfe`` evaluations.

    Raises:
        ValueError: ``nfe`` is not a multiple of the stages.
    """
    if nfe < tableau.stages or nfe % tableau.stages:
        raise ValueError(
            f"{tableau.name} costs {tableau.stages} evaluations a step, so it cannot spend exactly {nfe}; "
            f"give a multiple of {tableau.stages}"
        )
    return nfe // tableau.stages


def integrate(field: Field, x: Tensor, grid: Tensor, tableau: Tableau, keep: bool = False) -> Tensor:
    """Integrate dx/dt = field(t, x) along ``grid``.

    Args:
        x: initial state, shape (B, *).
        grid: times, float64, shape (N + 1,), increasing or decreasing.
        keep: also return every state on the way.

    Returns:
        The final state, shape (B, *), or with ``keep`` all N + 1 states, shape (N + 1, B, *).
    """
    times = grid.to(x.device)
    sizes = (grid[1:] - grid[:-1]).tolist()
    states = [x]
    for t, h in zip(times, sizes, strict=False):
        k: list[Tensor] = []
        for row, node in zip(tableau.a, tableau.c, strict=True):
            k.append(field(t + node * h if node else t, _combine(x, h, row, k)))
        x = _combine(x, h, tableau.b, k)
        if keep:
            states.append(x)
    return torch.stack(states) if keep else x


def _combine(x: Tensor, h: float, weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    """x + h sum_i w_i k_i, leaving out zero weights."""
    for w, slope in zip(weights, k, strict=True):
        if w:
            x = torch.add(x, slope, alpha=w * h)
    return x
