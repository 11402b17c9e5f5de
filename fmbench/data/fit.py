"""Warnings about data that plainly do not fit: what networks see should have a mean of about 0 and a spread of about 1."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from fmbench.data.conversion import listed, rounded
from fmbench.data.statistics import Columns, Histogram, Moments, of_counts

FAR_MEAN, SMALL_STD, LARGE_STD = 3.0, 0.1, 10.0
"""Points: the largest mean (in the network's units, or in standard deviations if these are larger), and the range of standard
deviations of a column, without a warning."""
EDGE_MEAN, FLAT_STD = 0.9, 0.1
"""Images: the largest mean and the smallest standard deviation in [-1, 1] without a warning."""
DIGITS = 0.02
"""The largest distance between two neighbouring numbers of the file's type, as a share of the standard deviation."""
MANY = 20
"""From this number of samples on, the test split is compared with the training split."""


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
    (train, step), (test, _) = splits["train"], splits["test"]
    if isinstance(train, Moments) and isinstance(test, Moments):
        found = [f"train: {text}" for text in _of_points(train.columns, step, shift, scale)]
        return found + [f"test: {text}" for text in _between(train.columns, test.columns)]
    assert isinstance(train, Histogram) and isinstance(test, Histogram) and levels is not None
    of_train, of_test = dict(_of_images(train, levels)), dict(_of_images(test, levels))
    of_train |= {"layout": text} if (text := _layout(shape)) else {}
    only = {kind: text for kind, text in of_test.items() if kind not in of_train}
    return [*(f"train: {text}" for text in of_train.values()), *(f"test: {text}" for text in only.values())]


def _of_points(columns: Columns, step: float, shift: NDArray[np.float64], scale: NDArray[np.float64]) -> Iterator[str]:
    mean, std = columns.mean * scale, columns.std * scale
    constant = columns.high == columns.low
    if constant.any():
        column = int(np.flatnonzero(constant)[0])
        yield (
            f"column {column} is {columns.mean[column] + _of(shift, column):.6g} in every point{_others(constant)}. "
            "Its density is infinite, and the NLL falls without end; leave it out"
        )
    far = ~constant & (np.abs(mean) > FAR_MEAN * np.maximum(std, 1))
    wide = ~constant & ((std < SMALL_STD) | (std > LARGE_STD))
    if (far | wide).any():
        column = int(np.where(far | wide, np.abs(mean) + np.maximum(std, 1 / np.maximum(std, 1e-300)), -1).argmax())
        far = far | (wide & (np.abs(mean) > FAR_MEAN * std))
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
            f"column {column} has lost digits in the file: near {centre:.6g} its type has steps of {step * abs(centre):.2g}, "
            f"and the standard deviation is {columns.std[column]:.3g}{_others(coarse)}. Save it as float64, and give a shift"
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


def _of_images(histogram: Histogram, levels: int) -> Iterator[tuple[str, str]]:
    """Warnings, each with its kind."""
    assert histogram.counts is not None
    of_channels, counts = histogram.counts[:, :levels], histogram.counts.sum(0)[:levels]
    present = np.flatnonzero(counts)
    largest, pixels = int(present[-1]), int(counts.sum())
    mean, std = of_counts(counts)
    m, s = (mean + 0.5) * 2 / levels - 1, std * 2 / levels
    if len(present) > 1 and 2 * largest < levels - 1:
        yield (
            "levels",
            f"the largest pixel is {largest}, of levels 0 to {levels - 1}. If the pixels have {largest + 1} levels, give levels: "
            f"{largest + 1} (the sources array and plug-ins take it), else the NLL is not that of the data",
        )
    elif len(present) > 1 and 8 * len(present) < levels and pixels >= 32 * levels:
        shown = ", ".join(map(str, present[:5])) + (" and so on" if len(present) > 5 else "")
        yield (
            "levels",
            f"only {len(present)} of {levels} levels occur ({shown}). If there are no others, number them from 0 and give "
            f"levels: {len(present)} (the sources array and plug-ins take it)",
        )
    elif abs(m) > EDGE_MEAN or s < FLAT_STD:
        yield (
            "spread",
            f"in [-1, 1], which networks see, the pixels have mean {m:.3g} and standard deviation {s:.3g}: nearly all are alike",
        )
    constant = [c for c, mine in enumerate(of_channels) if np.count_nonzero(mine) == 1]
    if constant:
        level = int(of_channels[constant[0]].argmax())
        yield "constant", f"channel {constant[0]} is {level} in every pixel of every image (channels count from 0); leave it out"
    if len(of_channels) > 1 and histogram.equal:
        yield "grey", f"all {len(of_channels)} channels of every image are equal, so the images are grey; take one (channels: 1)"


def _layout(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    if channels > 4 and min(height, width) <= 4:
        other = "HWC" if width <= 4 else "CHW"
        return f"{channels} channels of {height} x {width} pixels; are the axes in another order (layout: {other})?"
    return ""
