"""The cache: results by key. What cannot be used counts as none and is said."""

import json
from typing import Any

import numpy as np
import pytest
from sealed_files import flip

from fmbench.store.cache import Cache
from fmbench.store.documents import write_document

KEY = {"weights": "abc", "solver": "rk4", "nfe": 8}


def test_the_cache_gives_back_what_was_put(tmp_path):
    cache = Cache(tmp_path / "new" / "folder")
    assert cache.get(KEY) is None and cache.get_array(KEY) is None
    cache.put(KEY, {"mse": 0.1, "nfe": 8.0})
    cache.put_array(KEY, np.arange(6, dtype=np.float32).reshape(2, 3))
    again = Cache(tmp_path / "new" / "folder")
    assert again.get(dict(reversed(KEY.items()))) == {"mse": 0.1, "nfe": 8.0}
    assert again.get_array(KEY).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_cache_tells_keys_apart(tmp_path):
    cache = Cache(tmp_path)
    cache.put(KEY, 1)
    for other in (KEY | {"nfe": 9}, KEY | {"weights": "abd"}, {k: v for k, v in KEY.items() if k != "nfe"}, KEY | {"x": 0}):
        assert cache.get(other) is None


def test_a_stored_null_result_is_found(tmp_path):
    """A cell that diverged is not computed again."""
    cache = Cache(tmp_path)
    cache.put(KEY, {"mse": None, "nfe": 8.0})
    assert cache.get(KEY) == {"mse": None, "nfe": 8.0}


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"value"', b'{"key": 1}', b"\xff\xfe", b"[" * 100_000, b'{"key": 1, "value": {}}', b"null", b"[]"]
)
def test_an_unreadable_entry_counts_as_none(tmp_path, text):
    told: list[str] = []
    cache = Cache(tmp_path, told.append)
    cache.put(KEY, 1)
    (entry,) = tmp_path.glob("*.json")
    entry.write_bytes(text)
    assert cache.get(KEY) is None and told[0].startswith(f"{entry} ") and told[0].endswith("; it is computed again")
    cache.put(KEY, 2)
    assert cache.get(KEY) == 2 and len(told) == 1


@pytest.mark.parametrize("values", [{}, {"key": KEY}, {"value": 1}, {"key": KEY | {"nfe": 9}, "value": 1}])
def test_an_entry_of_another_shape_or_key_counts_as_none(tmp_path, values: dict[str, Any]):
    cache = Cache(tmp_path)
    cache.put(KEY, 1)
    (entry,) = tmp_path.glob("*.json")
    write_document(entry, values)
    assert cache.get(KEY) is None


def test_entries_under_the_names_of_others_count_as_none(tmp_path):
    told: list[str] = []
    cache, other = Cache(tmp_path / "a", told.append), KEY | {"nfe": 9}
    for key, value in ((KEY, 1), (other, 2)):
        cache.put(key, value)
        cache.put_array(key, np.full(3, value))
    for suffix in (".json", ".npy"):
        one, two = sorted((tmp_path / "a").glob(f"*{suffix}"))
        content = one.read_bytes(), two.read_bytes()
        one.write_bytes(content[1])
        two.write_bytes(content[0])
    assert [read(key) for read in (cache.get, cache.get_array) for key in (KEY, other)] == [None] * 4
    assert len(told) == 4 and all("belongs to another key" in text for text in told)


@pytest.mark.parametrize("kept", [0, 10, 60, -1])
def test_a_truncated_array_counts_as_none(tmp_path, kept):
    cache = Cache(tmp_path)
    cache.put_array(KEY, np.ones((7, 3)))
    (entry,) = tmp_path.glob("*.npy")
    entry.write_bytes(entry.read_bytes()[:kept])
    assert cache.get_array(KEY) is None
    cache.put_array(KEY, np.ones((7, 3)))
    assert cache.get_array(KEY).sum() == 21


def test_a_flipped_bit_in_an_entry_is_said_and_the_entry_replaced(tmp_path):
    told: list[str] = []
    cache = Cache(tmp_path, told.append)
    cache.put(KEY, {"mse": 0.5})
    cache.put_array(KEY, np.ones(3))
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["value"] == {"mse": 0.5}
    for entry in tmp_path.iterdir():
        flip(entry, 8 * entry.stat().st_size // 2)
    assert cache.get(KEY) is None and cache.get_array(KEY) is None and len(told) == 2
    assert all("its content does not match its checksum" in text or "has no checksum" in text for text in told)
    cache.put(KEY, {"mse": 0.5})
    cache.put_array(KEY, np.ones(3))
    assert cache.get(KEY) == {"mse": 0.5} and cache.get_array(KEY).tolist() == [1, 1, 1]
