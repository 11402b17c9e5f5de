"""The bandwidth of a kernel density, chosen by the data."""

import math

import torch
from torch import Tensor


def leave_one_out_bandwidth(points: Tensor, candidates: int = 25, queries: int = 200) -> float:
    """The bandwidth under which each point is most likely given all others (Habbema, Hermans & van den Broek 1974).

    Args:
        points: shape (N, *), at least two and not all the same.
        candidates: how many bandwidths to try, equally spaced in their logarithm, from the root mean squared distance between
            points down to 1/1000 of it.
        queries: the likelihood is that of the first ``queries`` points.

    Raises:
        ValueError: all points are the same, or there is only one.
    """
    flat = points.reshape(len(points), -1).double()
    spread = float(2 * flat.var(0, correction=0).sum()) ** 0.5
    if len(flat) < 2 or not spread > 0:
        raise ValueError("a bandwidth by leave-one-out likelihood needs at least two different points; give a bandwidth")
    dimensions = flat.shape[1]
    bandwidths = spread * torch.logspace(-3, 0, candidates, dtype=torch.float64)
    totals = torch.zeros(candidates, dtype=torch.float64)
    for piece in torch.arange(min(queries, len(flat))).split(max(1, (1 << 22) // len(flat))):
        squares = torch.cdist(flat[piece], flat, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        squares[torch.arange(len(piece)), piece] = math.inf
        for k, h in enumerate(bandwidths.tolist()):
            totals[k] += (torch.logsumexp(-squares / (2 * h**2), 1) - dimensions * math.log(h)).sum()
    return float(bandwidths[totals.argmax()])
