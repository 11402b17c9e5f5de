"""Temporary folders: their names, the umask, and what killed writers leave."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import killed_writer

from fmbench.errors import DataError
from fmbench.store import temporary
from fmbench.store.cache import Cache
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.store.files import atomic, atomic_array, atomic_folder, check_new_or_empty, write_json
from fmbench.store.parquet import table, write_table
from fmbench.store.records import SCHEMA
from fmbench.store.temporary import PREFIX, abandoned, is_temporary, remove_abandoned, temporary_folder
from fmbench.store.weights import write_tensors


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mode & 0o777 for p in folder.rglob("*")}


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o002], indirect=True)
def test_the_umask_decides_who_may_read(tmp_path, umask):
    """The library safetensors makes files that only their owner may read."""
    out = tmp_path / "out"
    write_json(out / "a.json", {})
    write_table(out / "a.parquet", table([], SCHEMA))
    write_tensors(out / "a.safetensors", {"w": torch.ones(3)}, {})
    with atomic_array(out / "a.npy", (3,)) as array:
        array[:] = 1
    with atomic_folder(out / "folder") as folder:
        (folder / "a").write_text("")
    Cache(out / "cache").put_array("key", np.ones(3))
    with CheckpointFolder(out / "checkpoints", {"spec": {}}) as checkpoints:
        checkpoints.save({"key": ""})
    found = modes(tmp_path)
    assert len(found) == 13
    folders = {name for name in found if (tmp_path / name).is_dir()}
    assert folders == {"out", "out/folder", "out/cache", "out/checkpoints"}
    assert found == {name: (0o777 if name in folders else 0o666) & ~umask for name in found}


def test_a_writer_finds_the_name_of_its_target_in_a_folder_that_nobody_else_writes(tmp_path):
    with atomic(tmp_path / "a.npy") as one, atomic(tmp_path / "a.npy") as other:
        assert one.name == other.name == "a.npy" and one.parent != other.parent and one.parent.parent == tmp_path
        assert one.parent.name.startswith(f"{PREFIX}a.npy.") and is_temporary(one.parent)
        one.write_bytes(b"1")
        other.write_bytes(b"2")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"] and (tmp_path / "a.npy").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["x" * 255, "é" * 125 + ".json", "a\nb.npy"])
def test_any_name_that_the_disk_takes(tmp_path, name):
    left = killed_writer(tmp_path / name) if "." in name else None
    with atomic(tmp_path / name) as path:
        path.write_bytes(b"whole")
    assert (tmp_path / name).read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1
    assert left is None or not left.exists()


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    left, of_another = killed_writer(tmp_path / "a.npy"), killed_writer(tmp_path / "b.npy")
    assert abandoned(left) and abandoned(of_another)
    with atomic(tmp_path / "a.npy") as path:
        assert not left.exists() and of_another.exists()
        path.write_bytes(b"whole")
    remove_abandoned(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_a_folder_with_the_rest_of_a_killed_writer_counts_as_empty_and_is_filled(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with atomic_folder(out) as folder:
        (folder / "a").write_text("")
        with pytest.raises(DataError, match="is not an empty folder"):  # somebody is filling it
            check_new_or_empty(out)
    (out / "a").unlink()
    left = killed_writer(out / "out.x")
    left.rename(out / left.name.replace("out.x", "out"))
    check_new_or_empty(out)
    with atomic_folder(out) as folder:
        (folder / "b").write_text("")
    assert [p.name for p in out.iterdir()] == ["b"]


def test_what_a_live_writer_has_is_never_taken(tmp_path):
    with atomic(tmp_path / "a.npy") as path:
        path.write_bytes(b"first")
        assert not abandoned(path.parent)
        remove_abandoned(tmp_path)
        with atomic(tmp_path / "a.npy") as second:
            second.write_bytes(b"second")
        assert path.exists()
    assert (tmp_path / "a.npy").read_bytes() == b"first"


def test_names_that_fmbench_does_not_give_are_never_taken(tmp_path):
    names = [".htaccess.disabled", ".a.npy.abcdefgh.npy", PREFIX, f"{PREFIX}a.npy", f"{PREFIX}a.0123456789ABCDEF", "x" + PREFIX]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / f"{PREFIX}a.0123456789abcdef").write_text("a file")
    (tmp_path / f"{PREFIX}b.0123456789abcdef").symlink_to(tmp_path / names[0])
    before = sorted(tmp_path.iterdir())
    assert not any(map(is_temporary, before)) and not any(map(abandoned, before))
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("moment", ["before the lock's file", "before the lock", "in the middle of a look"])
def test_a_folder_taken_away_before_its_lock_is_held_is_made_again(tmp_path, monkeypatch, moment):
    """Another process may look at a folder after it is made and before it is locked."""
    taken: list[Path] = []
    flock, open_, looking = fcntl.flock, os.open, []

    def take(folder: Path) -> None:
        if not taken:
            taken.append(folder)
            remove_abandoned(tmp_path)

    def opened(path, *rest, **more):
        if moment == "before the lock's file" and os.fspath(path).endswith(temporary.LOCK):
            take(Path(path).parent)
        return open_(path, *rest, **more)

    def locked(handle, how):
        (folder,) = tmp_path.iterdir()
        if moment == "before the lock" and not taken:
            monkeypatch.setattr(fcntl, "flock", flock)
            take(folder)
        if moment == "in the middle of a look" and not taken:
            taken.append(folder)
            looking.append(open_(folder / temporary.LOCK, os.O_RDWR))
            flock(looking[0], fcntl.LOCK_EX)
        return flock(handle, how)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(fcntl, "flock", locked)
    with temporary_folder(tmp_path, "a") as folder:
        assert folder.is_dir() and taken and folder != taken[0] and not abandoned(folder)
    assert list(tmp_path.iterdir()) == []


def test_without_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    left = killed_writer(tmp_path / "a.npy")
    monkeypatch.setattr(fcntl, "flock", refused)
    assert not abandoned(left)
    with atomic(tmp_path / "a.npy") as path:
        path.write_bytes(b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {"a.npy", left.name}
