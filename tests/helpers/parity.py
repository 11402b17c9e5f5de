"""Helpers for the parity tests: the same inputs give the same outputs as published libraries.

Outputs agree to 1e-10 in float64 and 1e-6 in float32. Where a library differs on purpose, a docstring or a test says so:

* **types**: fmbench computes coefficients in float64 whatever the type of the state; the others use the type of the state or t.
  Comparisons in float32 keep away from the ends of the paths, and other tests show what happens there.
* **direction**: the time of diffusers runs from data to noise, in steps or in noise levels; its velocity is noise minus data.
* **levels**: diffusers' Euler and Heun schedulers hold z = x / a and sigma = s / a, and scale the network's input themselves.
* **x0**: torchcfm's matchers add noise to a pair; in fmbench the noise is x0 itself.

Not compared, since fmbench has no counterpart: stochastic interpolants with the noise of a bridge and couplings by optimal
transport (torchcfm), Adams methods with a Runge-Kutta start (torchdiffeq), ancestral sampling and Euler with churn (diffusers).
"""

import pytest
import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}


every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])


both_directions = pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forwards", "backwards"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def same(ours: Tensor, theirs: Tensor, scale: float = 1.0) -> None:
    """Equal to the tolerance of their type, absolutely for numbers up to ``scale`` and relatively above."""
    assert ours.dtype == theirs.dtype
    tolerance = TOLERANCE[ours.dtype]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * scale)


def times(n: int, low: float = 0.02, high: float = 0.98) -> Tensor:
    return torch.linspace(low, high, n, dtype=torch.float64)
