"""Improved precision and recall (Kynkaanniemi et al. 2019).

The manifold of a set is the union of balls around its features. The radius of a ball is the distance to the k-th nearest other
feature of the set. Precision is the fraction of generated features on the real manifold (quality). Recall is the fraction of real
features on the generated manifold (variety). Both depend on n and k, so compare only values at equal n and k.
"""

from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.mmd import as_points

ELEMENTS = 2**24
"""Distances in memory at a time: 128 MB."""


class PrecisionRecall(NamedTuple):
    """Two fractions in [0, 1]."""

    precision: float
    recall: float


def precision_recall(real: NDArray | Tensor, generated: NDArray | Tensor, k: int = 3) -> PrecisionRecall:
    """Precision and recall of generated features (m, D) against real features (n, D), n, m > k, in float64.

    Raises:
        ValueError: k < 1, a set has k or fewer features, the dimensions differ, or a feature is not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    x, y = as_points(real, k + 1), as_points(generated, k + 1)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    # Relative to the mean, where |x|^2 + |y|^2 - 2 x y loses the fewest digits of a squared distance.
    centre = x.mean(0)
    x, y = x - centre, y - centre
    return PrecisionRecall(_covered(y, x, k), _covered(x, y, k))


def _covered(points: Tensor, centres: Tensor, k: int) -> float:
    """The fraction of ``points`` inside a ball around one of ``centres``, borders included."""
    radii = torch.cat([_squares(rows, centres, start).kthvalue(k, 1).values for start, rows in _blocks(centres, len(centres))])
    # The possible rounding error of a squared distance, so that a feature exactly on a border or a centre counts as inside.
    slack = 64 * torch.finfo(torch.float64).eps * float(max(points.square().sum(1).max(), centres.square().sum(1).max()))
    inside = sum(int((_squares(rows, centres) <= radii + slack).any(1).sum()) for _, rows in _blocks(points, len(centres)))
    return inside / len(points)


def _blocks(x: Tensor, columns: int) -> list[tuple[int, Tensor]]:
    rows = max(1, ELEMENTS // columns)
    return [(start, x[start : start + rows]) for start in range(0, len(x), rows)]


def _squares(x: Tensor, y: Tensor, start: int | None = None) -> Tensor:
    """Squared distances (n, m). With ``start``, x is y[start:start+n], and the distance of a point to itself is infinite."""
    squares = torch.addmm(y.square().sum(1).expand(len(x), -1), x, y.T, alpha=-2).add_(x.square().sum(1)[:, None]).clamp_(min=0)
    if start is not None:
        squares.diagonal(start).fill_(torch.inf)
    return squares
