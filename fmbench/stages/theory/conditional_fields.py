"""Conditional fields of one data point (Fig. 2 and 8) and their trajectories (Fig. 3), of Lipman et al. 2023."""

from collections.abc import Iterator
from typing import Any

import torch

from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import SCORE, VELOCITY, Prediction, X, convert
from fmbench.stages.theory.problems import PATHS
from fmbench.system.rng import generator


def field_rows() -> Iterator[dict[str, Any]]:
    """Arrows (u, v) of the conditional score and of the conditional field u_t(x | x1), eq. 15.

    Fig. 2 compares the score on the VP path with the field on the OT path; Fig. 8 compares the two fields. The arrows are on a
    grid, for one data point, at 0, 1/3, 2/3 and 1 of the path's interval.
    """
    x1 = torch.tensor([0.75, 0.75], dtype=torch.float64)
    axis = torch.linspace(-2, 2, 15, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    panels: list[tuple[str, str, AffinePath, Prediction]] = [
        ("fig02", "diffusion path: conditional score", PATHS["vp"], SCORE),
        ("fig02", "OT path: conditional field", PATHS["ot"], VELOCITY),
        ("fig08", "diffusion path: conditional field", PATHS["vp"], VELOCITY),
        ("fig08", "OT path: conditional field", PATHS["ot"], VELOCITY),
    ]
    for figure, panel, path, target in panels:
        for fraction in (0, 1 / 3, 2 / 3, 1):
            t = torch.tensor(fraction * path.t_max, dtype=torch.float64)
            # The conditional prediction of the data is x1 itself; convert it to the score or the velocity.
            arrows = convert(x1.expand_as(points), points, t, path, X, target)
            for (x, y), (u, v) in zip(points.tolist(), arrows.tolist(), strict=True):
                yield {"figure": figure, "panel": panel, "t": fraction, "x": x, "y": y, "u": u, "v": v}


def trajectory_rows() -> Iterator[dict[str, Any]]:
    """Fig. 3: trajectories x_t = a x1 + s x0 of the conditional fields, from noise to three data points (Theorem 3)."""
    g = generator(0, "theory/trajectories")
    x1 = torch.tensor([[1.5, 1.0], [-1.2, 1.4], [0.4, -1.7]], dtype=torch.float64).repeat_interleave(6, 0)
    x0 = torch.randn(x1.shape, generator=g, dtype=torch.float64)
    for name in ("vp", "ot"):
        path = PATHS[name]
        for t in torch.linspace(0, path.t_max, 61, dtype=torch.float64):
            x_t, _ = path.interpolate(x0, x1, t.expand(len(x1)))
            for particle, (x, y) in enumerate(x_t.tolist()):
                yield {"path": name, "particle": particle, "t": float(t), "x": x, "y": y}
