"""The solvers and time grids of a whole config, which the stage ``check`` tries before any training."""

from typing import Any

from fmbench.config.cells import Cell
from fmbench.config.config import Config
from fmbench.config.evaluation_settings import FixedStepSettings
from fmbench.config.names import OPTIMAL_GRID, step_cost


def own_solvers(config: Config) -> list[dict[str, Any]]:
    """Every solver of the user's own with the numbers of evaluations that it must spend."""
    return [cell._asdict() for cell in sorted(_cells(config), key=str) if cell.use]


def time_grids(config: Config) -> list[list[Any]]:
    """Every time grid of sweeps and few-step samples with its number of steps, except those that always exist."""
    cells = [cell for cell in _cells(config) if cell.grid not in ("uniform", OPTIMAL_GRID)]
    return sorted([cell.grid, max(1, cell.nfe // step_cost(cell.solver))] for cell in cells)


def _cells(config: Config) -> set[Cell]:
    """What sweeps and the few-step stage measure."""
    stages = [settings for d in config.datasets for _, settings in config.dataset(d).evaluation]
    return {cell for settings in stages if isinstance(settings, FixedStepSettings) for cell in settings.cells()}
