"""What a sweep and a budget measure: every solver on its grid at every NFE.

Apart from :mod:`fmbench.config.config`, since which cells are measured is in no spec: it follows from the settings by this code.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol


class Cell(NamedTuple):
    """One measurement of a sweep."""

    solver: str
    grid: str
    nfe: int

    @property
    def label(self) -> str:
        """The solver's name in the records: with its grid, unless that is the uniform one."""
        return self.solver if self.grid == "uniform" else f"{self.solver}/{self.grid}"


class Entry(Protocol):
    """A solver with its time grid and, where it has one, a list of NFE of its own."""

    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> str: ...
    @property
    def nfe(self) -> Sequence[int] | None: ...


def cells(solvers: Iterable[Entry], nfe: Sequence[int]) -> list[Cell]:
    """Every solver on its grid at every NFE of its own list, or of the common one."""
    return list(dict.fromkeys(Cell(entry.name, entry.grid, n) for entry in solvers for n in entry.nfe or nfe))
