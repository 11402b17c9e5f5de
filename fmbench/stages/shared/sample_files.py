"""Samples in files: those that the stage ``sample`` wrote, and previews of samples for figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.stages.shared.job import Job
from fmbench.store.documents import MAKE_AGAIN, MISSING
from fmbench.store.files import open_array
from fmbench.store.previews import previews
from fmbench.store.records import read_rows


def load_samples(folder: Path, dataset: DataSet) -> NDArray:
    """The samples (n, *) in model space, memory-mapped; NaN where the solve of a sample failed.

    Raises:
        DataError: the file is missing or damaged, or holds samples of another shape.
    """
    path = folder / "samples.npy"
    try:
        samples = open_array(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {MISSING}") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be used: {error}; {MAKE_AGAIN}") from None
    if samples.shape[1:] != dataset.shape:
        raise DataError(
            f"{path} holds samples of shape {samples.shape[1:]}, but the data set has {dataset.shape}; rerun the stage sample"
        )
    return samples


def solve_of(folder: Path) -> dict[str, Any]:
    """The row of the NFE of the samples that the stage ``sample`` wrote, which says how they were made."""
    (row,) = (row for row in read_rows([folder / "rows.parquet"]).to_pylist() if row["metric"] == "nfe")
    return dict(row)


def preview(job: Job, dataset: DataSet, samples: NDArray) -> pa.Table:
    """The finite ones of samples (n, *) in model space, as a table of previews in data space."""
    kept = np.flatnonzero(np.isfinite(samples).all(tuple(range(1, samples.ndim))))
    spec, values = job.spec, dataset.to_data(samples[kept])
    return previews(dataset.manifest["dataset"], spec["method"], spec["seed"], values, kept)
