"""Sheets of samples as images of MLflow: a grid of images, or a histogram of points. A slider in MLflow chooses the step."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmbench.store.tables import read_member
from fmbench.store.tracking import Mirror

SAMPLES, FEW_STEP = "previews.parquet", "few_step_previews.parquet"
"""The files that sheets are made from."""
TAG = "fmbench.sheets"
"""The tag of a run with the hash of all its sheets."""
COLUMNS, PIXELS = 8, 256
"""Images in a row of a sheet, and the least width of a sheet in pixels."""
BINS = 64
"""Bins of a histogram of points in each direction."""


class Sheet(NamedTuple):
    """An image of MLflow."""

    key: str
    step: int | None  # None for the last iteration
    pixels: NDArray[np.uint8]  # (height, width) or (height, width, 3)


Owner = tuple[str, str, int]
"""Data set, method and seed."""


def read_sheets(results: Path, files: Sequence[str]) -> Iterator[tuple[Owner, Sheet]]:
    """The sheets of every model: its samples, and its few-step samples with the NFE as the step.

    Args:
        files: the names of the files to use.
    """
    if SAMPLES not in files:
        return
    previews = list(_groups(results, SAMPLES, ["dataset", "method", "seed"]))
    limits = {name: (values.min(), values.max()) for (name, method, _), values in previews if method == "data"}
    groups = [((*owner, "samples", 0), values) for owner, values in previews]
    if FEW_STEP in files:
        groups += _groups(results, FEW_STEP, ["dataset", "method", "seed", "solver", "nfe"])
    for (dataset, method, seed, solver, nfe), values in groups:
        if seed == seed and dataset in limits:  # the seed of real data is NaN
            last, key = solver == "samples", solver if solver == "samples" else re.sub(r"[^\w\-./ ]", "_", f"few_step/{solver}")
            if last or nfe > 0:
                yield (dataset, method, int(seed)), Sheet(key, None if last else int(nfe), sheet(values, *limits[dataset]))


def _groups(results: Path, name: str, keys: list[str]) -> Iterator[tuple[tuple, NDArray]]:
    """The samples of each group of rows of a file, as an array (n, *)."""
    for key, rows in read_member(results, name).to_pandas().groupby(keys, dropna=False, sort=True):
        yield key, np.stack(list(rows["values"])).reshape(len(rows), *rows["shape"].iloc[0])


def sheet(samples: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """A picture of samples (n, *): a grid of images (c, h, w), or the histogram of the first two coordinates of points (d,).

    Args:
        low, high: the range of the real data.
    """
    return _grid(samples, low, high) if samples.ndim == 4 else _histogram(samples.reshape(len(samples), -1), low, high)


def _grid(images: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    channels = images.shape[1] if images.shape[1] in (1, 3) else 1
    images = np.nan_to_num(images[: COLUMNS**2, :channels], nan=low, posinf=high, neginf=low)
    n, _, height, width = images.shape
    rows, scale = -(-n // COLUMNS), max(1, PIXELS // (COLUMNS * (width + 1)))
    grid = np.zeros((rows * COLUMNS, channels, height + 1, width + 1), np.uint8)
    grid[:n, :, :height, :width] = np.clip(np.rint(255 * (images - low) / max(high - low, 1e-12)), 0, 255)
    whole = grid.reshape(rows, COLUMNS, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    whole = whole.reshape(rows * (height + 1), COLUMNS * (width + 1), channels).repeat(scale, 0).repeat(scale, 1)
    return whole[:, :, 0] if channels == 1 else whole


def _histogram(points: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """Dark where points are. The second coordinate grows upwards."""
    x, y = points[:, 0], points[:, min(1, points.shape[1] - 1)]
    margin = 0.05 * (high - low)
    counts, _, _ = np.histogram2d(y, x, BINS, [(low - margin, high + margin)] * 2)
    shade = 255 - np.rint(255 * np.sqrt(counts / max(counts.max(), 1)))
    return shade[::-1].astype(np.uint8).repeat(PIXELS // BINS, 0).repeat(PIXELS // BINS, 1)


def add_sheets(store: Mirror, run: str, sheets: Sequence[Sheet], last: int, time: int) -> None:
    """Show sheets in a run, unless it shows them already.

    Args:
        last: the last iteration.
        time: of the images, in ms since 1970.
    """
    digest = hashlib.sha256(b"".join(s.key.encode() + repr(s.step).encode() + s.pixels.tobytes() for s in sheets)).hexdigest()
    found = store.client.get_run(run)
    if not sheets or (found.data.tags.get(TAG) == digest and store.client.list_artifacts(run, "images")):
        return
    for one in sheets:
        store.client.log_image(run, one.pixels, key=one.key, step=last if one.step is None else one.step, timestamp=time)
    store.log(run, tags={TAG: digest})
