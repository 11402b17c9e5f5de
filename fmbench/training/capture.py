"""Work on a GPU as one CUDA graph, which launches the thousand kernels of a small network at once.

A graph always repeats the same work on the same tensors. So random numbers of the CPU and counters on the CPU must stay outside.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Work = Callable[..., Tensor]

_WAITED = "synchronizing CUDA operation"
"""torch's error message when the CPU waits for the GPU in synchronisation debug mode."""


def rehearse(work: Work, inputs: Sequence[Tensor], device: torch.device) -> str:
    """Run ``work`` three times, as a recording requires. Returns why it cannot be recorded, or an empty string.

    Libraries choose their algorithms and allocate their memory in the first runs. The last run looks for the two obstacles: a
    wait for the GPU, which would make a recording fail and leave allocator and generators in disorder; and a random number drawn
    on the CPU, which every replay would repeat.

    Raises:
        RuntimeError: the work itself fails.
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
        return f"it waits for the GPU ({reason})"  # as a plug-in network does that reads a number
    finally:
        torch.cuda.set_sync_debug_mode(before)
        now.wait_stream(aside)
    return "" if _on_the_cpu() == generators else "it draws random numbers on the CPU"


def _on_the_cpu() -> tuple[Any, ...]:
    """The states of the CPU's random generators."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return (torch.get_rng_state().numpy().tobytes(), random.getstate(), kind, np.asarray(keys).tobytes(), *rest)


def record(work: Work, inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A function that runs ``work`` again on these tensors, and the tensor that will hold its output. Recording runs nothing.

    Raises:
        RuntimeError: the work cannot be recorded.
    """
    graph, device = torch.cuda.CUDAGraph(), inputs[0].device
    # A graph is recorded on the current GPU by default, which need not be the one that does the work.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
        output = work(*inputs)
    return graph.replay, output


class Recording:
    """A recording of ``work``, which is called like ``work`` itself.

    Args:
        inputs: tensors of the shapes of every later call. The recording overwrites them.

    Raises:
        RuntimeError: the work cannot be recorded.
        ValueError: the recording is called with a tensor of another shape.
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
