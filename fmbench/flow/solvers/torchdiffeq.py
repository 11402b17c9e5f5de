"""torchdiffeq's adaptive solvers: the published reference that our dopri5 is compared with."""

import torch
from torch import Tensor

from fmbench.errors import DivergedError
from fmbench.flow.fields import Field, checked

ADAPTIVE_METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


def torchdiffeq_adaptive(
    field: Field, x: Tensor, t0: float, t1: float, *, method: str = "dopri5", rtol: float = 1e-5, atol: float = 1e-5
) -> Tensor:
    """Integrate as :func:`~fmbench.flow.solvers.adaptive.dopri5` does, but by torchdiffeq, with one step size for the batch.

    torchdiffeq steps past t1 and interpolates back unless t1 is a step point, so t1 is made a step point. Its first-step probe
    may still land outside the interval, so the field gets times clamped to it.

    Args:
        x: initial states, shape (B, *).
        method: one of :data:`ADAPTIVE_METHODS`.

    Returns:
        Final states, shape (B, *).

    Raises:
        ValueError: an unknown method, or a field that returns another shape, type or device than that of x.
        DivergedError: torchdiffeq's step size vanished.
    """
    from torchdiffeq import odeint

    if method not in ADAPTIVE_METHODS:
        raise ValueError(f"unknown adaptive method {method!r} of torchdiffeq; known: {', '.join(ADAPTIVE_METHODS)}")
    field = checked(field)
    times = torch.tensor([t0, t1], dtype=torch.float64, device=x.device)
    low, high = min(t0, t1), max(t0, t1)

    def inside(t: Tensor, x: Tensor) -> Tensor:
        return field(t.clamp(low, high), x)

    try:
        solution = odeint(inside, x, times, rtol=rtol, atol=atol, method=method, options={"step_t": times[1:]})
    except AssertionError as error:
        raise DivergedError(f"torchdiffeq gave up: {error}") from None
    return solution[-1]
