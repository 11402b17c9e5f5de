"""The command to give after an error, for the commands that people give themselves."""

import itertools
import re
from collections.abc import Sequence

from fmbench.errors import ConfigError, DataError, LockedError

OF_A_CONFIG = ("doctor", "plan", "spec", "status")
"""Commands whose config is checked in full by another one."""
OF_RESULTS = (
    *("claims", "compare", "export", "figure", "merge", "mlflow-rebuild", "page", "render", "reproduce"),
    *("table1", "table2", "table3", "table4", "solvers", "grid3x3", "pareto"),
)
"""Commands that read a results folder."""
_OF_AN_ARGUMENT = "unknown |stage "
"""How the errors of an argument of the command line begin. They list what is known."""


def next_command(error: Exception, arguments: Sequence[str]) -> str:
    """Return a line with the command to give next, with a line break before it; empty if the message has a remedy itself.

    Args:
        arguments: those of the command line. Errors of stages have no such line, because Snakemake runs them.
    """
    name = next((word for word in arguments if not word.startswith("-")), "")
    if re.search(r"\b(?:fmbench|snakemake|pip) [\w-]", str(error)) or re.match(_OF_AN_ARGUMENT, str(error)):
        return ""
    if isinstance(error, ConfigError) and name in OF_A_CONFIG:
        files = [f" {option} {value}" for option, value in itertools.pairwise(arguments) if option == "--configfile"]
        return f"\nnext: correct the config, then fmbench validate{''.join(files)}"
    if isinstance(error, LockedError):
        return "\nnext: fmbench status"
    if isinstance(error, DataError) and name in OF_RESULTS and re.search("missing|has none of", str(error)):
        return "\nnext: fmbench status, which says what of the run is missing"
    return ""
