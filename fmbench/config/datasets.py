"""The data sources a config may use, and the shapes and numbers of samples that are known before data are prepared."""

from collections.abc import Mapping
from typing import Any

POINT_SETS = ("checkerboard", "eight_gaussians", "two_moons", "spirals", "pinwheel", "rings")
"""Sources of points in the plane."""
DATASETS = (
    *POINT_SETS,
    "digits",
    "fashion_mnist",
    "cifar10",
    "imagenet_downsampled",
    "imagenet",
    "folder",
    "array",
    "hf_parquet",
)
"""All sources."""
MAYBE_UNLABELLED = ("folder", "array", "hf_parquet")
"""Sources whose samples may have no labels, which only preparing them shows."""
DECODED = ("imagenet", "folder", "hf_parquet")
"""Sources that decode image files, which several processes speed up."""
DECODERS = 16
"""The processes that decode them."""
STREAMED = ("imagenet_downsampled", "array")
"""Sources that read arrays in pieces, so that no split is in memory."""


PAPERS = {
    "cifar10": ("cifar10", 32),
    "imagenet32": ("imagenet", 32),
    "imagenet64": ("imagenet", 64),
    "imagenet128": ("imagenet", 128),
    "imagenet64to256": ("imagenet", 256),
}
"""The paper's data sets by their names in the tables, each with the first letters of its source's name and its side in pixels."""


CLASSES = {"digits": 10, "fashion_mnist": 10, "cifar10": 10, "imagenet_downsampled": 1000, "imagenet": 1000}
"""The classes of sources that are known before their data are prepared."""


def not_the_papers(dataset: str, source: str, parameters: Mapping[str, Any]) -> str:
    """How a data set differs from the data set of the paper with its name, as in "not digits".

    Empty if no difference is known, or if the paper has no data set of this name.
    """
    if dataset not in PAPERS:
        return ""
    start, side = PAPERS[dataset]
    if "." not in source and source not in MAYBE_UNLABELLED and not source.startswith(start):
        return f"not {source}"
    shape = sample_shape(source, parameters)
    return "" if shape in (None, (3, side, side)) else f"3 x {side} x {side}, not {' x '.join(map(str, shape or ()))}"


def sample_shape(source: str, parameters: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of one sample; None if only preparing the data shows it."""
    if source in POINT_SETS:
        return (2,)
    if source == "digits":
        return (1, 8, 8)
    channels, side = {
        "fashion_mnist": (1, parameters.get("pad", 28)),
        "cifar10": (3, 32),
        "imagenet_downsampled": (3, parameters.get("size", 32)),
        "imagenet": (3, parameters.get("size", 64)),
        "folder": (parameters.get("channels", 3), parameters.get("size")),
        "hf_parquet": (parameters.get("channels", 3), parameters.get("size")),
    }.get(source, (0, None))
    known = isinstance(channels, int) and isinstance(side, int)  # the source reports any other value
    return (channels, side, side) if known and channels > 0 and side > 0 else None


def split_sizes(source: str, parameters: Mapping[str, Any]) -> tuple[int, int] | None:
    """The numbers of training and test samples; None if only preparing the data shows them."""
    if parameters.get("smaller") == "drop":
        return None
    if source in POINT_SETS:
        sizes = parameters.get("train", 200_000), parameters.get("test", 4_000)
    elif source == "digits":
        test = parameters.get("test", 360)
        sizes = (1797 - test if isinstance(test, int) else None), test
    else:
        sizes = {
            "fashion_mnist": (60_000, 10_000),
            "cifar10": (50_000, 10_000),
            "imagenet_downsampled": (1_281_167, 50_000),
            "imagenet": (1_281_167, 50_000),
        }.get(source, (None, None))
    train, test = sizes
    known = isinstance(train, int) and isinstance(test, int)  # the source reports any other value
    return (train, test) if known and train > 0 and test > 0 else None
