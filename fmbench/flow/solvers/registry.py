"""The fixed-step solvers that a config names, behind one call: spend a number of evaluations of the velocity field on a path.

Runge-Kutta methods are coefficients (:mod:`fmbench.flow.solvers.tableaux`), multistep methods formulas, and the others functions
of (field, x, grid, path).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from fmbench.config.plugins import resolve
from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.adams_bashforth import AB2, AB3, AB4, DEIS2, DEIS3, IPNDM
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.dpm_solver import DPM_2S, DPM_3S
from fmbench.flow.solvers.dpmpp import DPMPP_2M, DPMPP_3M
from fmbench.flow.solvers.edm_heun import edm_heun
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.multistep import Multistep
from fmbench.flow.solvers.tableaux import FIXED, Tableau
from fmbench.flow.solvers.unipc import UNIPC2, UNIPC3

Grid = Callable[[int], Tensor]
"""From a number of steps to the times of a grid, float64, shape (steps + 1,)."""


class Solver(Protocol):
    """A fixed-step solver.

    Attributes:
        cost: evaluations of a step.
    """

    @property
    def cost(self) -> int: ...

    def spend(self, nfe: int, field: Field, x: Tensor, grid: Grid, path: AffinePath) -> Tensor:
        """The final state (B, *) of a solve from x (B, *) with ``nfe`` evaluations of the velocity field at most."""
        ...


@dataclass(frozen=True)
class StepSolver:
    """A solver whose steps all cost the same.

    Attributes:
        solve: from the velocity field, the state (B, *), the times of the grid (N + 1,) and the path to the final state (B, *).
        cost: evaluations of a step.
    """

    solve: Callable[[Field, Tensor, Tensor, AffinePath], Tensor]
    cost: int = 1

    def spend(self, nfe: int, field: Field, x: Tensor, grid: Grid, path: AffinePath) -> Tensor:
        if nfe < self.cost or nfe % self.cost:
            raise ValueError(f"a step costs {self.cost} evaluations, so this solver cannot spend exactly {nfe}")
        return self.solve(field, x, grid(nfe // self.cost), path)


def runge_kutta(tableau: Tableau) -> StepSolver:
    """The solver of a tableau: a step costs one evaluation for each stage."""
    return StepSolver(lambda field, x, grid, path: integrate(field, x, grid, tableau), tableau.stages)


MULTISTEP: dict[str, Multistep] = {
    **{"ab2": AB2, "ab3": AB3, "ab4": AB4, "deis2": DEIS2, "deis3": DEIS3, "ipndm": IPNDM},
    **{"dpmpp_2m": DPMPP_2M, "dpmpp_3m": DPMPP_3M, "unipc2": UNIPC2, "unipc3": UNIPC3},
}
"""Multistep methods by the names a config uses."""
SOLVERS: dict[str, Solver] = {
    **{name: runge_kutta(tableau) for name, tableau in FIXED.items()},
    "ddim": StepSolver(lambda field, x, grid, path: ddim(field, x, grid, path, VELOCITY)),
    "ddim2": StepSolver(lambda field, x, grid, path: ddim(field, x, grid, path, VELOCITY, "u", 2), cost=2),
    "edm_heun": StepSolver(edm_heun, cost=2),
    "dpm_2s": DPM_2S,
    "dpm_3s": DPM_3S,
    **{name: StepSolver(method.solve) for name, method in MULTISTEP.items()},
}
"""Fixed-step solvers by the names a config uses."""


def find_solver(name: str, use: str | None = None, lower_order_final: bool | None = None) -> Solver:
    """The solver that a config means.

    Args:
        use: the dotted name of a solver of the user's own: a :class:`Multistep`, a :class:`Tableau`, or what has ``spend`` and
            ``cost`` of :class:`Solver`.
        lower_order_final: of a multistep method; None for its own choice.

    Raises:
        ValueError: the solver is not known, cannot be imported, is none of these, or has no order to lower.
    """
    found = resolve({}, "solver", use) if use else MULTISTEP.get(name) or resolve(SOLVERS, "solver", name)
    if isinstance(found, Multistep):
        own = found.lower_order_final if lower_order_final is None else lower_order_final
        return StepSolver(replace(found, lower_order_final=own).solve)
    if lower_order_final is not None:
        raise ValueError(f"{name} is no multistep method, so it has no lower_order_final; remove it")
    if isinstance(found, Tableau):
        return runge_kutta(found)
    if not hasattr(found, "spend") or not isinstance(getattr(found, "cost", None), int) or found.cost < 1:
        raise ValueError(
            f"{use} is not a solver; give a Multistep, a Tableau, or a StepSolver (fmbench.flow.solvers.registry) around a "
            "function of (field, x, grid, path)"
        )
    solver: Solver = found
    return solver
