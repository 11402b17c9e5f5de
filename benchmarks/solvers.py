"""Our solvers against torchdiffeq's and diffusers' on the same work: the same grid or tolerance, evaluations and result.

float32, one thread, processor time. The multistep solvers are compared with diffusers' schedulers, and with our Euler for what a
history costs.

On a field of one operation nearly all the time is the solver's own; with a network the solver matters less the larger the
network, and the ratio goes to 1.
"""

import time
from dataclasses import replace
from typing import Any

import torch
from _timing import arguments, in_turn, machine, show, write
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor
from torchdiffeq import odeint

from fmbench.flow.fields import CountingField, Field
from fmbench.flow.paths import CosineVP, OptimalTransport
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.registry import MULTISTEP
from fmbench.flow.solvers.tableaux import EULER, MIDPOINT, RK4, RK4_38
from fmbench.flow.solvers.torchdiffeq import torchdiffeq_adaptive
from fmbench.networks.mlp import MLP

STEPS, TOLERANCE = 50, 1e-5
COLUMNS = ["work", "field", "nfe", "ours_ms", "theirs_ms", "ratio", "ratio_low", "ratio_high", "difference"]


def decay(t: Tensor, x: Tensor) -> Tensor:
    """One operation: as cheap as a field can be."""
    return -x


def of_network(network: torch.nn.Module) -> Field:
    return lambda t, x: network(t.to(x.dtype).expand(x.shape[0]), x)


class Scheduler:
    """A multistep scheduler of diffusers on flow levels, set up once, so that only its steps are timed."""

    def __init__(self, scheduler: Any, grid: Tensor) -> None:
        self.scheduler, self.grid = scheduler, grid
        scheduler.set_timesteps(len(grid) - 1)
        scheduler.sigmas, scheduler.timesteps = (1 - grid).float(), torch.arange(len(grid) - 1)

    def solve(self, field: Field, x: Tensor) -> Tensor:
        scheduler = self.scheduler
        scheduler.lower_order_nums, scheduler._step_index, scheduler.last_sample = 0, 0, None
        scheduler.model_outputs = [None] * scheduler.config.solver_order
        for n, t in zip(scheduler.timesteps, self.grid, strict=False):
            x = scheduler.step(-field(t, x), n, x, return_dict=False)[0]
        return x


SCHEDULERS: dict[str, Any] = {
    "dpmpp_2m": lambda **options: DPMSolverMultistepScheduler(solver_order=2, **options),
    "dpmpp_3m": lambda **options: DPMSolverMultistepScheduler(solver_order=3, **options),
    "unipc2": lambda **options: UniPCMultistepScheduler(solver_order=2, **options),
    "unipc3": lambda **options: UniPCMultistepScheduler(solver_order=3, **options),
}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "lower_order_final": False}


def multistep_rows(name: str, field: Field, x: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Our multistep solvers against diffusers', both set up once; and against our Euler."""
    path, grid, rows = OptimalTransport(0.0), uniform_grid(0.02, 0.98, STEPS), []
    for solver, make in SCHEDULERS.items():
        theirs = Scheduler(make(**FLOW, final_sigmas_type="sigma_min"), grid)
        plan = replace(MULTISTEP[solver], lower_order_final=False).plan(grid, path)
        work = f"{solver}, {STEPS} steps, against diffusers"
        solves = (lambda f, p=plan: p.run(f, x)), (lambda f, s=theirs: s.solve(f, x))
        rows.append(compare(work, name, field, *solves, rounds))
    for solver, method in MULTISTEP.items():
        for kind, on in (("straight", path), ("cosine", CosineVP())):
            plan = method.plan(grid, on)
            work = f"{solver}, {STEPS} steps, {kind} path, against our Euler"
            rows.append(compare(work, name, field, lambda f, p=plan: p.run(f, x), lambda f: integrate(f, x, grid, EULER), rounds))
    return rows


def count(solve: Any, field: Field) -> tuple[Tensor, int]:
    counting = CountingField(field, -100.0, 100.0)
    return solve(counting), counting.calls


def compare(work: str, name: str, field: Field, ours: Any, theirs: Any, rounds: int, equal_nfe: bool = True) -> dict[str, Any]:
    """Check that both do the same work, then time them in turn."""
    (mine, calls), (other, their_calls) = count(ours, field), count(theirs, field)
    if equal_nfe and calls != their_calls:
        raise RuntimeError(f"{work} on {name}: {calls} evaluations against {their_calls}, so the times would not compare")
    nfe = calls if equal_nfe else f"{calls}, {their_calls}"
    difference = float((mine - other).abs().max())
    timed = in_turn(lambda: ours(field), lambda: theirs(field), rounds, clock=time.process_time)
    return {"work": work, "field": name, "nfe": nfe, **timed, "difference": difference}


@torch.no_grad()
def main() -> None:
    options = arguments(__doc__)
    before, rows = machine(), []
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    x = torch.randn(64, 2, generator=generator)
    fields = {
        "-x": decay,
        "MLP 3x64": of_network(MLP((2,), width=64, depth=3)),
        "MLP 5x192": of_network(MLP((2,), width=192, depth=5)),
    }

    grid = uniform_grid(0, 1, STEPS)
    for name, field in fields.items():
        for method, tableau in (("euler", EULER), ("midpoint", MIDPOINT), ("rk4", RK4_38), ("rk4", RK4)):

            def theirs(f: Field, method: str = method) -> Tensor:
                # Asked for both ends only: with every time of the grid it would also interpolate at each and be slower.
                return odeint(f, x, grid[[0, -1]], method=method, options={"grid_constructor": lambda f, y, t: grid})[-1]

            def ours(f: Field, tableau: Any = tableau) -> Tensor:
                return integrate(f, x, grid, tableau)

            work = f"{tableau.name}, {STEPS} steps" + (", theirs the 3/8 rule" if tableau is RK4 else "")
            rows.append(compare(work, name, field, ours, theirs, options.rounds))

    for name, field in fields.items():
        rows += multistep_rows(name, field, x, options.rounds)

    def shared(f: Field, x: Tensor, end: float) -> Tensor:
        return dopri5(f, x, 0.0, end, rtol=TOLERANCE, atol=TOLERANCE, per_sample=False).x

    def single(f: Field, x: Tensor, end: float) -> Tensor:
        return dopri5(f, x, 0.0, end, rtol=TOLERANCE, atol=TOLERANCE).x

    def reference(f: Field, x: Tensor, end: float) -> Tensor:
        return torchdiffeq_adaptive(f, x, 0.0, end, rtol=TOLERANCE, atol=TOLERANCE)

    # The decay over a longer time, so that it takes as many steps as a trained network's field does.
    for name, field in fields.items():
        end = 10.0 if field is decay else 1.0
        rows.append(
            compare(
                "dopri5, one step size",
                name,
                field,
                lambda f, end=end: shared(f, x, end),
                lambda f, end=end: reference(f, x, end),
                options.rounds,
            )
        )
    images = torch.randn(64, 3, 32, 32, generator=generator)
    for work, solve in (("one step size", shared), ("a step size per sample", single)):
        rows.append(
            compare(
                f"dopri5, {work}, 64x3x32x32",
                "-x",
                decay,
                lambda f, solve=solve: solve(f, images, 10.0),
                lambda f: reference(f, images, 10.0),
                options.rounds,
                equal_nfe=solve is shared,
            )
        )
    show(rows, COLUMNS)
    write(options.out, before, {"solvers": rows})


if __name__ == "__main__":
    main()
