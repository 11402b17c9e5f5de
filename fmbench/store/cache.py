"""A cache of results by key. It is not one of Snakemake's declared outputs, which Snakemake deletes before every rerun.

A key holds everything that a result depends on (model, code, settings of the cell). An entry is therefore never wrong; at worst
nothing uses it any more.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.config.hashing import settings_hash
from fmbench.store.files import atomic, write_json


class Cache:
    """JSON values and arrays in one folder, in files named by the hash of their key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Any) -> Any | None:
        """The value stored under ``key``; None if there is none or it cannot be read."""
        try:
            return json.loads((self.folder / f"{settings_hash(key)}.json").read_text(encoding="utf-8"))["value"]
        except (OSError, ValueError, KeyError):
            return None

    def put(self, key: Any, value: Any) -> None:
        """Store a JSON value under ``key``."""
        write_json(self.folder / f"{settings_hash(key)}.json", {"key": key, "value": value})

    def get_array(self, key: Any) -> NDArray | None:
        """The array stored under ``key``; None if there is none or it cannot be read."""
        try:
            array: NDArray = np.load(self.folder / f"{settings_hash(key)}.npy", allow_pickle=False)
            return array
        except (OSError, ValueError, EOFError):
            return None

    def put_array(self, key: Any, array: NDArray) -> None:
        """Store an array under ``key``."""
        with atomic(self.folder / f"{settings_hash(key)}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
