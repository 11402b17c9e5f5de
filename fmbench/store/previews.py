"""Samples that are kept for figures, and the number of evaluations of each sample: the schemas of these files."""

import math
from collections.abc import Iterable

import pyarrow as pa
from numpy.typing import NDArray

from fmbench.store.parquet import table

PREVIEW_POINTS, PREVIEW_IMAGES = 4000, 64
"""Samples of each model in ``previews.parquet``."""
FEW_STEP_IMAGES, TRAJECTORY_IMAGES = 16, 32
"""Images of each model in ``few_step_previews.parquet`` and ``trajectory.parquet``."""
PREVIEW = pa.schema(
    [
        ("dataset", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("index", pa.int64()),
        ("values", pa.list_(pa.float32())),
        ("shape", pa.list_(pa.int64())),
    ]
)
"""A sample in data space: ``values`` is the flat sample. Method ``data`` (seed null) is the test split."""
FEW_STEP_PREVIEWS = PREVIEW.append(pa.field("solver", pa.string())).append(pa.field("nfe", pa.int64()))
"""A sample made with few evaluations; a sample of the adaptive solve has solver ``dopri5`` and NFE 0."""
TRAJECTORY = PREVIEW.append(pa.field("t", pa.float64()))
"""A state on the way from noise (t = 0) to data (t = 1)."""
NFE = pa.schema(
    [("dataset", pa.string()), ("method", pa.string()), ("seed", pa.int64()), ("index", pa.int64()), ("nfe", pa.int64())]
)
"""The NFE of the adaptive solve of one sample; null if the solve failed."""


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
