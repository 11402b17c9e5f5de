"""``fmbench doctor`` reports what this machine has and lacks, and changes nothing."""

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from user_code import command

from fmbench.config.reading import load, parse
from fmbench.config.specs import prepare
from fmbench.data import writer
from fmbench.data.sources import make
from fmbench.stages import doctor

ROOT = Path(__file__).parent.parent.parent


def config(tmp_path, **changes):
    board = {
        "data": {"source": "checkerboard", "parameters": {"train": 100, "test": 20}},
        "network": {"kind": "mlp", "width": 8, "depth": 1},
    }
    values = {"results_dir": str(tmp_path / "results"), "datasets": ["board"], "methods": ["fm_ot"], "settings": {"board": board}}
    return parse(values | changes)


def by_what(findings):
    return {f.what: f for f in findings}


def test_a_config_on_built_in_data_can_run(tmp_path):
    found = by_what(doctor.check(config(tmp_path)))
    assert {f.level for f in found.values()} == {"ok"}
    assert found["data board"].detail == "not prepared yet; its files are here"
    assert not (tmp_path / "results").exists()


def test_prepared_data_are_counted_and_hashed(tmp_path):
    settings = config(tmp_path)
    folder = tmp_path / "results" / "data" / "board"
    spec = prepare(settings, "board")
    writer.write(make(spec["source"], spec["parameters"]), folder, spec)
    found = by_what(doctor.check(settings))["data board"].detail
    assert found in ("prepared: test 20, train 100, hashes match", "prepared: train 100, test 20, hashes match")
    array = np.load(folder / "train.npy")
    np.save(folder / "train.npy", array + 1)
    found = by_what(doctor.check(settings))["data board"]
    assert found.level == "LACKING" and "test.npy" not in found.detail
    assert f"not the files of the manifest: {folder / 'train.npy'}; delete {folder}" in found.detail


def test_data_prepared_with_other_settings_will_be_prepared_again(tmp_path):
    settings = config(tmp_path)
    spec = prepare(settings, "board") | {"parameters": {"train": 50, "test": 20}}
    writer.write(make(spec["source"], spec["parameters"]), tmp_path / "results" / "data" / "board", spec)
    found = by_what(doctor.check(settings))["data board"]
    assert found.level == "note" and "prepared with other settings" in found.detail


def test_missing_files_are_named_with_their_source(tmp_path, monkeypatch):
    monkeypatch.setenv("FMBENCH_DATA", str(tmp_path / "cache"))
    source = {"source": "imagenet_downsampled", "parameters": {"variant": "chrabaszcz2017"}}
    board = {"data": source, "network": {"kind": "unet", "channels": 8}}
    found = by_what(doctor.check(config(tmp_path, settings={"board": board})))["data board"]
    assert found.level == "LACKING" and "train_data_batch_1.npz" in found.detail and "https://" in found.detail
    assert not (tmp_path / "cache").exists()


def test_a_missing_gpu_is_lacking(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = by_what(doctor.check(config(tmp_path, device="cuda")))["device"]
    assert found.level == "LACKING" and "device: cpu" in found.detail


def test_a_full_disk_is_lacking(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    assert by_what(doctor.check(config(tmp_path)))["disk"].level == "LACKING"


def test_old_and_missing_packages_are_lacking(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["torch>=999", "no-such-package>=1", "numpy>=1", "x; extra == 'y'"]
    )
    found = doctor.packages()
    assert [f.level for f in found] == ["LACKING", "LACKING"]
    assert "pip install 'torch>=999'" in found[0].detail and "no-such-package is not installed" in found[1].detail


def test_missing_weights_are_a_note_and_wrong_weights_are_lacking(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (missing,) = doctor.weights()
    assert missing.level == "note" and "https://" in missing.detail
    path = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    (wrong,) = doctor.weights()
    assert wrong.level == "LACKING" and str(path) in wrong.detail


def images(tmp_path, features):
    digits = {"data": "digits", "network": {"kind": "unet", "channels": 8}, "evaluation": {"features": features}}
    return config(tmp_path, datasets=["digits"], settings={"digits": digits})


def test_the_extractors_of_a_config(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = [f for f in doctor.check(images(tmp_path, {})) if f.what == "extractor digits"]
    assert [(f.level, f.detail) for f in found] == [("ok", "classifier: trained in the DAG")]
    chosen = {"extractor": "inception", "more_extractors": ["efficientnet_lite0", "user_code:colours"]}
    found = [f for f in doctor.check(images(tmp_path, chosen)) if f.what == "extractor digits"]
    assert [f.level for f in found] == ["LACKING", "ok", "note"]
    assert "pt_inception-2015-12-05-6726825d.pth are missing; download https://" in found[0].detail
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("efficientnet_lite_") else find(name))
    (lacking,) = [f for f in doctor.check(images(tmp_path, {"extractor": "efficientnet_lite0"})) if f.what == "extractor digits"]
    assert lacking.level == "LACKING" and lacking.detail.endswith("pip install efficientnet-lite-pytorch==0.1.0")


def test_points_have_no_extractor(tmp_path):
    assert not [f for f in doctor.check(config(tmp_path)) if f.what.startswith("extractor")]


def test_the_command_looks_at_the_config_and_every_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "datasets": ["board"],
        "methods": ["fm_ot"],
        "settings": {"board": {"data": "checkerboard", "network": {"kind": "mlp"}}},
    }
    Path("config.yaml").write_text(yaml.safe_dump(values))
    Path("configs").mkdir()
    Path("configs/good.yaml").write_text("seeds: [3]\n")
    Path("configs/bad.yaml").write_text("sedes: [3]\n")
    Path("configs/gpu.yaml").write_text("device: cuda\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = command("doctor")
    assert said.code == 0 and "configs/good.yaml: can run here" in said.out and "configs/gpu.yaml: cannot run here" in said.out
    assert "sedes: unknown key" in said.out
    assert command("doctor", "--configfile", "config.yaml", "--configfile", "configs/gpu.yaml").code == 3


@pytest.mark.parametrize("preset", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_is_a_config(preset):
    load(str(ROOT / "config.yaml"), str(preset))
