"""Work on a GPU as one CUDA graph: a small network's thousand kernels, launched at once.

What is recorded is always the same work on the same tensors, so whatever is drawn or counted on the CPU must be so outside of it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Work = Callable[..., Tensor]


def rehearse(work: Work, inputs: Sequence[Tensor], device: torch.device) -> str:
    """Run ``work`` as it must be before it is recorded; what kept it from being recorded, or nothing.

    Libraries choose their algorithms and take their memory in the first runs. A recording that fails leaves allocator and
    generators in disorder, so a wait for the GPU, which would make it fail, is looked for in the last.
    """
    aside, now = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    aside.wait_stream(now)
    before = torch.cuda.get_sync_debug_mode()
    try:
        with torch.cuda.stream(aside):
            for last in (False, False, True):
                torch.cuda.set_sync_debug_mode("error" if last else before)
                work(*inputs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # such as a network of one's own that looks at a number on its way
        return " ".join(str(error).strip().split("\n")[0].split())
    finally:
        torch.cuda.set_sync_debug_mode(before)
        now.wait_stream(aside)
    return ""


def record(work: Work, inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What runs ``work`` again on these tensors, and the tensor that its output will be in. Nothing runs while it is recorded.

    Raises:
        RuntimeError: it cannot be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work(*inputs)
    return graph.replay, output


class Recording:
    """``work`` recorded; called as it is, with tensors of the shapes of ``inputs``, which are its own to write to.

    Raises:
        RuntimeError: it cannot be recorded.
    """

    def __init__(self, work: Work, inputs: Sequence[Tensor]) -> None:
        self.inputs = inputs
        self._replay, self._output = record(work, inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self._replay()
        return self._output.clone()
