"""Measure how far the NFE of dopri5 with a step size for each sample depends on the batch size, for docs/metrics.md.

    python tools/nfe_by_batch.py                      # some minutes on one core
    python tools/nfe_by_batch.py --iterations 5000    # as many iterations as in the default benchmark

It trains the default benchmark's network for the checkerboard and solves the same noise in batches of
several sizes, in float32 and with the same weights in float64.
"""

import argparse

import numpy as np
import torch

from fmbench.config.methods import METHODS
from fmbench.data.points import checkerboard
from fmbench.flow.fields import velocity_field
from fmbench.flow.objectives import build
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.networks.mlp import MLP

SIZES = (1, 2, 3, 7, 16, 32, 64, 256)


def trained(method: str, iterations: int) -> torch.nn.Module:
    """The network after a short training on points on [-4, 4]^2."""
    torch.manual_seed(0)
    objective, network = build(METHODS[method]), MLP((2,), width=192, depth=5)
    points = torch.from_numpy(np.asarray(checkerboard(train=20_000, test=2).train)).float() * 2
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(iterations):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / iterations)
        x1 = points[torch.randint(len(points), (256,))]
        loss = objective.loss(network, torch.randn_like(x1), x1, torch.rand(256)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def main() -> None:
    """Prints a line for each method, precision and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--methods", nargs="+", default=["fm_ot", "fm_diffusion"], choices=list(METHODS))
    options = parser.parse_args()
    for method in options.methods:
        objective, network = build(METHODS[method]), trained(method, options.iterations)
        x0 = torch.randn(SIZES[-1], 2, generator=torch.Generator().manual_seed(1)) * objective.path.base_std
        for dtype in (torch.float32, torch.float64):
            field = velocity_field(network.to(dtype), objective.path, objective.prediction)

            def nfe(size: int, field=field, dtype=dtype, objective=objective, x0=x0) -> torch.Tensor:
                ends = objective.t_min, objective.t_max
                return torch.cat([dopri5(field, x, *ends, rtol=1e-5, atol=1e-5).nfe for x in x0.to(dtype).split(size)])

            whole = nfe(SIZES[-1])
            for size in SIZES[:-1]:
                change = (nfe(size) - whole).double()
                mean, moved = whole.double().mean(), int((change != 0).sum())
                said = f"{method}, {str(dtype).removeprefix('torch.')}, batches of {size}: {moved} of {len(x0)} samples differ"
                print(
                    f"{said}, by at most {change.abs().max():.0f}; mean {mean:.2f}, {100 * change.mean() / mean:+.2f} %",
                    flush=True,
                )


if __name__ == "__main__":
    main()
