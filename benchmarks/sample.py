"""Sampling with our networks and solvers against torchcfm's network and torchdiffeq, with equal weights, noise and evaluations.

Float32; on the CPU one thread and the processor's time, which other jobs do not add to; the peer is in a process of its own, and
ours has the heap that the command line gives it. ``evaluations_per_s`` counts the
network's evaluations of one sample. dopri5 has one step size for the batch, as torchdiffeq's; the samples of both are compared.
"""

from collections.abc import Callable
from typing import Any

import torch
from _peer import MIDDLE, SMALL, difference, pair
from _timing import Work, against_apart, arguments, in_turn, machine, show, write
from torch import Tensor, nn
from torchdiffeq import odeint

from fmbench.flow.fields import CountingField, Field
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import EULER, MIDPOINT
from fmbench.networks.mlp import MLP
from fmbench.system.devices import round_products
from fmbench.system.heap import keep_freed_memory

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


def their_solve(f: Field, x: Tensor, method: str, grid: Tensor) -> Tensor:
    """torchdiffeq's solution, by its fastest way to both ends of the grid."""
    ends = grid[[0, -1]].to(x)
    if method == "dopri5":
        return odeint(f, x, ends, rtol=TOLERANCE, atol=TOLERANCE, method=method)[-1]
    return odeint(f, x, ends, method=method, options={"grid_constructor": lambda f, y, t: grid.to(t)})[-1]


def solving(solve: Callable[..., Tensor], *arguments: Any) -> Work:
    """One solution after the other, each to its end."""

    @torch.no_grad()
    def work() -> None:
        if solve(*arguments).is_cuda:
            torch.cuda.synchronize()

    return work


def theirs_of(network: nn.Module, *arguments: Any) -> Work:
    """The peer's work, to be made in a process of its own."""
    return solving(their_solve, WithTime(network), *arguments)


@torch.no_grad()
def main() -> None:
    options = arguments(__doc__, devices=True)
    device = torch.device(options.device)
    round_products("ieee")
    keep_freed_memory()
    before, rows = machine(device), []
    cuda = device.type == "cuda"
    torch.manual_seed(0)
    mlp = MLP((2,), width=192, depth=5)
    for work, shape, networks, batch, steps in (
        ("U-Net, 32 channels", (3, 32, 32), pair((3, 32, 32), MIDDLE), 16, 4),
        ("digits' U-Net", (1, 8, 8), pair((1, 8, 8), SMALL), 360, 10),
        ("MLP of 5 x 192", (2,), (mlp, mlp), 256, 20),
    ):
        ours, theirs = (network.to(device).eval() for network in networks)
        x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
        difference(ours, theirs, x)
        mine = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
        grid = uniform_grid(0, 1, steps)

        def fixed(f: Field, tableau: Any, mine: Tensor = mine, grid: Tensor = grid) -> Tensor:
            return integrate(f, mine, grid, tableau)

        def adaptive(f: Field, _: Any, mine: Tensor = mine) -> Tensor:
            return dopri5(f, mine, 0.0, 1.0, rtol=TOLERANCE, atol=TOLERANCE, per_sample=False).x

        for solver, solve, how, their_how in (
            (f"Euler, {steps} steps", fixed, EULER, "euler"),
            (f"midpoint, {steps} steps", fixed, MIDPOINT, "midpoint"),
            ("dopri5", adaptive, None, "dopri5"),
        ):
            counted, their_counted = (CountingField(WithTime(n), -1.0, 2.0) for n in (ours, theirs))
            found, expected = solve(counted, how), their_solve(their_counted, x, their_how, grid)
            if counted.calls != their_counted.calls:
                raise RuntimeError(f"{work}, {solver}: {counted.calls} evaluations against {their_counted.calls}")

            mine_of = solving(solve, WithTime(ours), how)
            if cuda:
                timed = in_turn(mine_of, theirs_of(theirs, x, their_how, grid), options.rounds)
            else:
                timed = against_apart(mine_of, theirs_of, theirs, x, their_how, grid, rounds=options.rounds)
            apart = float((found - expected).abs().max() / expected.abs().max())
            per_second = 1e3 * batch / timed["ours_ms"]
            row = {"work": work, "solver": solver, "batch": batch, "nfe": counted.calls, "difference": apart, **timed}
            rows.append(row | {"samples_per_s": per_second, "evaluations_per_s": per_second * counted.calls})
    show(rows, COLUMNS)
    write(options.out, before, {"sample": rows})


if __name__ == "__main__":
    main()
