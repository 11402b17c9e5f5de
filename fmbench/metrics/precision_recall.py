"""Improved precision and recall (Kynkaanniemi et al. 2019).

The manifold of a set is the union of balls around its features. The radius of a ball is the distance to the k-th nearest other
feature of the set. Precision is the fraction of generated features on the real manifold (quality). Recall is the fraction of real
features on the generated manifold (variety). Both depend on n and k, so compare only values at equal n and k.
"""

from typing import NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from fmbench.metrics.neighbours import as_pair, blocks, rounding, squared_radii, squares


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
    x, y = as_pair(real, generated, k + 1)
    return PrecisionRecall(_covered(y, x, k), _covered(x, y, k))


def _covered(points: Tensor, centres: Tensor, k: int) -> float:
    """The fraction of ``points`` inside a ball around one of ``centres``, borders included."""
    radii = squared_radii(centres, k) + rounding(points, centres)
    inside = sum(int((squares(rows, centres) <= radii).any(1).sum()) for _, rows in blocks(points, len(centres)))
    return inside / len(points)
