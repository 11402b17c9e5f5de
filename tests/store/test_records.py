import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import read_table

from fmbench.errors import DataError
from fmbench.store import files
from fmbench.store.files import atomic, read_json, sha256, write_json
from fmbench.store.parquet import table, write_table
from fmbench.store.previews import PREVIEW, previews, read_previews
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


def test_the_file_of_another_version_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    write_rows(path, [FULL])
    pq.write_table(pq.read_table(path), path)
    with pytest.raises(DataError, match=r"rows\.parquet cannot be used: it has no checksum: .*an earlier version.*delete it"):
        read_rows([path])


def _with_null(rows: pa.Table, name: str) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, pa.nulls(len(rows), SCHEMA.field(name).type))


SPOILT = [
    (lambda rows: rows.drop_columns(["step", "n"]), r"it lacks the columns n, step"),
    (lambda rows: rows.append_column("fid", pa.array([1.0])), "it has the unknown columns fid"),
    (lambda rows: rows.append_column("step", pa.array([1])), "it has a column twice: dataset, "),
    (lambda rows: pa.table({"fid": [1.0]}), "it lacks the columns dataset, method, "),
    (lambda rows: rows.set_column(5, "value", pa.array(["much"])), "the column value holds string, not double"),
    (lambda rows: rows.set_column(2, "seed", pa.array([0.0])), "the column seed holds double, not int64"),
    (lambda rows: _with_null(rows, "metric"), "the column metric lacks 1 values"),
    (lambda rows: rows.set_column(7, "status", pa.array(["fine"])), "a row has a status that is none of ok, diverged, skipped"),
    (lambda rows: rows.set_column(5, "value", pa.array([float("nan")])), "a row with status ok has no finite value"),
    (lambda rows: _with_null(rows, "value"), "a row with status ok has no finite value"),
    (lambda rows: rows.set_column(7, "status", pa.array(["skipped"])), "a row with a value does not have status ok"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILT)
def test_columns_and_rows_that_no_stage_writes_are_refused(tmp_path, spoil, reason):
    path = tmp_path / "rows.parquet"
    write_rows(path, [FULL])
    write_table(path, spoil(read_table(path)))
    with pytest.raises(DataError, match=rf"rows\.parquet is not a file of this version of fmbench \({reason}.*\); delete it"):
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
    rows = read_previews(tmp_path / "p.parquet").to_pylist()
    assert [np.array(r["values"]).reshape(r["shape"]).tolist() for r in rows] == images.tolist()
    assert [r["seed"] for r in rows] == [None, None]


@pytest.mark.parametrize(
    ("values", "shape"),
    [([1.0], [2]), ([1.0, 2.0], [1]), ([], [0]), ([1.0], []), ([1.0], [-1]), ([], [2**40, 2**40]), ([1.0] * 4, [2, 2, -1, -1])],
)
def test_previews_whose_values_do_not_fit_their_shape_are_refused(tmp_path, values, shape):
    row = {"dataset": "d", "method": "m", "seed": 0, "index": 0}
    rows = [row | {"values": [1.0, 2.0], "shape": [2]}, row | {"values": values, "shape": shape}]
    write_table(tmp_path / "p.parquet", pa.Table.from_pylist(rows, PREVIEW))
    with pytest.raises(DataError, match=r"p\.parquet is not .* \(the values of a sample do not fit its shape\)"):
        read_previews(tmp_path / "p.parquet")


def test_previews_with_a_missing_number_are_refused(tmp_path):
    row = {"dataset": "d", "method": "m", "seed": 0, "index": 0, "values": [1.0, None], "shape": [2]}
    write_table(tmp_path / "p.parquet", pa.Table.from_pylist([row], PREVIEW))
    with pytest.raises(DataError, match="the lists in the column values lack values"):
        read_previews(tmp_path / "p.parquet")


def test_no_previews():
    assert previews("d", "m", 0, np.empty((0, 2), np.float32), []).equals(PREVIEW.empty_table())


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


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256 is sha256


def test_pyarrow_alone_can_read_the_records(tmp_path):
    write_rows(tmp_path / "rows.parquet", [PLAIN])
    assert pq.read_table(tmp_path / "rows.parquet", columns=["metric"])["metric"].to_pylist() == ["nll"]
