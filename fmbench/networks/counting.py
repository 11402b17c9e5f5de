"""Counts the operations and the bytes of a network for one sample, on tensors without storage where the network allows it."""

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

PAIR = 2
"""Samples that are counted together, because a norm over the batch needs two in training. Costs are those of one."""


@dataclass(frozen=True)
class Cost:
    """The cost of one sample, in float32. No number of bytes includes the weights.

    Attributes:
        parameters: of the network.
        flops: of a forward pass; a multiply-add counts as two operations.
        kept: bytes that autograd keeps of a forward pass in training.
        peak: the most bytes alive at once in a forward pass without gradients.
        peak_vjp: the same for a forward pass and one vector-Jacobian product by the input, as in a likelihood. Weights are not
            trained there, so less is kept than in training.
        peak_vjps: the same with several such products after one forward pass.
        peak_jvp: the same for a forward pass with its directional derivative; None if the network has no such derivative.
    """

    parameters: int
    flops: int
    kept: int
    peak: int
    peak_vjp: int
    peak_vjps: int
    peak_jvp: int | None


Inputs = Callable[[], tuple[Tensor, ...]]
"""Makes the inputs of a network: times, samples and, if it takes one, a condition."""
Example = Callable[[int, tuple[int, ...], str], tuple[Tensor, ...]]
"""A condition of n samples of a shape on a device: a tuple of one tensor, or the empty one."""


def count(build: Callable[[], nn.Module], shape: tuple[int, ...], example: Example = lambda n, shape, device: ()) -> Cost:
    """The cost of a network called as ``network(t, x, *condition)`` on samples of ``shape``.

    A network that reads numbers from tensors, or names a device for a new tensor, is built and run on the CPU.

    Raises:
        Exception: whatever the network raises on the CPU.
    """
    try:
        with torch.device("meta"):
            return _count(build(), lambda: _inputs(shape, example, "meta"))
    except Exception:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the network may warn about numbers that it reads; they mean nothing here
            return _count(build(), lambda: _inputs(shape, example, "cpu"))


def _count(network: nn.Module, inputs: Inputs) -> Cost:
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        flops=_flops(network.eval(), inputs) // PAIR,
        kept=_kept(network.train(), inputs) // PAIR,
        peak=_peak(network.eval(), inputs) // PAIR,
        peak_vjp=_peak_vjp(network, inputs, products=1) // PAIR,
        peak_vjps=_peak_vjp(network, inputs, products=2) // PAIR,
        peak_jvp=_peak_jvp(network, inputs),
    )


def _inputs(shape: tuple[int, ...], example: Example, device: str) -> tuple[Tensor, ...]:
    x = torch.zeros(PAIR, *shape, device=device)
    return torch.full((PAIR,), 0.5, device=device), x, *example(PAIR, shape, device)


def _flops(network: nn.Module, inputs: Inputs) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(*inputs())
    return int(counter.get_total_flops())


def _kept(network: nn.Module, inputs: Inputs) -> int:
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Tensor] = {}  # by storage, because views of one tensor share it

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), fused_attention():
        network(*inputs()).sum()
    return sum(t.untyped_storage().nbytes() for storage, t in kept.items() if storage not in weights)


def _live(network: nn.Module) -> "LiveBytes":
    return LiveBytes([*network.parameters(), *network.buffers()])


def _peak(network: nn.Module, inputs: Inputs) -> int:
    made = inputs()
    with torch.no_grad(), _live(network) as live, fused_attention():
        network(*made)
    return live.peak


def _peak_vjp(network: nn.Module, inputs: Inputs, products: int) -> int:
    network.requires_grad_(False)
    t, x, *condition = inputs()
    x.requires_grad_()
    with _live(network) as live, fused_attention():
        out = network(t, x, *condition)
        if out.requires_grad:
            for left in reversed(range(products)):
                torch.autograd.grad(out, x, torch.ones_like(out), retain_graph=left > 0, allow_unused=True)
    network.requires_grad_(True)
    return live.peak


def _peak_jvp(network: nn.Module, inputs: Inputs) -> int | None:
    t, x, *condition = inputs()
    try:
        # The likelihood uses this kernel too, since the fused ones have no forward-mode derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about how it computes these derivatives
            with forward_ad.dual_level(), _live(network) as live:
                network(t, forward_ad.make_dual(x, torch.ones_like(x)), *condition)
    except RuntimeError:  # an operation has no such derivative; the likelihood reports that
        return None
    return live.peak // PAIR


_ATTENTION = F.scaled_dot_product_attention


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Replace attention by one that keeps what the fused kernels keep, not the matrix between all pixels. It returns zeros."""
    # Replacing the name reaches torch's own modules, which a mode does not see. The mode reaches code that imported the function.
    F.scaled_dot_product_attention = _attention
    try:
        with _AttentionMode():
            yield
    finally:
        F.scaled_dot_product_attention = _ATTENTION


class _AttentionMode(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_attention if function is _ATTENTION else function)(*args, **(kwargs or {}))


def _attention(query: Tensor, key: Tensor, value: Tensor, *others: Any, **more: Any) -> Tensor:
    out: Tensor = _Attention.apply(query, key, value)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_zeros(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_zeros(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make and that are alive at once, without ``known`` tensors and their views.

    Attributes:
        now: bytes alive.
        peak: the most so far.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
