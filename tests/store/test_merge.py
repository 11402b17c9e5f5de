"""Merging result sets: what they must agree on, and the merged results folder."""

import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow.parquet import read_table
from result_sets import config, files_in, make_results, number_for
from sealed_files import change_document, content_of, flip
from user_code import command

from fmbench.errors import DataError
from fmbench.report.render import TABLES, render
from fmbench.report.training_cost import training_costs
from fmbench.store.archive import export
from fmbench.store.benchmark import config_of, read_benchmark
from fmbench.store.merge import merge
from fmbench.store.parquet import table, write_table
from fmbench.store.records import SCHEMA, Row
from fmbench.store.result_set import ResultSet, members, read_set
from fmbench.store.tables import THEORY
from fmbench.store.unpack import opened

pytestmark = pytest.mark.usefixtures("no_fsync")


def halves(tmp_path: Path, one: dict[str, Any], other: dict[str, Any], **what: Any) -> list[Path]:
    return [make_results(tmp_path / name, config(**changes), **what) for name, changes in (("a", one), ("b", other))]


def refused(a: Path, b: Path, tmp_path: Path, *allow: str) -> str:
    with pytest.raises(DataError) as error:
        merge([read_set("A", a), read_set("B", b)], tmp_path / "out", allow)
    assert not (tmp_path / "out").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seeds": [0]}, {"seeds": [1]}),
        ({"seeds": [1]}, {"seeds": [0]}),
        ({"methods": ["ddpm"]}, {"methods": ["fm_ot", "oracle_ot"]}),
        ({"datasets": ["board"]}, {"datasets": ["digits"]}),
        ({"seeds": [0, 1], "methods": ["ddpm", "fm_ot"]}, {"seeds": [0, 1], "methods": ["fm_ot", "oracle_ot"]}),
    ],
)
def test_parts_of_a_run_merge_to_the_whole_run(whole_run, archive, tmp_path, one, other):
    a, b = halves(tmp_path, one, other)
    export(b, tmp_path / "b.tar.gz")
    said = command("merge", a, tmp_path / "b.tar.gz", "--out", tmp_path / "merged", "--progress", "lines")
    assert said.code == 0 and "missing" not in said.err and f"fmbench render --results {tmp_path / 'merged'}" in said.err
    merged = tmp_path / "merged"
    for name in ("records", "previews", "loss_curves", "models"):
        assert read_table(merged / f"{name}.parquet").equals(read_table(whole_run / f"{name}.parquet")), name
    found, wanted = read_benchmark(merged), read_benchmark(whole_run)
    assert found.pop("merged") == [read_benchmark(a)["hash"], read_benchmark(b)["hash"]]
    # A merged set was gathered by neither config, so no file is expected to have a source hash.
    assert found.pop("gathered") == {} and wanted.pop("gathered")
    assert found == {k: v for k, v in wanted.items() if k != "merged"}
    if one == {"seeds": [0]}:  # every figure, once
        with opened(archive) as folder:  # whose NLL against K is in one file, where the claims look for it
            render(folder, tmp_path / "from whole", formats=["svg"])
        render(merged, tmp_path / "from merged", formats=["svg"])
    else:
        for table in ("table1", "table4"):
            for name, folder in (("whole", whole_run), ("merged", merged)):
                TABLES[table][1](folder, config_of(folder), tmp_path / f"from {name}" / f"{table}.csv")
    ours, theirs = files_in(tmp_path / "from merged"), files_in(tmp_path / "from whole")
    assert ours == theirs and {"table1.csv", "table1.md", "table4.tex"} <= set(ours)
    assert ("figures/fig07.svg" in ours) == ("figures/fig04.svg" in ours) == (one == {"seeds": [0]})


@pytest.mark.parametrize("one", [{"seeds": [0]}, {"methods": ["fm_ot"]}])
def test_what_a_student_costs_survives_export_and_merging(tmp_path, one):
    """Its pairs are rows of a stage that other methods do not have, and its cost holds that of its teacher."""
    both = {"datasets": ["board"], "methods": ["fm_ot", "rectified_flow_2"]}
    a, b = halves(tmp_path, both | one, both | ({"seeds": [1]} if "seeds" in one else {}))
    whole = make_results(tmp_path / "whole", config(**both))
    export(b, tmp_path / "b.zip")
    said = command("merge", a, tmp_path / "b.zip", "--out", tmp_path / "merged", "--progress", "lines")
    assert said.code == 0 and "missing" not in said.err
    assert read_table(tmp_path / "merged" / "records.parquet").equals(read_table(whole / "records.parquet"))
    costs = training_costs(whole)
    pd.testing.assert_frame_equal(training_costs(tmp_path / "merged"), costs)
    at = number_for("board", "rectified_flow_2", 1)
    (student,) = costs[(costs.method == "rectified_flow_2") & (costs.seed == 1)].before_passes
    assert student == 3 * 640 + 1000 * at


def test_students_of_different_teachers_are_refused(tmp_path):
    both = {"datasets": ["board"], "methods": ["fm_ot", "rectified_flow_2"]}
    slow = [{"name": "fm_ot", "training": {"learning_rate": 0.5}}, "rectified_flow_2"]
    a, b = halves(tmp_path, both | {"seeds": [0]}, both | {"seeds": [1], "methods": slow})
    assert "learning_rate" in refused(a, b, tmp_path)


def test_students_of_different_numbers_of_pairs_are_refused(tmp_path):
    def taught(pairs):
        student = {"name": "student", "use": "fm_ot", "teacher": {"name": "fm_ot", "pairs": pairs, "rtol": 1e-5, "atol": 1e-5}}
        return {"datasets": ["board"], "methods": ["fm_ot", student], "seeds": [pairs]}

    a, b = halves(tmp_path, taught(30), taught(40))
    assert "teacher.pairs" in refused(a, b, tmp_path)


def test_three_sets_merge_at_once_or_in_turn(whole_run, tmp_path):
    parts = [make_results(tmp_path / m, config(methods=[m])) for m in ("ddpm", "fm_ot", "oracle_ot")]
    merge([read_set(p.name, p) for p in parts], tmp_path / "at once")
    merge([read_set(p.name, p) for p in parts[:2]], tmp_path / "two")
    merge([read_set(p.name, p) for p in (tmp_path / "two", parts[2])], tmp_path / "in turn")
    for folder in ("at once", "in turn"):
        assert read_table(tmp_path / folder / "records.parquet").equals(read_table(whole_run / "records.parquet"))
    export(tmp_path / "in turn", tmp_path / "again.zip")  # a merged set can be shared again


def test_models_that_no_set_has_are_noted(tmp_path):
    a, b = halves(tmp_path, {"seeds": [0], "methods": ["ddpm"]}, {"seeds": [1], "methods": ["fm_ot"]})
    found = merge([read_set("a", a), read_set("b", b)], tmp_path / "out")
    gone = [f"missing: {d}/{m}/{s}" for d in ("board", "digits") for m, s in (("ddpm", 1), ("fm_ot", 0))]
    assert found["notes"] == gone == read_benchmark(tmp_path / "out")["notes"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"board__training": {"iterations": 300}}, "settings.board.training.iterations: 100 in A, 300 in B"),
        ({"digits__network": {"kind": "unet", "channels": 16}}, "settings.digits.network.channels: 8 in A, 16 in B"),
        (
            {"digits__data": {"source": "digits", "parameters": {"test": 9}}},
            "settings.digits.data.parameters.test: (not set) in A, 9 in B",
        ),
        ({"board__evaluation": {"sample": {"rtol": 1e-3}}}, "settings.board.evaluation.sample.rtol: 1e-05 in A, 0.001 in B"),
        (
            {"methods": ["ddpm", {"name": "mine", "path": "vp", "prediction": "x"}]},
            'methods.mine.prediction.name: "v" in A, "x" in B',
        ),
        (
            {"methods": [{"name": "ddpm", "training": {"learning_rate": 0.5}}]},
            "methods.ddpm.training.learning_rate: (not set) in A, 0.5 in B",
        ),
        (
            {"methods": [{"name": "ddpm", "training": {"clip_norm": None}}]},
            "methods.ddpm.training.clip_norm: (not set) in A, null in B",
        ),
    ],
)
def test_different_settings_are_refused_with_both_values(tmp_path, changes, line):
    mine = {"name": "mine", "path": "vp", "prediction": "v"}
    a = make_results(tmp_path / "a", config(seeds=[0], methods=["ddpm", mine]))
    b = make_results(tmp_path / "b", config(seeds=[1], **changes))
    said = refused(a, b, tmp_path, "code", "device", "extractor", "rows")  # no kind allows it
    assert said.splitlines() == ["these result sets do not belong together:", f"  {line}"]


def test_places_of_data_files_may_differ_but_their_content_may_not(tmp_path):
    at = [{"source": "digits", "parameters": {"path": f"/data/{i}", "download": bool(i)}} for i in range(2)]
    a, b = (make_results(tmp_path / str(i), config(seeds=[i], digits__data=at[i])) for i in range(2))
    assert merge([read_set("A", a), read_set("B", b)], tmp_path / "merged")["config"]["seeds"] == [0, 1]
    c = make_results(tmp_path / "c", config(seeds=[2], digits__data=at[0]), data="other")
    said = refused(a, c, tmp_path, "code", "device", "extractor", "rows")
    hashes = [read_benchmark(s)["data"]["digits"]["train.sha256"] for s in (a, c)]
    assert f"  data of digits, train.sha256: {hashes[0]} in A, {hashes[1]} in B" in said.splitlines()
    assert "data of board" in said and said.count("\n") == 2


def test_other_code_is_refused_unless_allowed(tmp_path):
    a, b = make_results(tmp_path / "a", config(seeds=[0])), make_results(tmp_path / "b", config(seeds=[1]), code="f00d")
    lines = refused(a, b, tmp_path).splitlines()[1:]
    assert "  code of sweep: c0de-sweep in A, f00d-sweep in B [--allow code]" in lines
    assert len(lines) == 8  # one for each stage, with dequantisation and oracles
    said = command("merge", a, b, "--out", tmp_path / "out", "--allow", "code", "--progress", "lines")
    assert said.code == 0 and f"differs: code of sweep: c0de-sweep in {a}, f00d-sweep in {b}" in said.err
    assert read_benchmark(tmp_path / "out")["code"]["sweep"] == ["c0de-sweep", "f00d-sweep"]


def test_another_device_is_refused_unless_allowed(tmp_path):
    a, b = make_results(tmp_path / "a", config(seeds=[0])), make_results(tmp_path / "b", config(seeds=[1], device="cuda"))
    assert refused(a, b, tmp_path).splitlines()[1:] == ['  device: "cpu" in A, "cuda" in B [--allow device]']
    assert merge([read_set("A", a), read_set("B", b)], tmp_path / "out", ["device"])["notes"] == [
        'differs: device: "cpu" in A, "cuda" in B'
    ]


def test_another_extractor_is_refused_unless_allowed(tmp_path):
    a, b = make_results(tmp_path / "a", config(seeds=[0])), make_results(tmp_path / "b", config(seeds=[1]), extractor="bbbb")
    (line,) = refused(a, b, tmp_path).splitlines()[1:]
    assert line.endswith("features, aaaa) in A, classifier(digits, 64 features, bbbb) in B [--allow extractor]")
    merge([read_set("A", a), read_set("B", b)], tmp_path / "out", ["extractor"])


FLOORS = {"frechet_floor": 4.2, "kid_floor": -28.5, "recall_floor": 0.9, "classifier_accuracy": 0.98}


def with_floors(folder: Path, seed: int, extractor: str, factor: float = 1.0) -> ResultSet:
    """A set whose classifier measured the data themselves, in numbers that are off by a factor."""
    found = read_set(folder.name, make_results(folder, config(seeds=[seed]), extractor=extractor))
    name = f"classifier(digits, 64 features, {extractor})"
    rows = [
        Row("digits", "data", 0, "features", metric, factor * value, "", features=name, n=50) for metric, value in FLOORS.items()
    ]
    found.tables["records.parquet"] = pa.concat_tables([found.tables["records.parquet"], table(map(asdict, rows), SCHEMA)])
    return found


def test_a_classifier_that_another_machine_trained_again_is_one_extractor(tmp_path):
    """Its weights have another hash, but it measures the same of the same data, up to rounding."""
    a, b = with_floors(tmp_path / "a", 0, "aaaa"), with_floors(tmp_path / "b", 1, "bbbb", 1 + 2e-5)
    found = merge([a, b], tmp_path / "out")
    assert found["notes"] == [
        "classifier(digits, 64 features, bbbb) of b agrees to rounding with classifier(digits, 64 features, aaaa) of a "
        "on the data, and is called that"
    ]
    rows = read_table(tmp_path / "out" / "records.parquet").to_pylist()
    assert {row["features"] for row in rows if row["metric"] == "frechet"} == {"classifier(digits, 64 features, aaaa)"}
    assert {row["seed"] for row in rows if row["metric"] == "frechet"} == {0, 1}
    assert {row["metric"]: row["value"] for row in rows if row["metric"] in FLOORS} == FLOORS


def test_a_classifier_that_measures_something_else_stays_another_extractor(tmp_path):
    a, b = with_floors(tmp_path / "a", 0, "aaaa"), with_floors(tmp_path / "b", 1, "bbbb", 1 + 5e-4)
    with pytest.raises(DataError, match=r"aaaa\) in a, classifier\(digits, 64 features, bbbb\) in b \[--allow extractor\]"):
        merge([a, b], tmp_path / "out")


def off_by(delta: float) -> Any:
    """A change of the NLL of FM-OT on the board, seed 0; the trainings also took another time."""

    def change(row: Row) -> dict[str, Any]:
        if row.metric == "train_seconds":
            return {"value": 99.0, "device": "another", "threads": 7}
        mine = (row.dataset, row.method, row.seed, row.metric) == ("board", "fm_ot", 0, "nll")
        return {"value": row.value + delta} if mine and row.value is not None else {}

    return change


def test_rows_that_both_sets_have_are_merged_once_and_must_agree(whole_run, tmp_path):
    same = make_results(tmp_path / "same", config(), change=off_by(0.0))
    merge([read_set("A", whole_run), read_set("B", same)], tmp_path / "merged")
    assert read_table(tmp_path / "merged" / "records.parquet").equals(read_table(whole_run / "records.parquet"))

    other = make_results(tmp_path / "other", config(seeds=[0], methods=["fm_ot"]), change=off_by(0.5))
    mine = 2 * number_for("board", "fm_ot", 0)
    line = "records.parquet: dataset board, method fm_ot, seed 0, stage likelihood, metric nll, solver dopri5_shared, n 50: "
    line += f"value is {mine!r} in A, {mine + 0.5!r} in B"
    assert refused(whole_run, other, tmp_path).splitlines()[1:] == [f"  {line} [--allow rows]"]
    found = merge([read_set("A", whole_run), read_set("B", other)], tmp_path / "out", ["rows"])
    assert found["notes"] == [f"differs: {line}"]
    assert read_table(tmp_path / "out" / "records.parquet").equals(read_table(whole_run / "records.parquet"))


def test_a_diverged_row_conflicts_with_a_row_that_has_a_value(tmp_path):
    def lost(row: Row) -> dict[str, Any]:
        return {"status": "diverged", "value": None, "reason": "nan"} if row.metric == "nll" else {}

    a = make_results(tmp_path / "a", config(datasets=["board"], methods=["ddpm"], seeds=[0]))
    b = make_results(tmp_path / "b", config(datasets=["board"], methods=["ddpm"], seeds=[0]), change=lost)
    (line,) = refused(a, b, tmp_path).splitlines()[1:]
    assert "metric nll" in line and "in A, None in B [--allow rows]" in line


def test_different_samples_conflict(whole_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole_run, other)
    table = read_table(other / "previews.parquet")
    rows = table.to_pylist()
    rows[4]["values"] = [0.0, 0.5]
    write_table(other / "previews.parquet", pa.Table.from_pylist(rows, table.schema))
    (line,) = refused(whole_run, other, tmp_path).splitlines()[1:]
    assert re.search(
        r"previews.parquet: dataset board, method ddpm, seed 1, index 1: values is \[1\..*\] in A, \[0.0, 0.5\] in B", line
    )


def test_all_differences_are_listed_up_to_40(whole_run, tmp_path):
    shifted = make_results(
        tmp_path / "b", config(board__training={"iterations": 9}), code="f00d", change=lambda r: {"n": 7, "nfe": 5.0}
    )
    lines = refused(whole_run, shifted, tmp_path, "rows").splitlines()
    assert any("iterations" in line for line in lines) and any("code of" in line for line in lines)
    every = make_results(tmp_path / "c", config(), change=lambda r: {"value": -1.0} if r.metric != "train_seconds" else {})
    lines = refused(whole_run, every, tmp_path).splitlines()
    assert len(lines) == 42 and re.fullmatch(r"  and \d+ more", lines[-1])


def test_a_setting_with_two_values_conflicts_unless_it_is_compared_elsewhere(whole_run, tmp_path):
    path = tmp_path / "other" / "settings.parquet"
    shutil.copytree(whole_run, tmp_path / "other")
    table = read_table(path)
    rows = table.to_pylist()

    def write(**values: str) -> None:
        mine = {"dataset": "board", "method": "ddpm", "seed": 1}
        changed = [r | {"value": values[r["key"]]} if mine.items() <= r.items() and r["key"] in values else r for r in rows]
        assert changed != rows
        write_table(path, pa.Table.from_pylist(changed, table.schema))

    write(code_hash='"f00d"', spec_hash='"f00d"', data='"f00d"', device='"cuda"')
    merge([read_set("A", whole_run), read_set("B", tmp_path / "other")], tmp_path / "merged")
    assert read_table(tmp_path / "merged" / "settings.parquet").equals(table)
    write(parameters="4321")
    (line,) = refused(whole_run, tmp_path / "other", tmp_path).splitlines()[1:]
    wanted = "settings.parquet: dataset board, method ddpm, seed 1, key parameters: value is '1234' in A, '4321' in B"
    assert line == f"  {wanted} [--allow rows]"


def test_theory_with_other_rounding_merges_and_keeps_the_first_sets_numbers(tmp_path):
    a, b = halves(tmp_path, {"seeds": [0], "datasets": ["board"]}, {"seeds": [1], "datasets": ["board"]})

    def rows(delta: float) -> list[dict[str, Any]]:
        common = {"figure": "fig02", "t": 0.5, "x": 0.0, "y": 1.0, "v": 0.25}
        return [common | {"panel": "p", "u": 1.0 + delta}, common | {"panel": "q", "u": -2.0}]

    for folder, delta in ((a, 0.0), (b, 1e-9)):
        write_table(folder / "theory" / "fields.parquet", table(rows(delta), THEORY["fields"]))
    merge([read_set("A", a), read_set("B", b)], tmp_path / "out")
    assert read_table(tmp_path / "out" / "theory" / "fields.parquet")["u"].to_pylist() == [1.0, -2.0]


def test_a_manifest_that_differs_from_the_description_is_refused(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "set")
    path = tmp_path / "set" / "data" / "board" / "manifest.json"
    splits = content_of(path)["splits"]
    splits["test"]["sha256"] = "0" * 64
    change_document(path, splits=splits)
    with pytest.raises(DataError, match=r"does not describe the data that benchmark.json names; run snakemake"):
        read_set("A", tmp_path / "set")


def test_a_flipped_bit_in_any_file_of_a_set_is_refused_with_its_name(whole_run, tmp_path):
    results = tmp_path / "set"
    shutil.copytree(whole_run, results)
    write_table(results / "theory" / "fields.parquet", THEORY["fields"].empty_table())
    files = [path for name, path in members(results).items() if isinstance(path, Path) and name.endswith((".parquet", ".json"))]
    assert len(files) >= 9 and {path.suffix for path in files} == {".json", ".parquet"}
    for path in files:
        good = path.read_bytes()
        for bit in (8, 4 * len(good), 8 * len(good) - 1):
            flip(path, bit)
            for read in (lambda: read_set("A", results), lambda: export(results, tmp_path / "set.zip")):
                with pytest.raises(DataError, match=rf"{path.name} cannot be used: .*checksum.*run snakemake"):
                    read()
            path.write_bytes(good)
    read_set("A", results)


def test_invalid_merges_are_refused(whole_run, tmp_path):
    one = read_set("A", whole_run)
    with pytest.raises(DataError, match="takes two result sets or more"):
        merge([one], tmp_path / "out")
    with pytest.raises(DataError, match=r"--allow everything: known are code \("):
        merge([one, one], tmp_path / "out", ["everything"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("mine")
    with pytest.raises(DataError, match="is not an empty folder"):
        merge([one, one], tmp_path / "out")
