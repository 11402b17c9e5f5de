"""Where data sets come from. A source is a function of its parameters that returns :class:`~fmbench.data.raw.RawData`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.data.raw import RawData
from fmbench.plugins import resolve
from fmbench.rng import named_seed


def checkerboard(train: int = 200_000, test: int = 4_000) -> RawData:
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
        scale=2.0,
        support="checkerboard",
        entropy=math.log(8),
    )


def digits(test: int = 360) -> RawData:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels and 17 levels; a fixed random split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    if not 0 < test < len(images):
        raise ValueError(f"digits has {len(images)} images; test must be between 1 and {len(images) - 1}, not {test}")
    order = np.random.default_rng(named_seed(0, "digits/split")).permutation(len(images))
    first, rest = order[:test], order[test:]
    return RawData(
        train=images[rest],
        test=images[first],
        description=f"scikit-learn digits, {len(rest)} train and {test} test images by a fixed random split",
        levels=17,
        train_labels=bunch.target[rest].astype(np.int64),
        test_labels=bunch.target[first].astype(np.int64),
    )


SOURCES: dict[str, Callable[..., RawData]] = {"checkerboard": checkerboard, "digits": digits}


def make(source: str, parameters: dict[str, Any]) -> RawData:
    """The data of ``source``.

    Raises:
        ValueError: an unknown source or a parameter it does not take.
    """
    factory = resolve(SOURCES, "data set", source)
    try:
        raw = factory(**parameters)
    except TypeError as error:
        raise ValueError(f"data source {source!r} does not take the parameters {parameters}: {error}") from None
    if not isinstance(raw, RawData):
        raise ValueError(f"data source {source!r} must return a RawData, not a {type(raw).__name__}")
    return raw
