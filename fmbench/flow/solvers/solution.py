"""What an adaptive solve returns, apart from the solver: a training that names it must not depend on the solver's code."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AdaptiveSolution:
    """The result of an adaptive solve.

    Attributes:
        x: final states, shape (B, *); for a failed sample its last good state.
        nfe: evaluations spent on each sample, int64, shape (B,).
        failed: bool, shape (B,): the step size vanished, the state stopped being finite, or ``max_nfe`` was reached.
    """

    x: Tensor
    nfe: Tensor
    failed: Tensor
