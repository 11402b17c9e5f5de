"""A user's module of plug-ins, which configs name ``user_code:NAME``: data sources, a path, networks, a method and an extractor.

Also :func:`command`, which runs the command line.
"""

import contextlib
import io
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmbench.cli.main import main
from fmbench.config.methods import Method, Part
from fmbench.data.sources import RawData
from fmbench.flow.paths import AffinePath, Coefficients
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.multistep import Multistep
from fmbench.flow.solvers.registry import StepSolver
from fmbench.metrics.extractors import Extractor


def half_ab2(x: Any, m: Any, at: Any, to: Any) -> Any:
    """Adams-Bashforth of order 2 with half of its extrapolation."""
    return x + (to.t - at[0].t) * (m[0] if len(m) == 1 else (5 * m[0] - m[1]) / 4)


SOLVER = Multistep(VELOCITY, "t", (half_ab2, half_ab2))
WASTEFUL = StepSolver(lambda field, x, grid, path: x + field(grid[0], x) + 0 * field(grid[0], x))
SHAPELESS = StepSolver(lambda field, x, grid, path: field(grid[0], x).sum())
NOT_A_SOLVER = half_ab2
MY_METHOD = Method("whatever", Part("cosine_vp"), Part("v"), weighting=Part("velocity"), t_min=0.25)


def tall_images(train: int = 60, test: int = 20, height: int = 6, width: int = 4, labels: bool = True) -> RawData:
    """Images with three colours and five levels, not square: class 0 is bright at the top, class 1 at the left."""
    g = np.random.default_rng(7)
    classes = np.arange(train + test) % 2
    shade = np.stack([np.linspace(4, 0, height)[:, None].repeat(width, 1), np.linspace(4, 0, width)[None].repeat(height, 0)])
    noise = g.uniform(-1, 1, (train + test, 3, height, width))
    images = np.rint(shade[classes][:, None] + noise).clip(0, 4).astype(np.uint8)
    return RawData(
        train=images[:train],
        test=images[train:],
        description="shaded images",
        levels=5,
        train_labels=classes[:train] if labels else None,
        test_labels=classes[train:] if labels else None,
    )


def two_points(n: int = 64, support: str | None = None) -> RawData:
    """Half of the points at (-1, 1/2), half at (1, -1/2)."""
    points = np.array([[-1.0, 0.5], [1.0, -0.5]], np.float32)
    return RawData(train=points[np.arange(n) % 2], test=points[np.arange(n) % 2], description="two points", support=support)


def not_a_data_set() -> dict[str, int]:
    return {"train": 3}


class Slow(AffinePath):
    """a = t, s = (1 - t)^power: affine, with a parameter."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def coefficients(self, t: Tensor) -> Coefficients:
        t = t.double()
        return Coefficients(t, (1 - t) ** self.power, torch.ones_like(t), -self.power * (1 - t) ** (self.power - 1))


class Lines(nn.Module):
    """A linear map of (x, t), for samples of any shape."""

    def __init__(self, shape: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        size = int(np.prod(shape))
        self.map = nn.Linear(size + 1, size, bias=bias)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.map(torch.cat([x.flatten(1), t[:, None]], 1)).reshape(x.shape)
        return out


def narrow(shape: tuple[int, ...], **parameters: Any) -> nn.Module:
    """A network whose output has the wrong shape."""
    return nn.Sequential(Lines(shape, **parameters), nn.Linear(shape[-1], shape[-1] + 3))


class Mean(nn.Module):
    """A network that returns one number per sample, which would broadcast against any target."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.weight * x.mean(tuple(range(1, x.ndim)), keepdim=True)


class Scale(nn.Module):
    """The cheapest network that can be trained: one number times x."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.weight * x


@dataclass(frozen=True)
class Said:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def command(*arguments: Any) -> Said:
    """Run the command line in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["fmbench", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return Said(code, out.getvalue(), err.getvalue())


seen: list[int] = []
"""The number of images in each call of :func:`colours`."""


def any_channels(device: torch.device) -> Extractor:
    """An extractor that takes images with the data set's own channels: the mean of the first and of the last."""
    return Extractor("ends", 2, lambda images: images.to(device).double().mean((2, 3))[:, [0, -1]], native=True)


def colours(device: torch.device, scale: float = 1.0) -> Extractor:
    """An extractor without weights: mean and standard deviation of each colour, from 0 to 255."""

    def features(images: Tensor) -> Tensor:
        seen.append(len(images))
        x = images.to(device).double().flatten(2) * scale
        return torch.cat([x.mean(2), x.std(2)], 1)

    return Extractor(f"colours(6 features, {scale:g})", 6, features)
