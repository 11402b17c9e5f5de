"""What an adaptive solve returns, apart from the solver: a training that names it must not depend on the solver's code."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fmbench.flow.broadcast import expand_to


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

    @property
    def samples(self) -> Tensor:
        """The final states, NaN where the solve failed: the state of a failed solve is not a sample."""
        return self.x.masked_fill(expand_to(self.failed, self.x), torch.nan)
