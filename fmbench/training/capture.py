"""Work on a GPU as one CUDA graph: a small network's thousand kernels, launched at once.

What is recorded is always the same work on the same tensors, so whatever is drawn or counted on the CPU must be so outside of it.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Work = Callable[..., Tensor]

_WAITED = "synchronizing CUDA operation"
"""What torch says of a wait for the GPU in its synchronisation debug mode."""


def rehearse(work: Work, inputs: Sequence[Tensor], device: torch.device) -> str:
    """Run ``work`` as it must be before it is recorded; what kept it from being recorded, or nothing.

    Libraries choose their algorithms and take their memory in the first runs. A recording that fails leaves allocator and
    generators in disorder, so a wait for the GPU, which would make it fail, is looked for in the last. So is a number
    drawn on the CPU, which each replay would have again.

    Raises:
        RuntimeError: the work cannot be done at all.
    """
    aside, now = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    aside.wait_stream(now)
    before = torch.cuda.get_sync_debug_mode()
    try:
        with torch.cuda.stream(aside):
            work(*inputs)
            work(*inputs)
            generators = _on_the_cpu()
            torch.cuda.set_sync_debug_mode("error")
            work(*inputs)
    except RuntimeError as error:
        if _WAITED not in str(error):
            raise
        reason = " ".join(str(error).strip().split("\n")[0].split())
        return f"it waits for the GPU on its way ({reason})"  # as a network of one's own may, that looks at a number
    finally:
        torch.cuda.set_sync_debug_mode(before)
        now.wait_stream(aside)
    return "" if _on_the_cpu() == generators else "it draws random numbers on the CPU"


def _on_the_cpu() -> tuple[Any, ...]:
    """The states of the generators there."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return (torch.get_rng_state().numpy().tobytes(), random.getstate(), kind, np.asarray(keys).tobytes(), *rest)


def record(work: Work, inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What runs ``work`` again on these tensors, and the tensor that its output will be in. Nothing runs while it is recorded.

    Raises:
        RuntimeError: it cannot be recorded.
    """
    graph, device = torch.cuda.CUDAGraph(), inputs[0].device
    # By itself a graph is the current GPU's, which need not be the one that the work is done on.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
        output = work(*inputs)
    return graph.replay, output


class Recording:
    """``work`` recorded; called as it is, with tensors of the shapes of ``inputs``, which are its own to write to.

    Raises:
        RuntimeError: it cannot be recorded.
        ValueError: a tensor it is called with is of another shape.
    """

    def __init__(self, work: Work, inputs: Sequence[Tensor]) -> None:
        self.inputs = inputs
        self._replay, self._output = record(work, inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for mine, given in zip(self.inputs, inputs, strict=True):
            if mine.shape != given.shape:
                raise ValueError(f"the work was recorded with a tensor of shape {tuple(mine.shape)}, not {tuple(given.shape)}")
            mine.copy_(given)
        self._replay()
        return self._output.clone()
