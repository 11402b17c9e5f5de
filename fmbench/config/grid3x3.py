"""Methods that make a grid: what the network predicts by which error its loss measures, and nothing else differs."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from fmbench.config.methods import Method, Part

KINDS = ("x", "epsilon", "velocity")
"""What is predicted, and what is measured, in the order of rows and columns (Li & He 2025, arXiv:2511.13720, Table 2)."""


class Cell(NamedTuple):
    """A place in a grid: what the network predicts, and whose squared error the loss is."""

    predicted: str
    measured: str


class Grid(NamedTuple):
    """Methods that differ in nothing but their cell.

    Attributes:
        common: one of them, for what they share.
        methods: their names by cell.
    """

    common: Method
    methods: dict[Cell, str]


def cell_of(method: Method) -> Cell | None:
    """The cell of a method; None for an oracle, and if it predicts or measures something else than :data:`KINDS`."""
    predicted, weighting = method.prediction.name, method.weighting.name
    cell = Cell(predicted, predicted if weighting == "uniform" else weighting)
    outside = method.oracle is not None or method.path is None or not set(cell) <= set(KINDS)
    return None if outside else cell


def grids(methods: Iterable[Method]) -> list[Grid]:
    """The grids that methods make: some prediction has two losses, and some loss has two predictions.

    Of two methods with the same cell the first counts.
    """
    found: list[tuple[Method, Grid]] = []
    for method in methods:
        cell = cell_of(method)
        if cell is None:
            continue
        shared = dataclasses.replace(method, name="", prediction=Part(""), weighting=Part(""))
        grid = next((grid for other, grid in found if other == shared), None)
        if grid is None:
            grid = Grid(method, {})
            found.append((shared, grid))
        grid.methods.setdefault(cell, method.name)
    return [grid for _, grid in found if _spans(grid)]


def gridded(methods: Iterable[Method]) -> list[str]:
    """The names of all methods in a grid; none if they make no grid."""
    return [name for grid in grids(methods) for name in grid.methods.values()]


def _spans(grid: Grid) -> bool:
    """Whether some prediction has two losses, and some loss two predictions."""
    by_row, by_column = ([cell[place] for cell in grid.methods] for place in (0, 1))
    return all(len(names) > len(set(names)) for names in (by_row, by_column))
