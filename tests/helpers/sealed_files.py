"""Sealed files that tests change by hand and seal again, so that only the change is wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.store.documents import KEY, write_document
from fmbench.store.files import read_json
from fmbench.store.seal import append_seal


def content_of(path: Path) -> dict[str, Any]:
    """A document without its seal, which is not checked."""
    values: dict[str, Any] = read_json(path)
    return {name: value for name, value in values.items() if name != KEY}


def change_document(path: Path, **changes: Any) -> None:
    """Change keys of a document."""
    write_document(path, content_of(path) | changes)


def save_samples(path: Path, array: NDArray) -> None:
    """Write an array with a seal, as ``samples.npy``."""
    np.save(path, array)
    append_seal(path)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file; a negative one counts from the end."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
