"""What the figures of theory share: they follow from the definitions alone, and the stage ``theory`` writes their data."""

from pathlib import Path

import pandas as pd

from fmbench.errors import DataError
from fmbench.store.tables import read_member

PATHS = {"ot": "OT path", "vp": "VP diffusion path", "cosine_vp": "cosine VP path", "ve": "VE diffusion path"}
"""The names of probability paths in print."""


def theory_frame(results: Path, name: str, may_be_empty: bool = False) -> pd.DataFrame:
    """Return the table ``theory/<name>.parquet`` of a results folder.

    Raises:
        DataError: it is missing, or it has no rows and ``may_be_empty`` is False.
    """
    frame = read_member(results, f"theory/{name}.parquet").to_pandas()
    if frame.empty and not may_be_empty:
        raise DataError(f"{results / 'theory' / name}.parquet has no rows; make it again with `fmbench theory`")
    return frame
