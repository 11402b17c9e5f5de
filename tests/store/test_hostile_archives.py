"""Small archives and parquet files that would unpack to all memory, disk or time are refused in words, and leave nothing."""

from pathlib import Path
from random import Random

import pytest
from careful_child import open_all
from hostile_archives import ATTACKS, BOMBS, bomb, members_of, write_attack

pytestmark = pytest.mark.usefixtures("no_fsync")

WORDS = (
    "is not unpacked",
    "get it again",
    "get the results again",
    "more than fmbench reads",
    "some disks take for one name",
    "larger than the archive says",
    "fmbench reads JSON of at most",
    "which fmbench does not",
    "name different files",
    "so `fmbench export` did not make it",
)
SECONDS, MEGABYTES = 60, 200
"""What opening one file may take, on a loaded machine."""


@pytest.fixture(scope="module")
def said(archive, tmp_path_factory) -> dict[str, dict]:
    """What opening each attack and each parquet bomb said."""
    folder, paths = tmp_path_factory.mktemp("attacks"), {}
    for name in ATTACKS:
        (folder / name).mkdir()
        paths[name] = write_attack(name, archive, folder / name)
    for name, make in BOMBS.items():
        paths[name] = folder / f"{name}.parquet"
        paths[name].write_bytes(make(Random(name)))
    assert all(path.stat().st_size < 8 << 20 for path in paths.values())
    return dict(zip(paths, open_all(list(paths.values())), strict=True))


@pytest.mark.parametrize("name", [*ATTACKS, *BOMBS])
def test_it_is_refused_in_words_with_little_memory_and_time(said, name):
    found = said[name]
    assert found["said"], f"{name} was opened"
    assert name in BOMBS or (found["said"].startswith("DataError") and any(words in found["said"] for words in WORDS))
    assert "MemoryError" not in found["said"] and found["megabytes"] < MEGABYTES and found["seconds"] < SECONDS


def test_a_bomb_in_an_archive_with_the_right_hashes_is_refused(archive, tmp_path):
    """The archive itself is in order: its index fits. Reading its rows is refused."""
    path = tmp_path / "bomb.zip"
    path.write_bytes(bomb("60 million equal rows")(members_of(archive), Random(0)))
    assert path.stat().st_size < 1 << 20
    [found] = open_all([path])
    assert found["said"].startswith("DataError") and found["megabytes"] < MEGABYTES


def test_nothing_is_left_where_an_attack_was_unpacked(archive, tmp_path):
    from user_code import command

    for name in ("a tar member of 280 MB", "a hard link", "a size that is a lie", "a path in a header of pax"):
        said = command("unpack", write_attack(name, archive, tmp_path), "--out", tmp_path / "inner" / "out")
        assert said.code == 3 and "Traceback" not in said.err
        assert [p for p in tmp_path.rglob("*") if p.name not in ("inner", "attack.zip", "attack.tar.gz")] == []


def test_the_child_sees_a_file_that_takes_memory(tmp_path):
    """The check itself: a table within the limits is read, and its memory counts."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "large.parquet"
    pq.write_table(pa.table({"a": np.arange(20_000_000)}), path)
    [found] = open_all([path])
    assert found["said"] == "" and found["megabytes"] > 100
    assert Path(found["path"]) == path
