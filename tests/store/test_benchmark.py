"""The description of a results folder: benchmark.json."""

import json
import shutil
import sys

import pytest
from pyarrow.parquet import read_table
from result_sets import config, make_results
from sealed_files import content_of

from fmbench.config.hashing import settings_hash
from fmbench.config.reading import parse
from fmbench.config.written_out import written_out
from fmbench.errors import DataError
from fmbench.store.archive import export
from fmbench.store.benchmark import FILE, codes, config_of, read_benchmark, split_hashes
from fmbench.store.documents import write_document
from fmbench.store.files import read_json

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_the_description_has_the_config_with_its_defaults_and_the_origin_of_the_rows(whole_run):
    found = read_benchmark(whole_run)
    assert config_of(whole_run).model_dump(exclude={"results_dir", "tracking"}) == config().model_dump(
        exclude={"results_dir", "tracking"}
    )
    assert "results_dir" not in found["config"] and "tracking" not in found["config"]
    assert found["config"]["settings"]["board"]["training"]["ema_decay"] == 0.999
    assert found["hash"] == settings_hash(found["config"])
    assert found["commits"] == ["c0ffee"] and found["versions"] == [{"torch": "2.14"}] and found["devices"] == ["cpu"]
    assert found["rows"] == read_table(whole_run / "records.parquet").num_rows == 2 + 2 * 3 * 2 * 11
    for dataset in ("board", "digits"):
        assert found["data"][dataset] == split_hashes(read_json(whole_run / "data" / dataset / "manifest.json"))
        assert set(found["data"][dataset]) == {"test.sha256", "train.sha256"}
    assert found["code"] == {
        stage: [f"c0de-{'train' if stage == 'oracles' else stage}"]
        for stage in ("features", "likelihood", "oracles", "sample_quality", "sample", "sweep", "train")
    }


def test_the_description_does_not_depend_on_the_places_of_results_and_mlflow(whole_run, tmp_path):
    elsewhere = config(results_dir="elsewhere", tracking={"enabled": False})
    assert (make_results(tmp_path / "results", elsewhere) / FILE).read_bytes() == (whole_run / FILE).read_bytes()


def test_a_plugin_method_is_written_out_so_that_no_module_is_needed(monkeypatch):
    own = {"name": "mine", "use": "user_code:MY_METHOD", "training": {"iterations": 7}}
    with_module = config(methods=["ddpm", own])
    method = with_module.method("mine").resolve()
    values = json.loads(json.dumps(written_out(with_module)))
    monkeypatch.delitem(sys.modules, "user_code")
    monkeypatch.setattr(sys, "path", [])
    again = parse(values)
    assert again.method("mine").use is None
    assert again.method("mine").resolve() == method
    assert (method.path.name, method.prediction.name, method.weighting.name, method.t_min) == ("cosine_vp", "v", "velocity", 0.25)
    assert again.training("board", "mine").iterations == 7
    assert written_out(again) == values


def test_code_hashes_are_grouped_by_stage_oracle_and_plugin():
    mine = {"name": "mine", "path": "user_code:Slow", "prediction": "velocity"}
    rows = [
        {"stage": stage, "dataset": "board", "method": method, "code_hash": value}
        for stage, method, value in [
            ("train", "ddpm", "1"),
            ("train", "fm_ot", "1"),
            ("train", "oracle_ot", "2"),
            ("train", "mine", "3"),
            ("sweep", "ddpm", "4"),
            ("sweep", "oracle_ot", "4"),
            ("sweep", "mine", "5"),
            ("sweep", "mine", "6"),
            ("features", "", "7"),
        ]
    ]
    assert codes(config(methods=["ddpm", "fm_ot", "oracle_ot", mine]), rows) == {
        "features": ["7"],
        "oracles": ["2"],
        "sweep": ["4"],
        "sweep user_code:Slow": ["5", "6"],
        "train": ["1"],
        "train user_code:Slow": ["3"],
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v | {"format": 99}, "format 99, here 1"),
        (lambda v: v | {"config": v["config"] | {"device": "cuda"}}, "changed by hand"),
        (
            lambda v: {k: x for k, x in v.items() if k != "code"},
            r"not a Benchmark of this version .*\(code: Field required",
        ),
        (lambda v: {}, r"not a Benchmark of this version of fmbench \(format: Field required"),
        (lambda v: v | {"more": 1}, "not a description of this version"),
        (lambda v: v | {"merged": {}}, "merged: Input should be a valid list"),
        (lambda v: v | {"data": {"board": []}}, "data.board: Input should be a valid dictionary"),
        (lambda v: v | {"config": ["x"]}, "config: Input should be a valid dictionary"),
        (lambda v: v | {"config": v["config"] | {"methods": []}}, "config.methods: List should have at least 1 item"),
        (lambda v: v | {"config": v["config"] | {"methods": ["fm_ot"]}}, "config.methods.0: Input should be a valid dictionary"),
        (lambda v: v | {"config": v["config"] | {"seeds": 3}}, "config.seeds: Input should be a valid list"),
    ],
)
def test_an_invalid_description_is_refused(whole_run, tmp_path, spoil, message):
    write_document(tmp_path / FILE, spoil(content_of(whole_run / FILE)))
    with pytest.raises(DataError, match=message):
        read_benchmark(tmp_path)


def test_results_without_a_description_say_how_to_get_one(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "old")
    (tmp_path / "old" / FILE).unlink()
    with pytest.raises(DataError, match=rf"{FILE} is missing.*run snakemake once more.*nothing is trained again"):
        export(tmp_path / "old", tmp_path / "set.zip")
    assert not (tmp_path / "set.zip").exists()


def test_a_setting_that_this_version_does_not_know_is_named(whole_run, tmp_path):
    values = content_of(whole_run / FILE)
    values["config"]["of_the_future"] = 3
    write_document(tmp_path / FILE, values | {"hash": settings_hash(values["config"])})
    with pytest.raises(DataError, match=r"this version of fmbench does not take.*\n.*of_the_future: unknown key"):
        config_of(tmp_path)
