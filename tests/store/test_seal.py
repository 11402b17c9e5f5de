"""Seals: one flipped bit anywhere in a file of any format is noticed, and every library still reads the file."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from draws import draw
from safetensors.torch import load_file

from fmbench.errors import CheckpointError, DataError
from fmbench.metrics.frechet import FeatureStatistics
from fmbench.stages.evaluators.references import Reference, read_reference, write_reference
from fmbench.store import seal as module
from fmbench.store.cache import Cache
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.store.documents import read_document, write_document
from fmbench.store.files import atomic_array, open_array
from fmbench.store.records import Row, read_rows, write_rows
from fmbench.store.seal import DAMAGED, MARK, NONE, UNSEALED, append_seal, check_seal, seal, sealed
from fmbench.store.shapes import Checked
from fmbench.store.weights import read_tensors, write_tensors

KEY = {"weights": "abc", "nfe": 4}
TENSORS = {"w": torch.arange(7.0), "b": torch.ones(2, 3, dtype=torch.int64)}
ROW = Row("digits", "fm_ot", 0, "likelihood", "nll", 1.5, "bits/dim")


def samples(path: Path) -> None:
    with atomic_array(path, (5, 2)) as array:
        array[:] = np.arange(10).reshape(5, 2)


def load_array(path: Path) -> None:
    try:
        open_array(path)
    except ValueError as error:
        raise DataError(f"{path} cannot be used: {error}") from None


def checkpoint(path: Path) -> None:
    with CheckpointFolder(path.parent) as folder:
        folder.save({"key": "key", "step": 3, "weights": torch.arange(9.0)})


def load_checkpoint(path: Path) -> None:
    with CheckpointFolder(path.parent) as folder:
        state, complaints = folder.load("key")
    if state is None:
        raise CheckpointError(complaints[0])


def cell(path: Path) -> None:
    cache = Cache(path.parent)
    cache.put(KEY, {"mse": 0.25})
    cache.put_array(KEY, np.arange(4.0))


def load_cell(path: Path) -> None:
    told: list[str] = []
    cache = Cache(path.parent, told.append)
    found = cache.get(KEY) if path.suffix == ".json" else cache.get_array(KEY)
    if found is None:
        raise DataError(told[0])


def reference(path: Path) -> None:
    write_reference(path, Reference("r", FeatureStatistics(np.zeros(2), np.eye(2), 9), np.ones((3, 2), np.float32)))


FORMATS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "a.json": (lambda p: write_document(p, {"key": "é", "n": [1, None]}), lambda p: read_document(p, Checked)),
    "a.parquet": (lambda p: write_rows(p, [ROW]), lambda p: read_rows([p])),
    "a.npy": (samples, load_array),
    "a.safetensors": (lambda p: write_tensors(p, TENSORS, {"step": 3}), read_tensors),
    "reference.safetensors": (reference, lambda p: read_reference(p, "r")),
    "checkpoint.pt": (checkpoint, load_checkpoint),
    "cell.json": (cell, load_cell),
    "cell.npy": (cell, load_cell),
}


@pytest.fixture(params=FORMATS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path], object]]:
    """A small sealed file of each format, and its reader."""
    write, read = FORMATS[request.param]
    write(tmp_path / request.param)
    (path,) = tmp_path.glob(f"*{Path(request.param).suffix}")
    return path, read


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_is_noticed(file):
    path, read = file
    content = path.read_bytes()
    assert content.count(MARK) == 1 and 8 * len(content) > 1000
    read(path)
    check_seal(content)
    for bit in range(8 * len(content)):
        with pytest.raises(ValueError, match="checksum"):
            check_seal(flipped(content, bit))
    for bit in range(0, 8 * len(content), 8 * len(content) // 40):
        path.write_bytes(flipped(content, bit))
        with pytest.raises((DataError, CheckpointError), match=rf"{path.name},? cannot be used"):
            read(path)


def test_every_truncation_and_an_added_byte_are_noticed(file):
    path, read = file
    content = path.read_bytes()
    for kept in range(len(content)):
        with pytest.raises(ValueError, match="checksum"):
            check_seal(content[:kept])
    for changed in (b"", content[: len(content) // 2], content + b"\0", b"\0" + content):
        path.write_bytes(changed)
        with pytest.raises((DataError, CheckpointError), match=path.name):
            read(path)


def test_the_same_content_gives_the_same_bytes_and_the_digits_are_their_hash(file, request):
    path, _ = file
    content = path.read_bytes()
    path.unlink()
    FORMATS[request.node.callspec.params["file"]][0](path)
    assert path.read_bytes() == content
    digits = check_seal(path)
    assert hashlib.sha256(content.replace(digits.encode(), b"0" * 64)).hexdigest() == digits


def test_libraries_read_sealed_files(tmp_path):
    """numpy ignores what follows the last number, and torch.load the comment of its zip archive."""
    for name, (write, _) in FORMATS.items():
        write(tmp_path / name)
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    for mode in (None, "r"):
        assert (np.load(tmp_path / "a.npy", mmap_mode=mode) == values).all()
    content = (tmp_path / "a.npy").read_bytes()
    np.save(tmp_path / "plain.npy", values)
    assert content[: -len(UNSEALED)] == (tmp_path / "plain.npy").read_bytes()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    assert load_file(tmp_path / "a.safetensors")["w"].equal(TENSORS["w"])
    table = pq.read_table(tmp_path / "a.parquet", page_checksum_verification=True)
    assert table["value"].to_pylist() == [1.5] and not table.schema.metadata
    assert json.loads((tmp_path / "a.json").read_text())["key"] == "é"
    assert read_document(tmp_path / "a.json", Checked) == {"key": "é", "n": [1, None]}


@pytest.mark.parametrize("piece", [7, 79, 100, 1000])
def test_a_seal_is_found_wherever_pieces_end(tmp_path, monkeypatch, piece):
    """A file is read in pieces. A seal may lie across several, and the beginning of one may be no seal."""
    monkeypatch.setattr(module, "_PIECE", piece)
    path = tmp_path / "a"
    for before in [*range(0, 130), 999, 1000, 1001]:
        body = b"x" * before + MARK[:9] + MARK + b"0" * 63 + b"/" + UNSEALED.encode() + MARK + b"y" * (before % 90)
        path.write_bytes(body)
        digits = seal(path)
        assert digits == hashlib.sha256(body).hexdigest() == check_seal(path)
        assert path.read_bytes() == body.replace(UNSEALED.encode(), MARK + digits.encode()) == sealed(body)


def test_a_file_has_one_seal(tmp_path):
    path = tmp_path / "a"
    for content, reason in ((b"plain", "no place"), (2 * UNSEALED.encode(), "several checksums")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{reason}|{NONE}"):
            seal(path)
        with pytest.raises(ValueError, match=f"{NONE}|several checksums"):
            check_seal(path)
    path.write_bytes(b"numbers")
    append_seal(path)
    once = path.read_bytes()
    with pytest.raises(ValueError, match="has no place for its checksum"):
        seal(path)  # it is sealed already
    path.write_bytes(once + once)
    with pytest.raises(ValueError, match="several checksums"):
        check_seal(path)
    path.write_bytes(once.replace(b"numbers", b"Numbers"))
    with pytest.raises(ValueError, match=DAMAGED):
        check_seal(path)


def test_damage_anywhere_in_a_large_file_is_found(tmp_path):
    path = tmp_path / "a.npy"
    with atomic_array(path, (1_000_000,)) as array:
        array[:] = draw(0, 1_000_000).numpy()
    size = path.stat().st_size
    for place in (0, 127, 128, (1 << 20) - 1, 1 << 20, size - 80, size - 1, *range(5, size, size // 9)):
        with open(path, "r+b") as stream:
            for expected in (True, False):
                stream.seek(place)
                byte = stream.read(1)[0]
                stream.seek(place)
                stream.write(bytes([byte ^ 16]))
                stream.flush()
                noticed = False
                with contextlib.suppress(ValueError):
                    check_seal(path)
                    noticed = True
                assert noticed is not expected


def test_a_sealed_file_is_on_the_disk(tmp_path, monkeypatch):
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_size))
    (tmp_path / "a").write_bytes(UNSEALED.encode())
    seal(tmp_path / "a")
    assert flushed == [len(UNSEALED)]
