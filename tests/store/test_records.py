import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmbench.errors import DataError
from fmbench.store import files
from fmbench.store.cache import Cache
from fmbench.store.files import atomic, read_json, sha256, write_json
from fmbench.store.parquet import read_table, table, write_table
from fmbench.store.previews import PREVIEW, previews
from fmbench.store.records import SCHEMA, STATUSES, Row, read_rows, write_rows

PLAIN = Row("digits", "ddpm", 0, "likelihood", "nll", 2.5, "bits/dim")
FULL = Row(
    dataset="checker-board.v2",
    method="mine",
    seed=2**40,
    stage="sweep",
    metric="mse",
    value=0.1 + 0.2,
    unit="squared µ",
    status="ok",
    reason="",
    n=10_000_000_000,
    batch=3,
    solver='dopri5, "shared"\n\ttab',
    nfe=1e-300,
    rtol=1e-5,
    atol=5e-324,
    step=12,
    draws=50,
    probes=0,
    features="2024-01-02",
    reference="1.5",
    config_hash="0123456789abcdef",
    code_hash="e" * 16,
    commit="unknown",
    versions=json.dumps({"torch": "2"}),
    device="cpu (Größe)",
    threads=1,
)


def same(a: Row, b: dict) -> bool:
    return dataclasses.asdict(a) == b


# Rows


def test_rows_survive_the_file(tmp_path):
    rows = [PLAIN, FULL, dataclasses.replace(PLAIN, status="diverged", value=None, reason="a\nb, 'c' \"d\"", seed=None)]
    write_rows(tmp_path / "rows.parquet", rows)
    found = read_rows([tmp_path / "rows.parquet"])
    assert found.schema.equals(SCHEMA)
    assert found.to_pylist() == [dataclasses.asdict(r) for r in rows]


def test_the_schema_has_every_column_of_a_row():
    assert SCHEMA.names == [f.name for f in dataclasses.fields(Row)]
    kinds = {"seed": pa.int64(), "value": pa.float64(), "nfe": pa.float64(), "n": pa.int64(), "reason": pa.string()}
    assert {name: SCHEMA.field(name).type for name in kinds} == kinds


@pytest.mark.parametrize("value", [0.0, -1.5, 1e308, 1e-320, 0.1, 1 / 3, 123456789.123456789])
def test_values_keep_every_bit(tmp_path, value):
    write_rows(tmp_path / "rows.parquet", [dataclasses.replace(PLAIN, value=value)])
    assert read_rows([tmp_path / "rows.parquet"])["value"].to_pylist() == [value]


def test_no_rows_still_have_the_schema(tmp_path):
    write_rows(tmp_path / "rows.parquet", [])
    assert read_rows([tmp_path / "rows.parquet"]).schema.equals(SCHEMA)
    assert read_rows([]).schema.equals(SCHEMA)


def test_files_are_read_in_order(tmp_path):
    paths = [tmp_path / f"{i}.parquet" for i in range(3)]
    for i, path in enumerate(paths):
        write_rows(path, [dataclasses.replace(PLAIN, seed=i), dataclasses.replace(PLAIN, seed=10 + i)])
    assert read_rows(paths)["seed"].to_pylist() == [0, 10, 1, 11, 2, 12]


def test_many_rows(tmp_path):
    rows = [dataclasses.replace(FULL, seed=i) for i in range(5000)]
    write_rows(tmp_path / "rows.parquet", rows)
    assert read_rows([tmp_path / "rows.parquet"])["seed"].to_pylist() == list(range(5000))


def test_the_same_rows_give_the_same_bytes(tmp_path):
    write_rows(tmp_path / "a.parquet", [PLAIN, FULL])
    write_rows(tmp_path / "b.parquet", [PLAIN, FULL])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_ok_has_a_finite_value(value):
    with pytest.raises(ValueError, match=r"status ok needs a finite value, not .* \(nll\)"):
        dataclasses.replace(PLAIN, value=value)


@pytest.mark.parametrize("status", [s for s in STATUSES if s != "ok"])
def test_a_row_that_is_not_ok_has_a_reason_and_no_value(status):
    row = dataclasses.replace(PLAIN, status=status, value=None, reason="why")
    assert row.reason == "why"
    with pytest.raises(ValueError, match=f"status {status} has a reason and no value"):
        dataclasses.replace(row, value=1.0)
    with pytest.raises(ValueError, match=f"status {status} has a reason and no value"):
        dataclasses.replace(row, reason="")


def test_an_unknown_status():
    with pytest.raises(ValueError, match="status must be one of ok, diverged, skipped, not 'fine'"):
        dataclasses.replace(PLAIN, status="fine")


def test_a_column_that_the_schema_does_not_have_is_refused():
    with pytest.raises(pa.ArrowInvalid, match="unexpected field"):
        table([dataclasses.asdict(PLAIN) | {"surplus": 1}], SCHEMA)


# Missing and damaged files


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"rows\.parquet is missing; run the stage that makes it"):
        read_rows([tmp_path / "rows.parquet"])


@pytest.mark.parametrize("kept", [0, 3, 100, -1, -9])
def test_a_truncated_file(tmp_path, kept):
    path = tmp_path / "rows.parquet"
    write_rows(path, [FULL] * 20)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"rows\.parquet is not a readable parquet file .*; delete it and rerun its stage"):
        read_rows([path])


def test_a_damaged_file_is_an_error_or_reads_the_same(tmp_path):
    """With single flipped bytes, as a bad disk leaves them, reading raises no exception but DataError."""
    path = tmp_path / "rows.parquet"
    write_rows(path, [FULL] * 20)
    good = path.read_bytes()
    unexpected = set()
    for place in range(4, len(good), 29):
        damaged = bytearray(good)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_table(path)
        except DataError:
            pass
        except Exception as error:
            unexpected.add(type(error).__name__)
    assert not unexpected


def test_a_file_that_lacks_a_column_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    write_rows(path, [FULL])
    write_table(path, read_table(path).drop_columns(["step"]))
    with pytest.raises(DataError, match=r"rows\.parquet was written by another version of fmbench"):
        read_rows([path])


def test_another_schema(tmp_path):
    path = tmp_path / "rows.parquet"
    write_table(path, pa.table({"dataset": ["digits"], "fid": [1.0]}))
    with pytest.raises(DataError, match=r"rows\.parquet was written by another version of fmbench .*fid.*rerun its stage"):
        read_rows([path])


def test_the_same_columns_of_another_type(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = pa.Table.from_pylist([dataclasses.asdict(PLAIN)], SCHEMA)
    write_table(path, rows.set_column(SCHEMA.get_field_index("value"), "value", pa.array(["much"])))
    with pytest.raises(DataError, match=r"rows\.parquet"):
        read_rows([path])


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path):
    path = tmp_path / "seed=7" / "rows.parquet"
    write_rows(path, [PLAIN])
    assert read_rows([path])["seed"].to_pylist() == [0]


# Previews


def test_previews_of_points():
    points = np.array([[0.1, -2.0], [3.5, 4.0]], np.float32)
    found = previews("checkerboard", "fm_ot", 3, points, [4, 9])
    assert found.schema.equals(PREVIEW)
    assert found.to_pylist() == [
        {"dataset": "checkerboard", "method": "fm_ot", "seed": 3, "index": i, "values": v.tolist(), "shape": [2]}
        for i, v in zip([4, 9], points, strict=True)
    ]


def test_previews_of_images_keep_their_shape(tmp_path):
    images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    write_table(tmp_path / "p.parquet", previews("d", "data", None, images, range(2)))
    rows = read_table(tmp_path / "p.parquet").to_pylist()
    assert [np.array(r["values"]).reshape(r["shape"]).tolist() for r in rows] == images.tolist()
    assert [r["seed"] for r in rows] == [None, None]


def test_no_previews():
    assert previews("d", "m", 0, np.empty((0, 2), np.float32), []).equals(PREVIEW.empty_table())


# The cache


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


@pytest.mark.parametrize("text", [b"", b"{", b'{"value"', b'{"key": 1}', b"\xff\xfe"])
def test_an_unreadable_entry_counts_as_none(tmp_path, text):
    cache = Cache(tmp_path)
    cache.put(KEY, 1)
    (entry,) = tmp_path.glob("*.json")
    entry.write_bytes(text)
    assert cache.get(KEY) is None
    cache.put(KEY, 2)
    assert cache.get(KEY) == 2


@pytest.mark.parametrize("kept", [0, 10, 60, -1])
def test_a_truncated_array_counts_as_none(tmp_path, kept):
    cache = Cache(tmp_path)
    cache.put_array(KEY, np.ones((7, 3)))
    (entry,) = tmp_path.glob("*.npy")
    entry.write_bytes(entry.read_bytes()[:kept])
    assert cache.get_array(KEY) is None


# Files that are written whole or not at all


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_makes_its_folder_and_a_file_others_can_read(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    write_json(path, {"b": 1, "a": [None, "é"]})
    assert read_json(path) == {"a": [None, "é"], "b": 1}
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_json_that_is_missing_or_broken(tmp_path):
    with pytest.raises(DataError, match=r"a\.json is missing; run the stage that makes it"):
        read_json(tmp_path / "a.json")
    for text in (b"", b'{"a": ', b"\xff\xfe\x00"):
        (tmp_path / "a.json").write_bytes(text)
        with pytest.raises(DataError, match=r"a\.json is not valid JSON .*; delete it and rerun"):
            read_json(tmp_path / "a.json")


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256 is sha256


def test_pyarrow_alone_can_read_the_records(tmp_path):
    write_rows(tmp_path / "rows.parquet", [PLAIN])
    assert pq.read_table(tmp_path / "rows.parquet", columns=["metric"])["metric"].to_pylist() == ["nll"]
