"""Arrays that are written to disk in pieces, whole or not at all."""

import os

import numpy as np
import pytest

from fmbench.store.files import atomic_array, open_array
from fmbench.store.seal import UNSEALED


def test_an_array_filled_in_pieces_is_the_file_that_numpy_saves(tmp_path):
    values = np.random.default_rng(0).standard_normal((7, 2, 3), dtype=np.float32)
    with atomic_array(tmp_path / "a.npy", values.shape) as array:
        assert not (tmp_path / "a.npy").exists()
        for i in range(0, 7, 3):
            array[i : i + 3] = values[i : i + 3]
    np.save(tmp_path / "b.npy", values)
    assert (tmp_path / "a.npy").read_bytes()[: -len(UNSEALED)] == (tmp_path / "b.npy").read_bytes()
    assert (open_array(tmp_path / "a.npy") == values).all()
    assert (array == values).all()  # and can still be read


def test_an_unfinished_array_leaves_the_old_file(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"old")

    def fail() -> None:
        with atomic_array(tmp_path / "a.npy", (4,)) as array:
            array[:] = 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"] and (tmp_path / "a.npy").read_bytes() == b"old"


def test_a_disk_without_room_for_an_array_is_found_before_the_first_piece(tmp_path, monkeypatch):
    def full(handle: int, start: int, size: int) -> None:
        assert (start, size) == (0, 128 + 4_000_000)  # numpy's header and the numbers
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"), atomic_array(tmp_path / "a.npy", (1_000_000,)):
        pytest.fail("there is no room")
    assert list(tmp_path.iterdir()) == []
