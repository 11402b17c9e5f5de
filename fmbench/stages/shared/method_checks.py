"""What the stage ``check`` tries of methods and solvers, before any data are there."""

from typing import Any

import torch

from fmbench.config.method_settings import method_from_values
from fmbench.config.plugins import RAISED, reason
from fmbench.data.conditions import NO_EXCHANGE, NO_TARGET, Condition, LowResolution
from fmbench.flow.broadcast import check_alike
from fmbench.flow.couplings import INDEPENDENT
from fmbench.flow.fields import CountingField
from fmbench.flow.objectives import Objective
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.regression import Loss, Regression, build_loss
from fmbench.flow.solvers.grids import GRIDS, uniform_grid
from fmbench.flow.solvers.registry import find_solver
from fmbench.flow.starts import NOISE


def check_methods(spec: dict[str, Any]) -> tuple[list[tuple[str, Loss]], list[str]]:
    """Build every method and every grid of the sweeps on its path.

    Returns:
        The trained methods with their objectives, and the problems.
    """
    objectives: list[tuple[str, Loss]] = []
    problems = []
    for values in spec["methods"]:
        try:
            objective = build_loss(method_from_values(values))
            if isinstance(objective, Objective):
                check_flow(objective, spec["grids"], values["oracle"])
            if values["oracle"] is None:
                objectives.append((values["name"], objective))
        except RAISED as error:
            problems.append(f"methods.{values['name']}: {reason(error)}")
    return objectives, problems


def check_flow(objective: Objective, grids: list[list[Any]], oracle: dict[str, Any] | None) -> None:
    """Check what sampling relies on: the ends of the path, every grid on it, and an oracle's field.

    Raises:
        ValueError: one of these does not hold.
    """
    objective.check_ends()
    for grid, steps in grids:
        GRIDS[grid](objective.path, objective.t_min, objective.t_max, steps)
    if oracle is not None:
        check_oracle(oracle, objective)


def solver_problems(cells: list[dict[str, Any]]) -> list[str]:
    """Why solvers of the user's own do not work: each spends what a sweep or the few-step stage asks for on a simple field."""
    problems = []
    for cell in cells:
        nfe, field = cell["nfe"], CountingField(lambda t, x: -x)
        x = torch.linspace(-1, 1, 6).reshape(3, 2)
        try:
            solver = find_solver(cell["solver"], cell["use"], cell["lower_order_final"])
            end = solver.spend(nfe, field, x, lambda steps: uniform_grid(0.0, 1.0, steps), OptimalTransport())
            check_alike("the result", end, x)
            if field.calls > nfe:
                raise ValueError(f"takes {field.calls} evaluations, not {nfe}; correct its cost, the evaluations of a step")
        except RAISED as error:
            problems.append(f"solver {cell['solver']}: {reason(error)}")
    return list(dict.fromkeys(problems))


def check_oracle(parameters: dict[str, Any], objective: Objective) -> None:
    """Check that an oracle's field is finite at the end of its path.

    Raises:
        ValueError: the field of a finite set without bandwidth is infinite where s = 0.
    """
    s = objective.path.coefficients(torch.tensor(objective.t_max, dtype=torch.float64)).s
    if parameters["bandwidth"] == 0 and s == 0:
        raise ValueError(
            f"the field of a finite set is infinite at t = {objective.t_max:g}, where this path has no noise left; "
            "give the oracle a bandwidth, or a t_max before that"
        )


def condition_problems(objectives: list[tuple[str, Loss]], condition: Condition) -> list[str]:
    """The methods that do not go with the condition of a data set, or with none."""
    marginal = [name for name, objective in objectives if objective.marginal and condition.given]
    return [f"condition: {name}: {NO_TARGET}" for name in marginal] + _image_problems(objectives, condition)


def _image_problems(objectives: list[tuple[str, Loss]], condition: Condition) -> list[str]:
    """The methods that need an image as the condition, if the data set has none; those that go with none, if it has one."""
    if isinstance(condition, LowResolution):
        return [f"condition: {name} has a coupling: {NO_EXCHANGE}" for name, of in objectives if of.coupling != INDEPENDENT]
    needy = [name for name, objective in objectives if isinstance(objective, Regression) or objective.start != NOISE]
    has = f"the condition here is {condition.given}" if condition.given else "there is no condition here"
    remedy = "set condition: {low_resolution: {factor: 4}}, or leave out the method"
    return [f"condition: {name} works with low-resolution images, and {has}; {remedy}" for name in needy]
