"""The cells that a sweep or the few-step stage measures: every solver on its grid at every NFE.

This is a separate module because the code hash of these jobs covers it: their specs hold the settings, and the jobs find their
cells by this code. The hash leaves out the other modules of settings.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol


class Cell(NamedTuple):
    """One measurement: a solver on a time grid with a number of evaluations."""

    solver: str
    grid: str
    nfe: int

    @property
    def label(self) -> str:
        """The solver's name in the records, with the grid unless it is the uniform one."""
        return self.solver if self.grid == "uniform" else f"{self.solver}/{self.grid}"


class SolverEntry(Protocol):
    """A solver with its time grid and, optionally, its own list of NFE."""

    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> str: ...
    @property
    def nfe(self) -> Sequence[int] | None: ...


def cells(solvers: Iterable[SolverEntry], nfe: Sequence[int]) -> list[Cell]:
    """Every solver on its grid at every NFE of its own list, or of the common list ``nfe`` if it has none."""
    return list(dict.fromkeys(Cell(entry.name, entry.grid, n) for entry in solvers for n in entry.nfe or nfe))
