"""Warnings about a data set that plainly does not fit: what networks see should have a mean of about 0 and a spread of about 1."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from fmbench.data.conversion import listed, rounded
from fmbench.data.statistics import Columns, Histogram, Moments, of_counts

FAR_MEAN, SMALL_STD, LARGE_STD = 3.0, 0.1, 10.0
"""Points: the largest mean and the range of standard deviations of a column, in the network's units, without a warning."""
EDGE_MEAN, FLAT_STD = 0.9, 0.1
"""Images: the largest mean and the smallest standard deviation in [-1, 1] without a warning."""
DIGITS = 0.02
"""The largest distance between two neighbouring numbers of the file's type, as a share of the standard deviation."""
MANY = 20
"""From this number of samples on, the test split is compared with the training split."""
Found = dict[str, list[str]]
"""Warnings, each with the splits that it is about."""


def warnings(
    splits: Mapping[str, tuple[Histogram | Moments, float]],
    shape: tuple[int, ...],
    levels: int | None,
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> list[str]:
    """What a user should know of a prepared data set, in whole sentences that begin with the split.

    Args:
        splits: by name, ``train`` first: the statistics of what is stored, and the relative distance of neighbouring numbers in
            the type that the source gave.
        shape: of one sample.
        levels: of images; None for points.
        shift, scale: of points, of shape () or (D,).
    """
    found: Found = {}
    for name, (statistics, step) in splits.items():
        if isinstance(statistics, Histogram):
            texts = _of_images(statistics, levels or 256)
        else:
            texts = _of_points(statistics.columns, step, shift, scale)
        for text in texts:
            found.setdefault(text, []).append(name)
    train, test = (splits[name][0] for name in ("train", "test"))
    if isinstance(train, Moments) and isinstance(test, Moments):
        found |= {text: ["test"] for text in _between(train.columns, test.columns)}
    elif text := _layout(shape):
        found[text] = list(splits)
    return [f"{' and '.join(names)}: {text}" for text, names in found.items()]


def _of_points(columns: Columns, step: float, shift: NDArray[np.float64], scale: NDArray[np.float64]) -> Iterator[str]:
    mean, std = columns.mean * scale, columns.std * scale
    constant = columns.high == columns.low
    if constant.any():
        column = int(np.flatnonzero(constant)[0])
        yield (
            f"column {column} is {columns.mean[column] + _of(shift, column):.6g} in every point{_others(constant)}. Its density is "
            "infinite, and the NLL falls without end; leave it out"
        )
    far, wide = ~constant & (np.abs(mean) > FAR_MEAN), ~constant & ((std < SMALL_STD) | (std > LARGE_STD))
    if (far | wide).any():
        distance = np.where(far | wide, np.maximum(np.abs(mean), np.abs(np.log(np.where(std > 0, std, 1)))), -1)
        column = int(distance.argmax())
        remedies = []
        if far.any():
            remedies.append(f"shift: {listed(rounded(columns.mean + shift, columns.std))}")
        if wide.any():
            remedies.append(f"scale: {listed(_fitting(columns.std, constant))}")
        yield (
            f"in the network's units, column {column} has mean {mean[column]:.3g} and standard deviation {std[column]:.3g}"
            f"{_others(far | wide)}, but a network expects about 0 and 1. Give {' and '.join(remedies)}"
        )
    coarse = ~constant & (step * np.abs(columns.mean + shift) > DIGITS * columns.std)
    if coarse.any():
        column = int(np.flatnonzero(coarse)[0])
        centre = float(columns.mean[column] + _of(shift, column))
        yield (
            f"column {column} has lost digits in the file: near {centre:.6g} its type has steps of {step * abs(centre):.2g}, and the "
            f"standard deviation is {columns.std[column]:.3g}{_others(coarse)}. Save it as float64, and give a shift"
        )


def _of(values: NDArray[np.float64], column: int) -> float:
    return float(values[column] if values.ndim else values)


def _others(which: NDArray[np.bool_]) -> str:
    count = int(which.sum())
    return f" ({count} of {len(which)} columns are so)" if count > 1 else ""


def _fitting(std: NDArray[np.float64], constant: NDArray[np.bool_]) -> list[float]:
    """Scales (D,) that make the spread about 1: one for all columns if their spreads are alike, so that distances keep."""
    alive = std[~constant]
    if alive.max() <= LARGE_STD * alive.min():
        return [_two_digits(1 / float(np.sqrt(np.square(alive).mean())))] * len(std)
    return [1.0 if still else _two_digits(1 / float(s)) for s, still in zip(std, constant, strict=True)]


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _between(train: Columns, test: Columns) -> Iterator[str]:
    if min(train.n, test.n) < MANY:
        return
    spread = np.where(train.std > 0, train.std, np.inf)
    differs = (np.abs(test.mean - train.mean) > 3 * spread) | (test.std > 5 * spread) | (5 * test.std < train.std)
    if differs.any():
        column = int(np.flatnonzero(differs)[0])
        yield (
            f"column {column} has mean {test.mean[column]:.3g} and standard deviation {test.std[column]:.3g}, and in train "
            f"{train.mean[column]:.3g} and {train.std[column]:.3g}{_others(differs)}. Are both splits in the same units?"
        )


def _of_images(histogram: Histogram, levels: int) -> Iterator[str]:
    assert histogram.counts is not None
    of_channels, counts = histogram.counts[:, :levels], histogram.counts.sum(0)[:levels]
    present = np.flatnonzero(counts)
    largest, pixels = int(present[-1]), int(counts.sum())
    mean, std = of_counts(counts)
    m, s = (mean + 0.5) * 2 / levels - 1, std * 2 / levels
    if len(present) > 1 and 2 * largest < levels - 1:
        yield (
            f"the largest pixel is {largest}, of levels 0 to {levels - 1}. If the pixels have {largest + 1} levels, give levels: "
            f"{largest + 1} (the sources array and plug-ins take it), else the NLL is not that of the data"
        )
    elif len(present) > 1 and 8 * len(present) < levels and pixels >= 32 * levels:
        shown = ", ".join(map(str, present[:5]))
        yield (
            f"only {len(present)} of {levels} levels occur ({shown}{' and so on' if len(present) > 5 else ''}). If there are no others, "
            f"number them from 0 and give levels: {len(present)} (the sources array and plug-ins take it)"
        )
    elif abs(m) > EDGE_MEAN or s < FLAT_STD:
        yield f"in [-1, 1], which networks see, the pixels have mean {m:.3g} and standard deviation {s:.3g}: nearly all are alike"
    constant = [c for c, mine in enumerate(of_channels) if np.count_nonzero(mine) == 1]
    if constant:
        level = int(of_channels[constant[0]].argmax())
        yield f"channel {constant[0]} is {level} in every pixel of every image (channels count from 0); leave it out"
    if len(of_channels) > 1 and histogram.equal:
        yield f"all {len(of_channels)} channels of every image are equal, so the images are grey; take one (channels: 1)"


def _layout(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    if channels > 4 and min(height, width) <= 4:
        other = "HWC" if width <= 4 else "CHW"
        return f"{channels} channels of {height} x {width} pixels; are the axes in another order (layout: {other})?"
    return ""
