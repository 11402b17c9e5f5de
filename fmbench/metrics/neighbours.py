"""Distances between features and their nearest neighbours, in float64 and in blocks, so that memory stays constant."""

from typing import NamedTuple

import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from fmbench.metrics.mmd import as_points

ELEMENTS = 2**24
"""Distances in memory at a time: 128 MB."""
TREE_DIMENSIONS = 8
"""Up to this many dimensions a tree finds neighbours faster than a comparison of all pairs."""


class Nearest(NamedTuple):
    """The nearest neighbour of each query."""

    distances: Tensor  # (n,), float64
    indices: Tensor  # (n,), int64


def as_pair(x: NDArray | Tensor, y: NDArray | Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """Points (n, D) and (m, D) as float64 relative to the mean of the first, where |x|^2 + |y|^2 - 2 x y loses the fewest digits.

    Raises:
        ValueError: a set has fewer than ``least`` points, the dimensions differ, or a value is not finite.
    """
    x, y = as_points(x, least), as_points(y, least)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    centre = x.mean(0)
    return x - centre, y - centre


def blocks(x: Tensor, columns: int) -> list[tuple[int, Tensor]]:
    """The points (n, D) in parts, each with its first index; the distances of a part to ``columns`` points fit into memory."""
    rows = max(1, ELEMENTS // columns)
    return [(start, x[start : start + rows]) for start in range(0, len(x), rows)]


def squares(x: Tensor, y: Tensor, start: int | None = None) -> Tensor:
    """Squared distances (n, m). With ``start``, x is y[start:start+n], and the distance of a point to itself is infinite."""
    found = torch.addmm(y.square().sum(1).expand(len(x), -1), x, y.T, alpha=-2).add_(x.square().sum(1)[:, None]).clamp_(min=0)
    if start is not None:
        found.diagonal(start).fill_(torch.inf)
    return found


def squared_radii(centres: Tensor, k: int) -> Tensor:
    """The squared distance of each of the points (n, D), n > k, to its k-th nearest other point, (n,)."""
    # Many times faster than kthvalue for a small k.
    found = [squares(rows, centres, start).topk(k, 1, largest=False).values for start, rows in blocks(centres, len(centres))]
    return torch.cat([rows[:, -1] for rows in found])


def rounding(x: Tensor, y: Tensor) -> float:
    """The possible rounding error of a squared distance, so that a point exactly on a border or a centre counts as inside."""
    return 64 * torch.finfo(torch.float64).eps * float(max(x.square().sum(1).max(), y.square().sum(1).max()))


def nearest(queries: Tensor, points: Tensor) -> Nearest:
    """The nearest of ``points`` (m, D) to each of ``queries`` (n, D), both of :func:`as_pair`.

    The distance itself is computed from differences, so that of a copy is 0.
    """
    if points.shape[1] <= TREE_DIMENSIONS:
        indices = torch.from_numpy(KDTree(points.cpu().numpy()).query(queries.cpu().numpy())[1]).to(points.device)
    else:
        indices = torch.cat([squares(rows, points).argmin(1) for _, rows in blocks(queries, len(points))])
    return Nearest(_lengths(queries, points[indices]), indices)


def nearest_others(points: Tensor, chosen: Tensor) -> Nearest:
    """The nearest other point of ``points`` (m, D), m > 1, to each of those with the indices ``chosen`` (n,)."""
    if points.shape[1] <= TREE_DIMENSIONS:
        both = torch.from_numpy(KDTree(points.cpu().numpy()).query(points[chosen].cpu().numpy(), 2)[1]).to(points.device)
        # Where points coincide, a point may be found second, or not at all.
        indices = torch.where(both[:, 0] == chosen, both[:, 1], both[:, 0])
    else:
        indices = torch.cat([_others(points, part) for _, part in blocks(chosen, len(points))])
    return Nearest(_lengths(points[chosen], points[indices]), indices)


def _others(points: Tensor, chosen: Tensor) -> Tensor:
    found = squares(points[chosen], points)
    found[torch.arange(len(chosen), device=found.device), chosen] = torch.inf
    return found.argmin(1)


def _lengths(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([(a - b).square().sum(1).sqrt() for a, b in zip(x.split(4096), y.split(4096), strict=True)])
