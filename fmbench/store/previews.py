"""Samples that are kept for figures, and the number of evaluations of each sample: the schemas of these files."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fmbench.errors import DataError
from fmbench.store.documents import MAKE_AGAIN
from fmbench.store.parquet import column, read_table, table

PREVIEW_POINTS, PREVIEW_IMAGES = 4000, 64
"""Samples of each model in ``previews.parquet``."""
PREVIEW_VALUES = 2**22
"""The most values of the images of each model there: of large images there are fewer."""
FEW_STEP_IMAGES, TRAJECTORY_IMAGES = 16, 32
"""Images of each model in ``few_step_previews.parquet`` and ``trajectory.parquet``."""
LARGEST_RANK, LARGEST_SIZE = 4, 1 << 15
"""The largest number of dimensions of a sample, and of values in each."""
PREVIEW = pa.schema(
    [
        column("dataset", pa.string()),
        column("method", pa.string()),
        ("seed", pa.int64()),
        column("index", pa.int64()),
        column("values", pa.list_(pa.float32())),
        column("shape", pa.list_(pa.int64())),
    ]
)
"""A sample in data space: ``values`` is the flat sample. Method ``data`` (seed null) is the test split. In super-resolution,
``low_resolution`` and ``bicubic`` (seed null) are its low-resolution images, and these interpolated."""
FEW_STEP_PREVIEWS = pa.schema([*PREVIEW, column("solver", pa.string()), column("nfe", pa.int64())])
"""A sample made with few evaluations; a sample of the adaptive solve has solver ``dopri5`` and NFE 0."""
TRAJECTORY = pa.schema([*PREVIEW, column("t", pa.float64())])
"""A state on the way from noise (t = 0) to data (t = 1)."""
NFE = pa.schema(
    [
        column("dataset", pa.string()),
        column("method", pa.string()),
        column("seed", pa.int64()),
        column("index", pa.int64()),
        ("nfe", pa.int64()),
    ]
)
"""The NFE of the adaptive solve of one sample; null if the solve failed."""


def preview_count(shape: tuple[int, ...]) -> int:
    """The number of samples of ``shape`` of each model in ``previews.parquet``."""
    return max(1, min(PREVIEW_IMAGES, PREVIEW_VALUES // math.prod(shape))) if len(shape) == 3 else PREVIEW_POINTS


def previews(dataset: str, method: str, seed: int | None, samples: NDArray, indices: Iterable[int]) -> pa.Table:
    """Samples of shape (n, *) as a table of schema :data:`PREVIEW`."""
    shape = list(samples.shape[1:])
    return table(
        [
            {"dataset": dataset, "method": method, "seed": seed, "index": int(i), "values": v, "shape": shape}
            for i, v in zip(indices, samples.reshape(len(samples), math.prod(shape)).tolist(), strict=True)
        ],
        PREVIEW,
    )


def read_previews(path: Path, schema: pa.Schema = PREVIEW) -> pa.Table:
    """Read a file of samples.

    Args:
        schema: :data:`PREVIEW`, :data:`FEW_STEP_PREVIEWS` or :data:`TRAJECTORY`.

    Raises:
        DataError: the file is missing, is damaged, has other columns, or a sample's values do not fit its shape.
    """
    found = read_table(path, schema)
    rank = pc.list_value_length(found["shape"]).to_numpy()
    sizes = pc.list_flatten(found["shape"]).to_numpy()
    fits = bool(((rank >= 1) & (rank <= LARGEST_RANK)).all() and ((sizes >= 1) & (sizes <= LARGEST_SIZE)).all())
    if fits and len(found):
        wanted = np.multiply.reduceat(sizes, np.cumsum(rank) - rank)
        fits = bool((wanted == pc.list_value_length(found["values"]).to_numpy()).all())
    if not fits:
        raise DataError(
            f"{path} is not a file of this version of fmbench (the values of a sample do not fit its shape); {MAKE_AGAIN}"
        )
    return found
