"""Sampling with our networks and solvers against torchcfm's network and torchdiffeq, with equal weights, noise and evaluations.

Float32; on the CPU one thread and the processor's time, which other jobs do not add to. ``evaluations_per_s`` counts the
network's evaluations of one sample. dopri5 has one step size for the batch, as torchdiffeq's; the samples of both are compared.
"""

import time
from typing import Any

import torch
from _peer import MIDDLE, SMALL, difference, pair
from _timing import arguments, in_turn, machine, show, write
from torch import Tensor, nn
from torchdiffeq import odeint

from fmbench.devices import round_products
from fmbench.fields import CountingField, Field
from fmbench.networks.mlp import MLP
from fmbench.solvers.adaptive import dopri5
from fmbench.solvers.fixed import integrate
from fmbench.solvers.grids import uniform_grid
from fmbench.solvers.tableaux import EULER, MIDPOINT

COLUMNS = [
    "work", "solver", "batch", "nfe", "difference", "ours_ms", "theirs_ms", "ratio", "ratio_low", "ratio_high", "samples_per_s",
    "evaluations_per_s",
]  # fmt: skip
TOLERANCE = 1e-3


class WithTime(nn.Module):
    """A network of t and x as torchdiffeq calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.network(t.to(x.dtype).expand(x.shape[0]), x)
        return out


@torch.no_grad()
def main() -> None:
    options = arguments(__doc__, devices=True)
    device = torch.device(options.device)
    round_products("ieee")
    before, rows = machine(device), []
    cuda = device.type == "cuda"
    torch.manual_seed(0)
    mlp = MLP((2,), width=192, depth=5)
    for work, shape, networks, batch, steps in (
        ("U-Net, 32 channels", (3, 32, 32), pair((3, 32, 32), MIDDLE), 16, 4),
        ("digits' U-Net", (1, 8, 8), pair((1, 8, 8), SMALL), 64, 10),
        ("MLP of 5 x 192", (2,), (mlp, mlp), 256, 20),
    ):
        ours, theirs = (network.to(device).eval() for network in networks)
        x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
        difference(ours, theirs, x)
        mine = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
        grid = uniform_grid(0, 1, steps)

        def fixed(f: Field, tableau: Any, mine: Tensor = mine, grid: Tensor = grid) -> Tensor:
            return integrate(f, mine, grid, tableau)

        def their_fixed(f: Field, method: str, x: Tensor = x, grid: Tensor = grid) -> Tensor:
            return odeint(f, x, grid[[0, -1]].to(x), method=method, options={"grid_constructor": lambda f, y, t: grid.to(t)})[-1]

        def adaptive(f: Field, _: Any, mine: Tensor = mine) -> Tensor:
            return dopri5(f, mine, 0.0, 1.0, rtol=TOLERANCE, atol=TOLERANCE, per_sample=False).x

        def their_adaptive(f: Field, _: Any, x: Tensor = x) -> Tensor:
            times = torch.tensor([0.0, 1.0], device=x.device)
            return odeint(f, x, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[-1]

        for solver, a, b, how, their_how in (
            (f"Euler, {steps} steps", fixed, their_fixed, EULER, "euler"),
            (f"midpoint, {steps} steps", fixed, their_fixed, MIDPOINT, "midpoint"),
            ("dopri5", adaptive, their_adaptive, None, None),
        ):
            counted, their_counted = (CountingField(WithTime(n), -1.0, 2.0) for n in (ours, theirs))
            found, expected = a(counted, how), b(their_counted, their_how)
            if counted.calls != their_counted.calls:
                raise RuntimeError(f"{work}, {solver}: {counted.calls} evaluations against {their_counted.calls}")

            def run(solve: Any, network: nn.Module, how: Any) -> None:
                solve(WithTime(network), how)
                if cuda:
                    torch.cuda.synchronize()

            timed = in_turn(
                lambda a=a, n=ours, h=how: run(a, n, h),
                lambda b=b, n=theirs, h=their_how: run(b, n, h),
                options.rounds,
                clock=time.perf_counter if cuda else time.process_time,
            )
            apart = float((found - expected).abs().max() / expected.abs().max())
            per_second = 1e3 * batch / timed["ours_ms"]
            row = {"work": work, "solver": solver, "batch": batch, "nfe": counted.calls, "difference": apart, **timed}
            rows.append(row | {"samples_per_s": per_second, "evaluations_per_s": per_second * counted.calls})
    show(rows, COLUMNS)
    write(options.out, before, {"sample": rows})


if __name__ == "__main__":
    main()
