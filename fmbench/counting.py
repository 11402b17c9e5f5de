"""What a network computes and keeps, counted of one sample; as a rule on tensors without storage."""

import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Of one sample, in float32. Weights are in none of the bytes.

    Attributes:
        parameters: of the network.
        flops: of a forward pass; multiply-adds are two.
        kept: bytes that autograd keeps of a training's forward pass.
        peak: the most bytes that are there at once in a forward pass without gradients.
        peak_vjp: the same in a forward pass and a vector-Jacobian product by the input, as a likelihood takes them; weights that
            are not trained keep less.
    """

    parameters: int
    flops: int
    kept: int
    peak: int
    peak_vjp: int


def count(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Cost:
    """The cost of a network called as ``network(t, x)`` on samples of ``shape``.

    A network that looks at numbers, or makes tensors on a device by name, is made and run on the CPU.

    Raises:
        Exception: whatever the network raises there.
    """
    try:
        with torch.device("meta"):
            return _count(build(), shape, "meta")
    except Exception:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a number looked at, which is its own affair
            return _count(build(), shape, "cpu")


def _count(network: nn.Module, shape: tuple[int, ...], device: str) -> Cost:
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        flops=_flops(network.eval(), shape, device),
        kept=_kept(network.train(), shape, device),
        peak=_peak(network.eval(), shape, device),
        peak_vjp=_peak_vjp(network, shape, device),
    )


def _inputs(shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    x = torch.zeros(1, *shape, device=device)
    return torch.full((1,), 0.5, device=device), x


def _flops(network: nn.Module, shape: tuple[int, ...], device: str) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(*_inputs(shape, device))
    return int(counter.get_total_flops())


def _kept(network: nn.Module, shape: tuple[int, ...], device: str) -> int:
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Tensor] = {}  # by storage: views of one tensor are kept once

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), FusedAttention():
        network(*_inputs(shape, device)).sum()
    return sum(t.untyped_storage().nbytes() for storage, t in kept.items() if storage not in weights)


def _peak(network: nn.Module, shape: tuple[int, ...], device: str) -> int:
    inputs = _inputs(shape, device)
    with torch.no_grad(), Live([*network.parameters(), *network.buffers()]) as live, FusedAttention():
        network(*inputs)
    return live.peak


def _peak_vjp(network: nn.Module, shape: tuple[int, ...], device: str) -> int:
    network.requires_grad_(False)
    t, x = _inputs(shape, device)
    x.requires_grad_()
    with Live([*network.parameters(), *network.buffers()]) as live, FusedAttention():
        out = network(t, x)
        if out.requires_grad:
            torch.autograd.grad(out, x, torch.ones_like(out), allow_unused=True)
    network.requires_grad_(True)
    return live.peak


class FusedAttention(TorchFunctionMode):
    """Attention that keeps what the fused kernels keep, not the matrix between all pixels; its numbers are nobody's."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention and len(args) >= 3:
            return _Attention.apply(*args[:3])
        return function(*args, **(kwargs or {}))


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


class Live(TorchDispatchMode):
    """The most bytes of tensors that operations made and that were alive at once, other than ``known`` ones and views of them."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._born(tensor.untyped_storage())
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
