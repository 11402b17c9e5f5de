"""The sources of data by name. A source is a function of its parameters that returns :class:`~fmbench.data.raw.RawData`."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, validate_call

from fmbench.config.messages import in_words
from fmbench.config.plugins import resolve
from fmbench.data.arrays import array, sample_shape
from fmbench.data.cifar import cifar10
from fmbench.data.folders import folder
from fmbench.data.idx import fashion_mnist
from fmbench.data.imagenet import imagenet, imagenet_downsampled
from fmbench.data.parquet import hf_parquet
from fmbench.data.points import checkerboard, eight_gaussians, pinwheel, rings, spirals, two_moons
from fmbench.data.raw import RawData
from fmbench.system.rng import named_seed


def digits(test: Annotated[int, Field(ge=2, le=1795)] = 360) -> RawData:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels and 17 levels; a fixed random split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
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


SOURCES: dict[str, Callable[..., RawData]] = {
    "checkerboard": checkerboard,
    "eight_gaussians": eight_gaussians,
    "two_moons": two_moons,
    "spirals": spirals,
    "pinwheel": pinwheel,
    "rings": rings,
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "imagenet_downsampled": imagenet_downsampled,
    "imagenet": imagenet,
    "folder": folder,
    "array": array,
    "hf_parquet": hf_parquet,
}


def bound(source: str, parameters: dict[str, Any]) -> Callable[[], RawData]:
    """The function that makes the data of ``source``, with its parameters checked as far as that needs no data.

    Raises:
        ValueError: the source is unknown, or does not take one of the parameters.
    """
    factory = resolve(SOURCES, "data set", source)
    if not callable(factory):
        raise ValueError(f"data source {source!r} is a {type(factory).__name__}, not a function that returns a RawData")
    signature = inspect.signature(factory)
    try:
        # Bind first, so that a TypeError from inside a source is not blamed on the parameters.
        signature.bind(**parameters)
    except TypeError as error:
        raise ValueError(
            f"data source {source!r} does not take the parameters {parameters}: {error}; "
            f"it takes {', '.join(signature.parameters) or 'none'}"
        ) from None

    @functools.wraps(factory)
    def later(**values: Any) -> Callable[[], RawData]:
        return functools.partial(factory, **values)

    if source in SOURCES:  # the annotations of these say what they take
        later = validate_call(config=ConfigDict(strict=True))(later)
    try:
        return later(**parameters)
    except ValidationError as error:
        wrong = dict.fromkeys(f"{e['loc'][0]}: {in_words(e)}" for e in error.errors())
        raise ValueError(f"data source {source!r}: {'; '.join(wrong)}") from None


def shape_in_file(source: str, parameters: dict[str, Any]) -> tuple[int, ...] | None:
    """The shape of one sample where a glance at the source's file shows it; None if it does not, or if the file is missing."""
    return sample_shape(**parameters) if source == "array" else None


def make(source: str, parameters: dict[str, Any]) -> RawData:
    """The data of ``source``.

    Raises:
        ValueError: the source is unknown, or does not take one of the parameters.
        DataError: its files are missing or damaged.
    """
    raw = bound(source, parameters)()
    if not isinstance(raw, RawData):
        raise ValueError(f"data source {source!r} must return a RawData, not a {type(raw).__name__}")
    return raw
