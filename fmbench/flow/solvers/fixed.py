"""The fixed-step solvers (Euler, midpoint, Heun, RK4, ...): one loop over a time grid, the same for every tableau."""

import torch
from torch import Tensor

from fmbench.flow.fields import Field, checked
from fmbench.flow.solvers.constant import check_constant
from fmbench.flow.solvers.tableaux import Tableau


def integrate(field: Field, x: Tensor, grid: Tensor, tableau: Tableau, keep: bool = False) -> Tensor:
    """Integrate dx/dt = field(t, x) along ``grid`` by an explicit Runge-Kutta method (Hairer, Norsett & Wanner, II.1).

    Args:
        x: initial state, shape (B, *).
        grid: times, float64, shape (N + 1,), increasing or decreasing.
        keep: return every state on the way, not only the last.

    Returns:
        The final state, shape (B, *), or with ``keep`` all N + 1 states, shape (N + 1, B, *). It has a derivative by x and by the
        parameters of the field.

    Raises:
        ValueError: the grid requires a gradient, or the field returns another shape, type or device than that of x.
    """
    check_constant("grid", grid)
    field = checked(field)
    sizes = grid[1:] - grid[:-1]
    # Computed once and not at each step, so that a step costs little more than its evaluations of the field.
    nodes = torch.tensor(tableau.c, dtype=grid.dtype, device=grid.device)
    times = iter((grid[:-1, None] + nodes * sizes[:, None]).to(x.device).flatten().unbind())
    rows, last = [_nonzero(row) for row in tableau.a], _nonzero(tableau.b)
    states = [x]
    for h in sizes.tolist():
        k: list[Tensor] = []
        for row in rows:
            k.append(field(next(times), _combine(x, h, row, k)))
        x = _combine(x, h, last, k)
        if keep:
            states.append(x)
    return torch.stack(states) if keep else x


def _nonzero(weights: tuple[float, ...]) -> list[tuple[int, float]]:
    """The weights that are not zero, with their places."""
    return [(i, w) for i, w in enumerate(weights) if w]


def _combine(x: Tensor, h: float, weights: list[tuple[int, float]], k: list[Tensor]) -> Tensor:
    """x + h sum_i w_i k_i, for the places and weights given."""
    for i, w in weights:
        x = x.add(k[i], alpha=w * h)
    return x
