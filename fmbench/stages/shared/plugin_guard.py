"""What happens when a plug-in raises an exception during training: the training counts as diverged, with a reason."""

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.plugins import RAISED
from fmbench.flow.regression import Loss


class PluginGuard:
    """An objective whose loss becomes NaN once a plug-in raises an exception. The training then ends as a diverged one.

    The plug-in will raise again until somebody edits it, and an edit changes the code hash. So the exception is a result, not an
    accident. Some exceptions may not occur the next time, or are no fault of the plug-in: those about memory, files, modules and
    the device, and those of fmbench itself. They stay errors.

    With several processes every exception must stay an error, because the other processes would wait for this one. So do not use
    the guard there.

    Attributes:
        raised: where the plug-in raised and what; empty if it did not.

    Args:
        files: the files of the plug-ins.
        tell: called with the traceback.
    """

    def __init__(self, objective: Loss, network: nn.Module, files: set[str], tell: Callable[[str], None]) -> None:
        self.objective, self.network, self.files, self.tell = objective, network, files, tell
        self.raised = ""

    def loss(self, network: Any, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        """The loss of each sample, shape (B,), by :meth:`fmbench.flow.objectives.Objective.loss`; NaN after an exception."""
        try:
            if not self.raised:
                return self.objective.loss(network, x0, x1, u)
        except RAISED as error:
            self.raised = place_raised(error, self.files)
            if not self.raised:
                raise
            self.tell(traceback.format_exc().rstrip())
        # The loss depends on every weight, so that each has a gradient: the scaler of fp16 needs them.
        return sum(p.sum() for p in self.network.parameters()) * x1.new_full((len(x1),), torch.nan)


def place_raised(error: BaseException, files: set[str]) -> str:
    """Where in these files an exception was raised, and which one; empty if the files may not be at fault."""
    package = type(error).__module__.partition(".")[0]
    of_the_machine = isinstance(error, RuntimeError) and re.search("memory|alloc|cuda|cudnn|cublas", str(error), re.IGNORECASE)
    if isinstance(error, MemoryError | OSError | ImportError) or package in ("torch", "fmbench") or of_the_machine:
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if not frames:
        return ""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}, raised {what}"
