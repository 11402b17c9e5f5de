"""Point sets in the plane with a known density and entropy. No model's NLL can be below the entropy in expectation.

All have standard deviations of order 1. The network sees them doubled, on about [-4, 4]^2. The name of the set and of the split
seeds the draw.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fmbench.data.raw import RawData, Samples
from fmbench.system.rng import named_seed

SCALE = 2.0
Noise = Annotated[float, Field(ge=0.01, le=1)]
"""Below the range the nodes of a curve are too far apart; above it no curve is left."""


def checkerboard(train: Samples = 200_000, test: Samples = 4_000) -> RawData:
    """Uniform on the eight filled unit squares of a 4 x 4 board on [-2, 2]^2; the network sees it on [-4, 4]^2."""

    def draw(n: int, name: str) -> NDArray:
        g = np.random.default_rng(named_seed(0, f"checkerboard/{name}"))
        column, row = g.integers(0, 4, n), g.integers(0, 2, n)
        corner = np.stack([column - 2, 2 * row + column % 2 - 2], 1)
        return (corner + g.random((n, 2))).astype(np.float32)

    return RawData(
        train=draw(train, "train"),
        test=draw(test, "test"),
        description="4 x 4 checkerboard on [-2, 2]^2, uniform on squares whose lower left corner has an even sum",
        scale=SCALE,
        support="checkerboard",
        entropy=math.log(8),
    )


@dataclass(frozen=True)
class NoisyCurve:
    """A density p(x) = mean over k of N(x; centre_k, std^2): Gaussians, or a curve with Gaussian noise, its parameter on a grid.

    A curve's own density is an integral over its parameter, of which this is the midpoint rule. With neighbours less than
    half a standard deviation apart its error is far below any that we measure.

    Attributes:
        centres: shape (K, 2), all equally likely.
        std: of the noise, in each coordinate.
    """

    centres: NDArray
    std: float

    def log_density(self, x: NDArray) -> NDArray:
        """Log density in nats at points (n, 2); returns (n,)."""
        out = np.empty(len(x))
        centres = self.centres / self.std
        for i in range(0, len(x), 500):  # in blocks, since points x centres can be large
            z = x[i : i + 500].astype(np.float64) / self.std
            exponent = z @ centres.T - (centres**2).sum(1) / 2
            largest = exponent.max(1, keepdims=True)
            np.exp(exponent - largest, out=exponent)
            out[i : i + 500] = np.log(exponent.mean(1)) + largest[:, 0] - (z**2).sum(1) / 2
        return out - math.log(2 * math.pi * self.std**2)

    def entropy(self) -> float:
        """The entropy in nats, by the trapezoidal rule: spectrally exact for a smooth density that vanishes at the grid's edge.

        On a grid, an isotropic Gaussian is a product of one of x and one of y, so the density is a matrix product.
        """
        reach, step = 9 * self.std, self.std / 4
        x, y = (np.arange(c.min() - reach, c.max() + reach, step) for c in self.centres.T)
        of_x, of_y = (np.exp(-(((g[:, None] - c) / self.std) ** 2) / 2) for g, c in zip((x, y), self.centres.T, strict=True))
        density = of_x @ of_y.T / (len(self.centres) * 2 * math.pi * self.std**2)
        return _entropy(density, step)


def _entropy(density: NDArray, step: float) -> float:
    p = density[density > 0]
    return float(-(p * np.log(p)).sum() * step**2)


def _eight_centres(u: NDArray) -> NDArray:
    return 1.5 * _circle(np.floor(8 * u) / 8)


def _moons(u: NDArray) -> NDArray:
    """Two half circles, the second turned round and shifted into the first."""
    second = u >= 0.5
    x, y = _circle((2 * u) % 1 / 2).T
    return 1.4 * np.stack([np.where(second, 1 - x, x) - 0.5, np.where(second, 0.5 - y, y) - 0.25], 1)


def _two_spirals(u: NDArray) -> NDArray:
    """Two arms of one and a half turns; the square root makes the points about even along an arm."""
    t = np.sqrt((2 * u) % 1)
    return np.where(u >= 0.5, -2.0, 2.0)[:, None] * t[:, None] * _circle(1.5 * t)


def _four_rings(u: NDArray) -> NDArray:
    """Circles of radius 1/2, 1, 3/2 and 2, as many points on each."""
    return (np.floor(4 * u) + 1)[:, None] / 2 * _circle((4 * u) % 1)


def _circle(turns: NDArray) -> NDArray:
    angle = 2 * np.pi * turns
    return np.stack([np.cos(angle), np.sin(angle)], 1)


CURVES: dict[str, tuple[Callable[[NDArray], NDArray], int]] = {
    "eight_gaussians": (_eight_centres, 8),
    "two_moons": (_moons, 2048),
    "spirals": (_two_spirals, 4096),
    "rings": (_four_rings, 4096),
}
"""Curves over [0, 1), and the number of nodes for their density."""


def noisy_curve(name: str, noise: float) -> NoisyCurve:
    """The density of one of :data:`CURVES`, for a :data:`Noise`."""
    curve, nodes = CURVES[name]
    return NoisyCurve(curve((np.arange(nodes) + 0.5) / nodes), noise)


def _noisy(name: str, description: str, train: int, test: int, noise: float) -> RawData:
    density, curve = noisy_curve(name, noise), CURVES[name][0]

    def draw(n: int, split: str) -> NDArray:
        g = np.random.default_rng(named_seed(0, f"{name}/{split}"))
        return (curve(g.random(n)) + noise * g.standard_normal((n, 2))).astype(np.float32)

    return RawData(
        train=draw(train, "train"),
        test=draw(test, "test"),
        description=f"{description}, Gaussian noise of standard deviation {noise:g}",
        scale=SCALE,
        entropy=density.entropy(),
    )


def eight_gaussians(train: Samples = 200_000, test: Samples = 4_000, noise: Noise = 0.15) -> RawData:
    """Eight Gaussians of standard deviation ``noise``, evenly on a circle of radius 3/2."""
    return _noisy("eight_gaussians", "eight points on a circle of radius 3/2", train, test, noise)


def two_moons(train: Samples = 200_000, test: Samples = 4_000, noise: Noise = 0.1) -> RawData:
    """Two interleaved half circles of radius 1.4, centred, with Gaussian noise."""
    return _noisy("two_moons", "two interleaved half circles of radius 1.4", train, test, noise)


def spirals(train: Samples = 200_000, test: Samples = 4_000, noise: Noise = 0.06) -> RawData:
    """Two spiral arms of one and a half turns out to radius 2, with Gaussian noise."""
    return _noisy("spirals", "two spiral arms of one and a half turns, of radius 2", train, test, noise)


def rings(train: Samples = 200_000, test: Samples = 4_000, noise: Noise = 0.06) -> RawData:
    """Four circles of radius 1/2 to 2, as many points on each, with Gaussian noise."""
    return _noisy("rings", "four circles of radius 1/2, 1, 3/2, 2", train, test, noise)


@dataclass(frozen=True)
class Pinwheel:
    """Gaussian blades, long along the radius, on spokes that turn with the radius.

    The common pinwheel turns a point by a function of its first coordinate, which has no density in closed form. Turning by
    a function of the radius keeps areas, so the density at x is that of the straight blades at x turned back, and the
    entropy is theirs.
    """

    blades: int = 5
    twist: float = 1.0
    radius: float = 1.4
    along: float = 0.35
    across: float = 0.1

    def turn(self, x: NDArray, direction: float = 1.0) -> NDArray:
        """Points (n, 2) turned by ``twist`` radians per unit of their radius."""
        cos, sin = _circle(direction * self.twist * np.hypot(*x.T) / (2 * np.pi)).T
        return np.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)

    def draw(self, n: int, split: str) -> NDArray:
        """n points, float64 (n, 2)."""
        g = np.random.default_rng(named_seed(0, f"pinwheel/{split}"))
        (cos, sin), z = _circle(g.integers(0, self.blades, n) / self.blades).T, g.standard_normal((n, 2))
        u, v = self.radius + self.along * z[:, 0], self.across * z[:, 1]
        return self.turn(np.stack([cos * u - sin * v, sin * u + cos * v], 1))

    def log_density(self, x: NDArray) -> NDArray:
        """Log density in nats at points (n, 2); returns (n,)."""
        return self._straight(self.turn(x.astype(np.float64), -1.0))

    def _straight(self, x: NDArray) -> NDArray:
        terms = []
        for cos, sin in _circle(np.arange(self.blades) / self.blades):
            u, v = cos * x[:, 0] + sin * x[:, 1], cos * x[:, 1] - sin * x[:, 0]
            terms.append(-(((u - self.radius) / self.along) ** 2 + (v / self.across) ** 2) / 2)
        out: NDArray = np.logaddexp.reduce(terms)
        return out - math.log(self.blades * 2 * math.pi * self.along * self.across)

    def entropy(self) -> float:
        """The entropy in nats, by the trapezoidal rule over the straight blades."""
        reach, step = self.radius + 9 * self.along, self.across / 4
        grid = np.arange(-reach, reach, step)
        return _entropy(np.exp(self._straight(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2))), step)


def pinwheel(
    train: Samples = 200_000, test: Samples = 4_000, blades: Annotated[int, Field(ge=1, le=32)] = 5, twist: float = 1.0
) -> RawData:
    """Gaussian blades on turning spokes; see :class:`Pinwheel`."""
    density = Pinwheel(blades, twist)
    return RawData(
        train=density.draw(train, "train").astype(np.float32),
        test=density.draw(test, "test").astype(np.float32),
        description=f"pinwheel of {blades} Gaussian blades, turned by {twist:g} radians per unit of radius",
        scale=SCALE,
        entropy=density.entropy(),
    )
