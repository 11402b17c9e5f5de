"""What solvers do not differentiate: the times of their grids."""

from torch import Tensor


def check_constant(what: str, times: Tensor | float) -> None:
    """Check that times have no gradient: a solver reads their numbers, so its result would have none or a wrong one.

    Raises:
        ValueError: they require a gradient.
    """
    if isinstance(times, Tensor) and times.requires_grad:
        raise ValueError(
            f"the {what} requires a gradient, which this solver does not give; detach it. The derivative of the result by its "
            "last time is the field there"
        )
