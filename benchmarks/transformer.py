"""A transformer against U-Nets of about as many parameters: a training step and an evaluation, in processor time.

Both are our own networks and our own step (loss, backward, Adam, average) on random images in memory. "Ours" is the transformer,
"theirs" the U-Net, so a ratio above 1 means that the transformer is faster. The columns of parameters and operations (of one
sample's evaluation, a multiply-add is two) are those that ``fmbench plan`` counts.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from _timing import arguments, in_turn, machine, show, write
from torch import nn

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.flow.objectives import build
from fmbench.networks.counting import Cost, count
from fmbench.networks.transformer import Transformer
from fmbench.networks.unet import UNet
from fmbench.training.step import Step

COLUMNS = ["work", "parameters", "unet_parameters", "operations", "unet_operations", "ours_ms", "theirs_ms"]
COLUMNS += ["ratio", "ratio_low", "ratio_high"]
DIGITS, CIFAR10 = (1, 8, 8), (3, 32, 32)
PAIRS: dict[str, tuple[tuple[int, ...], int, Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "digits": (
        DIGITS,
        64,
        lambda: Transformer(DIGITS, patch=2, width=64, depth=2, heads=2, max_frequency=60.0),
        lambda: UNet(DIGITS, 16, (1, 2), 1, (), 32, resample_blocks=False, max_frequency=60.0),
    ),
    "32 x 32, patch 2": (
        CIFAR10,
        16,
        lambda: Transformer(CIFAR10, patch=2, width=104, depth=6, heads=4),
        lambda: UNet(CIFAR10, 32, (1, 2, 2), 1, (16,), 32, resample_blocks=False),
    ),
    "32 x 32, patch 4": (
        CIFAR10,
        16,
        lambda: Transformer(CIFAR10, patch=4, width=104, depth=6, heads=4),
        lambda: UNet(CIFAR10, 32, (1, 2, 2), 1, (16,), 32, resample_blocks=False),
    ),
}
"""The shape of the images, the batch, the transformer and the U-Net."""


def training(network: nn.Module, shape: tuple[int, ...], batch: int) -> Callable[[], Any]:
    """The next step of a training."""
    settings, g = TrainingSettings(batch_size=batch, iterations=1_000_000), torch.Generator().manual_seed(0)
    step = Step(build(METHODS["fm_ot"]), network.to(memory_format=torch.channels_last), settings, torch.device("cpu"))
    x0, x1, t = torch.randn(batch, *shape, generator=g), torch.rand(batch, *shape, generator=g), torch.rand(batch, generator=g)
    return lambda: step(x0, x1, t.double())


def evaluation(network: nn.Module, shape: tuple[int, ...], batch: int) -> Callable[[], Any]:
    """An evaluation without gradients."""
    network, t, x = network.eval().to(memory_format=torch.channels_last), torch.full((batch,), 0.5), torch.randn(batch, *shape)

    def evaluate() -> None:
        with torch.no_grad():
            network(t, x)

    return evaluate


def main() -> None:
    options, before = arguments(__doc__), machine()
    rows: list[dict[str, Any]] = []
    for name, (shape, batch, transformer, unet) in PAIRS.items():
        mine, theirs = (count(make, shape) for make in (transformer, unet))
        for work, make in (("step", training), ("evaluation", evaluation)):
            torch.manual_seed(0)
            timed = in_turn(
                make(transformer(), shape, batch), make(unet(), shape, batch), options.rounds, clock=time.process_time
            )
            rows.append({"work": f"{name}, {work} of {batch}", **_columns(mine, theirs), **timed})
    show(rows, COLUMNS)
    write(options.out, before, {"transformer": rows})


def _columns(mine: Cost, theirs: Cost) -> dict[str, int]:
    sizes = {"parameters": mine.parameters, "unet_parameters": theirs.parameters}
    return sizes | {"operations": mine.flops, "unet_operations": theirs.flops}


if __name__ == "__main__":
    main()
