"""The number formats of training: how products are rounded. Weights, loss, optimiser and averages are always float32."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from fmbench.errors import ConfigError
from fmbench.system.devices import rounding

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check(precision: str, device: torch.device) -> None:
    """Check before the first step that a device supports a precision.

    ``fp32``: float32 throughout. ``tf32``: products and convolutions of float32 numbers are rounded to 10 bits, on NVIDIA GPUs
    only. ``bf16``, ``fp16``: the network runs under autocast. On the CPU these two are for trials: the same rounding, no speed.

    Raises:
        ConfigError: the device or this version of torch does not support it.
    """
    if precision == "tf32":
        if device.type != "cuda":
            raise ConfigError(f"precision tf32 needs an NVIDIA GPU, and the device is {str(device)!r}; choose fp32")
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            raise ConfigError(f"precision tf32 needs a GPU of compute capability 8.0, this one has {major}.{minor}; choose fp32")
    if precision in AUTOCAST:
        layer = nn.Linear(2, 2, device=device)
        try:
            with torch.autocast(device.type, AUTOCAST[precision]):
                out = layer(torch.ones(2, 2, device=device))
            out.float().sum().backward()
        except RuntimeError as error:
            raise ConfigError(
                f"precision {precision} is not supported on the device {str(device)!r}: {error}; choose fp32"
            ) from None


@contextlib.contextmanager
def matrix_precision(precision: str, device: torch.device) -> Iterator[None]:
    """A context in which a GPU rounds products and convolutions of float32 numbers as ``precision`` says.

    It restores the earlier rounding at its end, and changes nothing on a CPU.
    """
    if device.type != "cuda":
        yield
        return
    with rounding("tf32" if precision == "tf32" else "ieee"):
        yield
