"""The cells that a sweep or the few-step stage measures: every solver on its grid at every NFE.

This is a separate module because the code hash of these jobs covers it: their specs hold the settings, and the jobs find their
cells by this code. The hash leaves out the other modules of settings.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from fmbench.config.names import JUMPS, SAMPLER_OPTIONS


class Cell(NamedTuple):
    """One measurement: a solver on a time grid with a number of evaluations.

    Attributes:
        use: the dotted name of a solver of the user's own; None for a built-in one.
        lower_order_final: whether the order of a multistep solver falls to 1 in the last steps; None for the solver's own choice.
        options: of a stochastic sampler, those that are set.
    """

    solver: str
    grid: str
    nfe: int
    use: str | None = None
    lower_order_final: bool | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """The solver's name in the records, with its grid, its lowering of the order and its options, where they are set."""
        order = {None: "", True: "/lower_order_final", False: "/full_order_final"}[self.lower_order_final]
        options = "".join(f"/{key}={str(value).removesuffix('.0')}" for key, value in self.options)
        return self.solver + (f"/{self.grid}" if self.grid != "uniform" else "") + order + options


class SolverEntry(Protocol):
    """A solver with its time grid and, optionally, its own list of NFE."""

    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> str: ...
    @property
    def nfe(self) -> Sequence[int] | None: ...
    @property
    def use(self) -> str | None: ...
    @property
    def lower_order_final(self) -> bool | None: ...


def jumps(numbers: Iterable[int]) -> list[Cell]:
    """The cells of samples by these numbers of jumps of a mean velocity."""
    return [Cell(JUMPS, "uniform", number) for number in dict.fromkeys(numbers)]


PICTURED = "midpoint"
"""The solver whose samples are kept for figures, if a config has it."""


def pictured(wanted: Sequence[Cell]) -> list[Cell]:
    """The cells whose samples are kept for figures: those of :data:`PICTURED` or, without any, of the first solver."""
    labels = [cell.label for cell in wanted]
    return [cell for cell in wanted if cell.label == (PICTURED if PICTURED in labels else labels[0])]


def cells(solvers: Iterable[SolverEntry], nfe: Sequence[int]) -> list[Cell]:
    """Every solver on its grid at every NFE of its own list, or of the common list ``nfe`` if it has none."""
    found = (Cell(e.name, e.grid, n, e.use, e.lower_order_final, options(e)) for e in solvers for n in e.nfe or nfe)
    return list(dict.fromkeys(found))


def options(entry: SolverEntry) -> tuple[tuple[str, Any], ...]:
    """The options of a stochastic sampler that are set; none for other solvers."""
    return tuple((key, value) for key in SAMPLER_OPTIONS if (value := getattr(entry, key, None)) is not None)
