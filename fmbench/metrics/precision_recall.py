"""Improved precision and recall (Kynkaanniemi et al. 2019).

A set's manifold is the union of balls around its features, each as large as the distance to the k-th nearest other one.
Precision is the fraction of generated features on the real manifold (quality), recall that of real features on the generated
manifold (variety). Both depend on n and on k; compare at equal ones only.
"""

from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.mmd import as_points

ELEMENTS = 2**24
"""Distances held at a time: 128 MB."""


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


def precision_recall(real: NDArray | Tensor, generated: NDArray | Tensor, k: int = 3) -> PrecisionRecall:
    """Precision and recall of generated features (m, D) against real ones (n, D), n, m > k, in blocks of rows, float64.

    Raises:
        ValueError: k < 1, k or fewer features on a side, different dimensions, or features that are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    x, y = as_points(real, k + 1), as_points(generated, k + 1)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    # Around their mean, where squared distances by |x|^2 + |y|^2 - 2 x y lose the fewest digits.
    centre = x.mean(0)
    x, y = x - centre, y - centre
    return PrecisionRecall(_covered(y, x, k), _covered(x, y, k))


def _covered(points: Tensor, centres: Tensor, k: int) -> float:
    """The fraction of ``points`` inside a ball around one of ``centres``; the border belongs to the ball."""
    radii = torch.cat([_squares(rows, centres, start).kthvalue(k, 1).values for start, rows in _blocks(centres, len(centres))])
    # What rounding may add to a squared distance: a feature that lies exactly on a border or a centre is inside.
    slack = 64 * torch.finfo(torch.float64).eps * float(max(points.square().sum(1).max(), centres.square().sum(1).max()))
    inside = sum(int((_squares(rows, centres) <= radii + slack).any(1).sum()) for _, rows in _blocks(points, len(centres)))
    return inside / len(points)


def _blocks(x: Tensor, columns: int) -> list[tuple[int, Tensor]]:
    rows = max(1, ELEMENTS // columns)
    return [(start, x[start : start + rows]) for start in range(0, len(x), rows)]


def _squares(x: Tensor, y: Tensor, start: int | None = None) -> Tensor:
    """Squared distances (n, m). With ``start``, x is y[start:start+n], and a point's distance to itself is infinite."""
    squares = torch.addmm(y.square().sum(1).expand(len(x), -1), x, y.T, alpha=-2).add_(x.square().sum(1)[:, None]).clamp_(min=0)
    if start is not None:
        squares.diagonal(start).fill_(torch.inf)
    return squares
