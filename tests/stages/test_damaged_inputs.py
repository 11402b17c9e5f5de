"""Outputs of earlier stages that are missing, truncated, or of something else."""

import shutil

import numpy as np
import pytest
from sealed_files import save_samples
from tiny_benchmark import CPU
from user_code import command

from fmbench.config.hashing import canonical
from fmbench.errors import DataError
from fmbench.stages.shared.models import load_model


@pytest.mark.parametrize("stage", ["sample", "likelihood", "sweep"])
@pytest.mark.parametrize(("kept", "message"), [(None, "are missing; rerun the training"), (100, "cannot be used")])
def test_weights_missing_or_truncated(spoilable, stage, kept, message):
    weights = spoilable.folder("train", "board", "fm_ot") / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink() if kept is None else weights.write_bytes(content[:kept])
    said = spoilable.run(stage, "board", "fm_ot")
    assert said.code == 3
    assert f"fmbench: error: the weights {weights}" in said.err and message in said.err
    assert "rerun the training" in said.err or "delete it and run snakemake again" in said.err


@pytest.mark.parametrize(("kept", "message"), [(None, "is missing; run the stage"), (40, "cannot be used: it has no checksum")])
def test_a_models_config_missing_or_truncated(spoilable, kept, message):
    path = spoilable.folder("train", "board", "fm_ot") / "config.json"
    content = path.read_bytes()
    path.unlink() if kept is None else path.write_bytes(content[:kept])
    said = spoilable.run("sample", "board", "fm_ot")
    assert said.code == 3
    assert str(path) in said.err and message in said.err


@pytest.mark.parametrize("kept", [None, 0, 100, -1])
def test_samples_missing_or_truncated(spoilable, kept):
    path = spoilable.folder("sample", "board", "fm_ot") / "samples.npy"
    content = path.read_bytes()
    path.unlink() if kept is None else path.write_bytes(content[:kept])
    said = spoilable.run("sample_quality", "board", "fm_ot")
    assert said.code == 3
    assert f"{path} {'is missing' if kept is None else 'cannot be used'}" in said.err and "snakemake" in said.err


def test_samples_of_another_shape(spoilable):
    path = spoilable.folder("sample", "board", "fm_ot") / "samples.npy"
    save_samples(path, np.zeros((30, 3), np.float32))
    said = spoilable.run("sample_quality", "board", "fm_ot")
    assert said.code == 3
    assert "holds samples of shape (3,), but the data set has (2,); rerun the stage sample" in said.err


def test_samples_that_are_not_finite_are_skipped_rows(spoilable):
    path = spoilable.folder("sample", "board", "fm_ot") / "samples.npy"
    samples = np.load(path)
    samples[[3, 7], 0] = np.nan, np.inf
    save_samples(path, samples)
    assert spoilable.run("sample_quality", "board", "fm_ot").code == 0
    for row in spoilable.rows("sample_quality", "board", "fm_ot"):
        assert (row["status"], row["reason"]) == ("skipped", "2 of 30 samples are not finite")


@pytest.mark.parametrize("stage", ["train", "sample", "sample_quality"])
def test_data_missing_or_truncated(spoilable, stage):
    data = spoilable.results / "data" / "board"
    for name in ("train.npy", "test.npy"):
        (data / name).write_bytes((data / name).read_bytes()[:150])
    if stage == "train":
        shutil.rmtree(spoilable.results / "checkpoints")
    said = spoilable.run(stage, "board", "fm_ot")
    if stage != "sample":  # sampling reads the manifest alone
        assert said.code == 3
        assert "is damaged or was changed" in said.err and f"delete {data} and run snakemake again" in said.err
    (data / "manifest.json").unlink()
    said = spoilable.run(stage, "board", "fm_ot")
    assert said.code == 3
    assert "manifest.json is missing; run the stage that makes it first" in said.err


def test_a_model_of_another_data_set_is_refused(bench, tmp_path):
    spec = bench.spec("sample", "tall", "fm_ot")
    folders = {"--data": bench.results / "data" / "tall", "--model": bench.folder("train", "board", "fm_ot"), "--out": tmp_path}
    said = command("sample", "--spec", canonical(spec), *(x for pair in folders.items() for x in pair))
    assert said.code == 3
    assert "was trained on samples of [2], the data set has [3, 6, 4]; retrain" in said.err


def test_a_truncated_checkpoint_is_reported_and_replaced(spoilable):
    folder = spoilable.folder("train", "board", "fm_ot")
    before = (folder / "model.safetensors").read_bytes()
    (checkpoints,) = (spoilable.results / "checkpoints").iterdir()
    newest = checkpoints / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:500])
    said = spoilable.run("train", "board", "fm_ot")
    assert said.code == 0
    assert f"{newest} cannot be used" in said.err and "resumed from the checkpoint at iteration 50" in said.err
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_model_of_another_spec_is_refused(bench):
    folder = bench.folder("models", "board", "fm_ot")
    with pytest.raises(DataError, match=r"holds fm_ot on board, seed 3 .* not the model of this job's spec"):
        load_model(folder, bench.data("board"), CPU, expected="0123456789abcdef")
