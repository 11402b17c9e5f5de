"""Merging the tables of several sets: which rows are the same row, and which differences conflict."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import read_table
from result_sets import config

from fmbench.config.written_out import written_out
from fmbench.errors import DataError
from fmbench.store.merge_tables import in_order, merge_tables
from fmbench.store.records import Row, write_rows


def test_a_requested_nfe_identifies_a_row_and_a_measured_nfe_does_not(tmp_path):
    def rows(path: Path, **found: float) -> pa.Table:
        write_rows(path, [Row("d", "m", 0, "s", "x", 1.0, "u", solver=s, nfe=n) for s, n in found.items()])
        return read_table(path)

    one, other = rows(tmp_path / "a", euler=4.0, dopri5=40.0), rows(tmp_path / "b", euler=8.0, dopri5=41.0)
    table, conflicts = merge_tables("records.parquet", [("A", one), ("B", other)])
    assert [(r["solver"], r["nfe"]) for r in table.to_pylist()] == [("euler", 4.0), ("dopri5", 40.0), ("euler", 8.0)]
    assert len(conflicts) == 1 and "solver dopri5: nfe is 40.0 in A, 41.0 in B" in conflicts[0]


@pytest.mark.parametrize("values", [{}, {(1, 3): 9.0}, {(1, 3): float("nan"), (2, 0): 5.0}], ids=["same", "one", "two"])
def test_a_large_table_is_merged_model_by_model_to_the_same_rows(monkeypatch, values):
    """A null is a seed of its own, as for the data themselves."""

    def part(seeds: list[int | None], changed: dict[tuple[int, int], float]) -> pa.Table:
        rows = [(seed, i) for seed in seeds for i in range(4)]
        columns = {"dataset": ["d"] * len(rows), "method": ["m"] * len(rows), "seed": [s for s, _ in rows]}
        columns |= {"index": [i for _, i in rows], "value": [changed.get(row, float(row[1])) for row in rows]}
        return pa.table(
            columns,
            pa.schema([("dataset", "string"), ("method", "string"), ("seed", "int64"), ("index", "int64"), ("value", "double")]),
        )

    parts = [("A", part([None, 0, 1, 2], {})), ("B", part([3, 2, 1], values)), ("C", part([None, 4], {}))]
    whole, conflicts = merge_tables("x.parquet", parts)
    monkeypatch.setattr("fmbench.store.merge_tables.ROWS", 0)
    by_model, others = merge_tables("x.parquet", parts)
    assert sorted(conflicts) == sorted(others) and len(others) == len(values)
    keys = [("seed", "ascending"), ("index", "ascending")]
    assert by_model.sort_by(keys).to_pylist() == whole.sort_by(keys).to_pylist() and by_model.num_rows == 24


def test_so_many_models_or_rows_are_refused(monkeypatch):
    table = pa.table({"dataset": ["d"] * 60_000, "method": ["m"] * 60_000, "seed": range(60_000), "value": [1.0] * 60_000})
    with pytest.raises(DataError, match="60,000 models in common"):
        merge_tables("x.parquet", [("A", table), ("B", table)])
    one = table.set_column(2, "seed", pa.array([0] * 60_000))
    monkeypatch.setattr("fmbench.store.merge_models.ROWS_OF_MODEL", 1000)
    assert merge_tables("x.parquet", [("A", one), ("B", one)])[0].num_rows == 60_000  # the same rows need no comparison
    with pytest.raises(DataError, match="differ in a model of more than 1,000 rows"):
        merge_tables("x.parquet", [("A", one), ("B", one.slice(1))])


def test_other_files_are_merged_by_their_identifying_columns():
    """Columns of floats and lists identify no row. Rows with the same identity are compared as one block."""
    a = pa.table({"method": ["x", "x", "y"], "t": [0.0, 0.5, 0.0], "level": [1.0, 2.0, float("nan")]})
    b = pa.table({"method": ["y", "z"], "t": [0.0, 0.0], "level": [float("nan"), 4.0]})
    merged, conflicts = merge_tables("theory/noise_levels.parquet", [("A", a), ("B", b)])
    assert merged["method"].to_pylist() == ["x", "x", "y", "z"] and not conflicts
    changed = b.set_column(1, "t", pa.array([0.25, 0.0]))
    assert merge_tables("t", [("A", a), ("B", changed)])[1] == ["t: method y: t is 0.0 in A, 0.25 in B"]
    assert merge_tables("t", [("A", a), ("B", a.slice(0, 1))])[1] == ["t: method x: 2 rows in A, 1 in B"]
    with pytest.raises(DataError, match="t of B has other columns"):
        merge_tables("t", [("A", a), ("B", a.select(["method"]))])
    counts = pa.table({"dataset": ["d"], "method": ["x"], "seed": [0], "index": [0], "nfe": [40]})
    other = counts.set_column(4, "nfe", pa.array([46]))
    assert merge_tables("nfe.parquet", [("A", counts), ("B", other)])[1] == [
        "nfe.parquet: dataset d, method x, index 0: nfe is 40 in A, 46 in B".replace("x, index", "x, seed 0, index")
    ]


def test_a_measured_time_may_differ_but_its_status_may_not(tmp_path):
    def table(name: str, **columns: Any) -> pa.Table:
        write_rows(tmp_path / name, [Row(**({"status": "ok"} | columns), **OWNER)])
        return read_table(tmp_path / name)

    OWNER: dict[str, Any] = {"dataset": "d", "method": "m", "seed": 0, "stage": "train", "metric": "train_seconds", "unit": "s"}
    one, other = table("a", value=7.0), table("b", value=9.0)
    assert merge_tables("records.parquet", [("A", one), ("B", other)]) == (one, [])
    lost = table("c", value=None, status="diverged", reason="nan at 12")
    where = "records.parquet: dataset d, method m, seed 0, stage train, metric train_seconds"
    for (a, b), said in (((one, lost), "'ok' in A, 'diverged' in B"), ((lost, one), "'diverged' in A, 'ok' in B")):
        assert merge_tables("records.parquet", [("A", a), ("B", b)])[1] == [f"{where}: status is {said}"]
    write_rows(tmp_path / "e", [Row(**(OWNER | {"unit": "loss"}), value=7.0)])
    found = merge_tables("records.parquet", [("A", one), ("B", read_table(tmp_path / "e"))])[1]
    assert found == [f"{where}: unit is 's' in A, 'loss' in B"]


def test_numbers_of_the_theory_may_differ_only_by_rounding():
    def conflicts(a: pa.Table, b: pa.Table) -> list[str]:
        merged, found = merge_tables("theory/t.parquet", [("A", a), ("B", b)])
        assert merged.num_rows == a.num_rows and str(merged.to_pylist()) == str(a.to_pylist())  # nan is nan
        return found

    def table(x: list[float | None], panel: list[str] | None = None) -> pa.Table:
        return pa.table({"panel": panel or ["p", "p", "q"], "k": [1, 2, 3], "x": pa.array(x, pa.float64())})

    a = table([1e-16, 2.0, 1e3])
    assert not conflicts(a, table([-3e-16, 2.0 * (1 + 9e-7), 1e3]))
    assert not conflicts(table([math.nan, math.inf, None]), table([math.nan, math.inf, None]))
    assert conflicts(a, table([1e-16, 2.0 * (1 + 2e-6), 1e3])) == ["theory/t.parquet: x is 2.0 in A, 2.000004 in B"]
    assert conflicts(a, table([1e-8, 2.0, 1e3])) == ["theory/t.parquet: x is 1e-16 in A, 1e-08 in B"]
    for spoilt in (math.nan, math.inf, None):
        assert len(conflicts(a, table([1e-16, spoilt, 1e3]))) == 1
    assert conflicts(a, table([1e-16, 2.0, 1e3], ["p", "q", "q"])) == ["theory/t.parquet: panel is 'p' in A, 'q' in B"]
    assert conflicts(a, a.slice(0, 2)) == ["theory/t.parquet: 3 rows in A, 2 in B"]

    # Rounding in a difference is relative to the scale of its row, not to large numbers in other rows.
    def checks(difference: float, found: str = "rounding") -> pa.Table:
        return pa.table(
            {"check": ["x", "y"], "max_difference": [difference, 1e8], "scale": [10.0, 1e8], "found": [found, "different"]}
        )

    assert not conflicts(checks(1e-15), checks(9e-9))
    assert conflicts(checks(1e-15), checks(2e-8)) == ["theory/t.parquet: max_difference is 1e-15 in A, 2e-08 in B"]
    assert conflicts(checks(1e-15), checks(1e-15, "different")) == [
        "theory/t.parquet: found is 'rounding' in A, 'different' in B"
    ]


def test_files_with_one_seed_keep_the_lowest_seed():
    values = written_out(config())
    table = pa.table(
        {"dataset": ["board"] * 4, "method": ["ddpm", "ddpm", "fm_ot", "data"], "seed": [1, 0, 1, None], "t": [0.0] * 4}
    )
    kept = in_order("trajectory.parquet", table, values).to_pylist()
    assert [(r["method"], r["seed"]) for r in kept] == [("ddpm", 0), ("fm_ot", 1), ("data", None)]
    assert in_order("previews.parquet", table, values).num_rows == 4
