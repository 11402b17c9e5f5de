"""The tables and figures of a run. A run has none of those whose subject is not in its config."""

from fmbench.config import selections
from fmbench.config.config import Config
from fmbench.config.grid3x3 import gridded
from fmbench.config.names import FIGURES, OF_THE_PAPER

OTHER_TABLES = ("solvers", "table2", "table3", "table4", "grid3x3", "pareto")
"""The tables besides Table 1."""


def absent(config: Config) -> set[str]:
    """Return the tables and figures that a run does not have."""
    found: set[str] = set()
    if not selections.super_resolved(config):
        found |= {"fig14", "fig15"}
    if not selections.models(config, "dequantisation"):
        found.add("table4")
    if not gridded(method.resolve() for method in config.methods):  # no methods differ in prediction and loss alone
        found.add("grid3x3")
    if not {method.name for method in config.methods} - {*OF_THE_PAPER, *selections.oracles(config)}:
        found.add("pareto")
    return found


def other_tables(config: Config) -> list[str]:
    """Return the tables of a run besides Table 1."""
    return [table for table in OTHER_TABLES if table not in absent(config)]


def drawn(config: Config) -> list[str]:
    """Return the figures of a run."""
    return [figure for figure in FIGURES if figure not in absent(config)]
