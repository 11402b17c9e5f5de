"""The samples that the stage ``sample`` wrote, as other stages read them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmbench.data.prepared import DataSet
from fmbench.errors import DataError


def load_samples(folder: Path, dataset: DataSet) -> NDArray:
    """The samples (n, *) in model space, memory-mapped; NaN where the solve of a sample failed.

    Raises:
        DataError: the file is missing or truncated, or holds samples of another shape.
    """
    path = folder / "samples.npy"
    try:
        samples: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and rerun the stage sample") from None
    if samples.shape[1:] != dataset.shape:
        raise DataError(
            f"{path} holds samples of shape {samples.shape[1:]}, but the data set has {dataset.shape}; rerun the stage sample"
        )
    return samples
