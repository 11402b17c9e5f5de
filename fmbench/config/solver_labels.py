"""What the label of a solver in a row says about it."""

import re

from fmbench.config.names import ADAPTIVE_SOLVERS

_ADAPTIVE = {name + shared for name in ADAPTIVE_SOLVERS for shared in ("", "_shared")}


def is_fixed_step(label: str) -> bool:
    """Whether the solver of a row spends a number of evaluations that a config asks for, so that its NFE identifies the row.

    The NFE of an adaptive solver is an outcome. Other labels are no names: "closed form", "midpoint at 1000 NFE".
    """
    name = label.partition("/")[0]
    return re.fullmatch(r"[A-Za-z][\w.-]*", name) is not None and name not in _ADAPTIVE
