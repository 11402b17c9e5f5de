"""A cache of results by key. It is not one of Snakemake's declared outputs, which Snakemake deletes before every rerun.

A key holds everything that a result depends on (model, code, settings of the cell). An entry is therefore never wrong; at worst
nothing uses it any more. An entry that is damaged, or of another key, counts as none: it is computed again and replaced.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.config.hashing import canonical, settings_hash
from fmbench.errors import DataError
from fmbench.store.documents import read_document, write_document
from fmbench.store.files import atomic
from fmbench.store.seal import UNSEALED, append_seal, check_seal
from fmbench.store.shapes import Cell

AGAIN = "it is computed again"
"""What happens to an entry that cannot be used."""


def _silent(_: str) -> None:
    pass


class Cache:
    """JSON values and arrays in one folder, in files named by the hash of their key.

    Args:
        tell: called with a sentence about each entry that is there and cannot be used.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = _silent) -> None:
        self.folder, self._tell = folder, tell

    def _path(self, key: Any, suffix: str) -> Path:
        return self.folder / f"{settings_hash(key)}{suffix}"

    def get(self, key: Any) -> Any | None:
        """The value stored under ``key``; None if there is none or it cannot be used."""
        path = self._path(key, ".json")
        if not path.exists():
            return None
        try:
            found = read_document(path, Cell, AGAIN)
            if canonical(found["key"]) != canonical(key):
                raise DataError(f"{path} belongs to another key; {AGAIN}")
            return found["value"]
        except DataError as error:
            self._tell(str(error))
            return None

    def put(self, key: Any, value: Any) -> None:
        """Store a JSON value under ``key``."""
        write_document(self._path(key, ".json"), {"key": key, "value": value})

    def get_array(self, key: Any) -> NDArray | None:
        """The array stored under ``key``; None if there is none or it cannot be used."""
        path = self._path(key, ".npy")
        if not path.exists():
            return None
        try:
            check_seal(path)
            with open(path, "rb") as stream:
                array: NDArray = np.load(stream, allow_pickle=False)
                if stream.read()[: -len(UNSEALED)] != canonical(key).encode():
                    raise ValueError("it belongs to another key")
            return array
        except (OSError, ValueError, EOFError) as error:
            self._tell(f"{path} cannot be used: {error}; {AGAIN}")
            return None

    def put_array(self, key: Any, array: NDArray) -> None:
        """Store an array under ``key``. The key follows the last number in the file, and the seal follows the key."""
        with atomic(self._path(key, ".npy")) as temporary:
            with open(temporary, "wb") as stream:
                np.save(stream, array, allow_pickle=False)
                stream.write(canonical(key).encode())
            append_seal(temporary)
