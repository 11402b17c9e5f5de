"""The stages `collect` and `gather`: the rows and tables of all models in one file each."""

import numpy as np
import pytest
from pyarrow.parquet import read_table
from tiny_benchmark import METHODS, SEED, TRAINED, VALUES
from user_code import command

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.stages import GATHERED
from fmbench.store.parquet import write_table
from fmbench.store.records import read_rows


def test_records_are_all_rows_of_all_files(bench):
    records = read_rows([bench.results / "records.parquet"]).to_pylist()
    found = sorted(p for p in bench.results.rglob("rows.parquet"))
    apart = {"dequantisation", "learning_curve", "few_step", "trajectory"}  # the main job does without these
    files = [p for p in found if not apart & set(p.parts)]
    assert len(files) == 2 + 2 * len(METHODS) * 5
    assert len(found) - len(files) == len(TRAINED) + 3 * 2 * len(METHODS)
    parts = [row for file in files for row in read_rows([file]).to_pylist()]
    assert sorted(map(str, records)) == sorted(map(str, parts))


def test_previews_of_all_models_and_of_the_data_are_collected(bench):
    rows = read_table(bench.results / "previews.parquet").to_pylist()
    counts: dict[tuple, int] = {}
    for row in rows:
        key = (row["dataset"], row["method"], row["seed"])
        counts[key] = counts.get(key, 0) + 1
    assert counts == {
        ("board", "fm_ot", SEED): 30,
        ("board", "mine", SEED): 30,
        ("board", "oracle_ot", SEED): 30,
        ("board", "near", SEED): 30,
        ("board", "data", None): 50,
        ("tall", "fm_ot", SEED): 16,
        ("tall", "mine", SEED): 16,
        ("tall", "oracle_ot", SEED): 16,
        ("tall", "near", SEED): 16,
        ("tall", "data", None): 14,
    }
    real = [r["values"] for r in rows if (r["dataset"], r["method"]) == ("tall", "data")]
    np.testing.assert_array_equal(np.array(real).reshape(14, 3, 6, 4), bench.data("tall").test)


@pytest.mark.parametrize("stage", ["models", "sample", "likelihood", "sweep", "sample_quality"])
def test_missing_or_truncated_rows_stop_collect(spoilable, stage):
    path = spoilable.results / stage / "board" / "fm_ot" / str(SEED) / "rows.parquet"
    path.write_bytes(path.read_bytes()[:200])
    said = spoilable.whole("collect", "--results", spoilable.results, "--tracking-uri", "off")
    assert said.code == 3
    assert f"{path} cannot be used: it has no checksum" in said.err
    path.unlink()
    said = spoilable.whole("collect", "--results", spoilable.results, "--tracking-uri", "off")
    assert said.code == 3
    assert f"{path} is missing" in said.err


def test_gathered_files_have_the_rows_of_all_models(bench):
    for kind, (stage, file) in GATHERED.items():
        gathered = read_table(bench.results / f"{kind}.parquet")
        methods = TRAINED if kind == "learning_curve" else METHODS
        parts = [read_table(bench.folder(stage, d, m) / file) for d in VALUES["datasets"] for m in methods]
        assert gathered.num_rows > 0 and gathered.to_pylist() == [row for part in parts for row in part.to_pylist()]


def test_a_file_with_other_columns_is_an_error(spoilable):
    path = spoilable.folder("trajectory", "board", "fm_ot") / "trajectory.parquet"
    write_table(path, read_table(path).drop_columns(["t"]))
    spec = canonical(specs.gather("trajectory", spoilable.config))
    said = command("gather", "--spec", spec, "--results", spoilable.results)
    assert said.code == 3 and str(path) in said.err and "it lacks the columns t" in said.err
