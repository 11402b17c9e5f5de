"""The stage `train`: what it writes, and what a second or killed training does."""

import shutil
from typing import Any

import pytest
from pyarrow.parquet import read_table
from tiny_benchmark import MODEL_FILES, TRAINED

from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import plugins_in
from fmbench.store.codehash import stage_hash
from fmbench.store.files import read_json
from fmbench.store.provenance import versions


def test_a_training_writes_its_model_curve_and_rows(bench):
    folder = bench.folder("train", "board", "fm_ot")
    config, spec = read_json(folder / "config.json"), bench.spec("train", "board", "fm_ot")
    assert (config["spec"], config["spec_hash"]) == (spec, settings_hash(spec))
    assert (config["step"], config["reason"], config["shape"]) == (60, "", [2])
    curve = read_table(folder / "loss_curve.parquet").to_pylist()
    assert [entry["step"] for entry in curve] == [10, 20, 30, 40, 50, 60]
    assert curve[-1]["loss"] < curve[0]["loss"]
    values = {r["metric"]: r["value"] for r in bench.rows("train", "board", "fm_ot")}
    assert values["final_loss"] == curve[-1]["loss"]
    assert values["images_seen"] == 60 * 64
    assert values["parameters"] == sum(p.numel() for p in bench.network("board", "fm_ot").parameters())


def test_checkpoints_are_kept_by_settings_code_data_versions_and_device(bench):
    folders = {p.name for p in (bench.results / "checkpoints").iterdir()}
    expected = set()
    for dataset in bench.config.datasets:
        for method in TRAINED:
            spec = bench.spec("train", dataset, method)
            content = [entry["sha256"] for entry in bench.data(dataset).manifest["splits"].values()]
            code = stage_hash("train", plugins_in(spec))
            expected.add(f"{settings_hash(spec)}-{settings_hash([code, content, versions(), 'cpu'])}")
    assert folders == expected


def test_training_again_gives_the_same_bytes(spoilable, bench):
    folder = spoilable.folder("train", "board", "fm_ot")
    before = {name: (folder / name).read_bytes() for name in MODEL_FILES}
    shutil.rmtree(folder)
    shutil.rmtree(spoilable.results / "checkpoints")
    assert spoilable.run("train", "board", "fm_ot").code == 0
    assert {name: (folder / name).read_bytes() for name in before} == before
    # And the same as in the other results folder, whose methods and data sets are more.
    assert before["model.safetensors"] == (bench.folder("train", "board", "fm_ot") / "model.safetensors").read_bytes()


def test_a_killed_training_run_again_gives_the_same_bytes(spoilable, monkeypatch):
    from fmbench.training import loop

    folder = spoilable.folder("train", "board", "fm_ot")
    before = {name: (folder / name).read_bytes() for name in MODEL_FILES}
    shutil.rmtree(folder)
    shutil.rmtree(spoilable.results / "checkpoints")

    class Killed(Exception):
        pass

    def killed(step: int, *arguments: Any) -> float:
        if step == 37:
            raise Killed
        return original(step, *arguments)

    original = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", killed)
    with pytest.raises(Killed):
        spoilable.run("train", "board", "fm_ot")
    assert not folder.exists()
    monkeypatch.undo()
    said = spoilable.run("train", "board", "fm_ot")
    assert "resumed from the checkpoint at iteration 25" in said.err
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_second_process_with_the_same_training_stops(spoilable):
    from fmbench.store.checkpoint import CheckpointFolder

    (folder,) = (spoilable.results / "checkpoints").iterdir()
    with CheckpointFolder(folder):
        said = spoilable.run("train", "board", "fm_ot")
    assert said.code == 4
    assert "another process is training into" in said.err
