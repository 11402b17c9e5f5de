"""Training settings and a method's overrides."""

import json
import re

import pytest
from config_values import changed, config_error

from fmbench.config import selections, specs
from fmbench.config.hashing import canonical
from fmbench.config.methods import METHODS
from fmbench.config.reading import parse
from fmbench.config.training_settings import TrainingOverrides, TrainingSettings
from fmbench.config.written_out import written_out


@pytest.mark.parametrize("betas", [[1.5, 0.9], [0.9, 1.0], [-0.1, 0.9]])
def test_the_decays_of_adams_moments_are_below_one(betas):
    assert "settings.board.training.betas." in config_error(changed(("settings.board.training.betas", betas)))


@pytest.mark.parametrize("warmup", [100, 101])
def test_a_warmup_as_long_as_the_training_is_refused(warmup):
    message = config_error(changed(("settings.board.training.warmup_iterations", warmup)))
    assert f"settings.board.training: warmup_iterations ({warmup}) must be less than iterations (100)" in message


def test_a_warmup_too_long_for_an_override_names_the_method():
    message = config_error(changed(("methods.2.training", {"iterations": 10})))
    assert "warmup_iterations (10) must be less than iterations (10)" in message
    assert "mine" in message and "board" in message


def test_a_known_method_may_train_differently():
    config = parse(changed(("methods", [{"name": "ddpm", "training": {"learning_rate": 0.5}}, "fm_ot"])))
    assert config.method("ddpm").resolve() == METHODS["ddpm"]
    assert config.training("board", "ddpm").learning_rate == 0.5
    assert config.training("board", "fm_ot").learning_rate == 0.001
    assert selections.overridden(config) == {"ddpm": {"learning_rate": 0.5}}


def test_a_method_may_train_without_the_clipping_of_its_data_set():
    """null removes the clipping of the data set, also in the config that results hold."""
    clipped = ("settings.board.training.clip_norm", 1.0)
    config = parse(changed(clipped, ("methods.2.training", {"clip_norm": None})))
    for found in (config, parse(json.loads(canonical(written_out(config))))):
        assert [found.training("board", m).clip_norm for m in ("ddpm", "mine")] == [1.0, None]
        assert selections.overridden(found) == {"mine": {"clip_norm": None}}
    assert specs.train(config, "board", "mine", 0) != specs.train(parse(changed(clipped)), "board", "mine", 0)


@pytest.mark.parametrize("key", sorted(set(TrainingOverrides.model_fields) - {"clip_norm"}))
def test_null_is_not_an_override(key):
    message = config_error(changed(("methods.2.training", {key: None})))
    assert f"methods.2.training.{key}: null sets nothing; give a value, or leave the key out for that of the data set" in message


def test_a_null_clip_norm_counts_beside_every_other_override():
    own = {"iterations": 50, "batch_size": 8, "learning_rate": 0.1, "schedule": "constant", "warmup_iterations": 0}
    own |= {"ema_decay": 0.5, "clip_norm": None, "precision": "fp32", "accumulation": 1}
    config = parse(changed(("settings.board.training.clip_norm", 1.0), ("methods.2.training", own)))
    assert config.training("board", "mine").clip_norm is None


def test_overrides_leave_all_other_training_settings_alone():
    own = {"iterations": 50, "batch_size": 4, "schedule": "constant", "warmup_iterations": 0, "ema_decay": 0.5, "clip_norm": 1.0}
    config = parse(changed(("methods.2.training", own)))
    common, mine = config.training("board", "ddpm").model_dump(), config.training("board", "mine").model_dump()
    assert {k: v for k, v in mine.items() if common[k] != v} == own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10, "accumulation": 4}, r"batch_size \(10\) must be a multiple of accumulation \(4\)"),
        (
            {"more_ema_decays": [0.5, 0.999]},
            "more_ema_decays: 0.999 is already there, as ema_decay or twice in the list; remove it",
        ),
        ({"more_ema_decays": [0.5, 0.5]}, "more_ema_decays: 0.5 is already there, as ema_decay or twice in the list; remove it"),
        ({"precision": "fp64"}, "precision: .*'fp32', 'tf32', 'bf16' or 'fp16'"),
        ({"precision": "tf32"}, "training of ddpm on board: precision tf32 needs an NVIDIA GPU; with device cpu choose fp32"),
        ({"flips": True}, "training of ddpm on board: flips are for images, but checkerboard has points; set flips to false"),
    ],
)
def test_impossible_training_settings_are_refused(changes, message):
    found = config_error(changed(*((f"settings.board.training.{key}", value) for key, value in changes.items())))
    assert re.search(message, found), found


def test_a_batch_divides_into_processes_and_micro_batches():
    shared = [("processes", 4), ("settings.board.training.batch_size", 24)]
    message = config_error(changed(*shared, ("settings.board.training.accumulation", 4)))
    assert "training of ddpm on board: batch_size (24) must be a multiple of processes x accumulation (4 x 4)" in message
    message = config_error(changed(*shared, ("methods.2.training", {"accumulation": 12})))
    assert "training of mine on board: batch_size (24) must be a multiple of processes x accumulation (4 x 12)" in message
    assert parse(changed(*shared, ("settings.board.training.accumulation", 3))).processes == 4


def test_tf32_is_allowed_on_a_gpu_and_flips_for_images():
    config = parse(changed(("device", "cuda"), ("methods.2.training", {"precision": "tf32"})))
    assert [config.training("board", m).precision for m in ("fm_ot", "mine")] == ["fp32", "tf32"]
    assert parse(changed(("settings.digits.training", {"flips": True}))).training("digits", "ddpm").flips


@pytest.mark.parametrize(
    ("iterations", "snapshots", "steps"),
    [(100, 5, [20, 40, 60, 80, 100]), (30, 4, [7, 15, 22, 30]), (3, 5, [1, 2, 3]), (7, 1, [7]), (7, 0, [])],
)
def test_snapshots_are_evenly_spaced_and_the_last_is_the_end(iterations, snapshots, steps):
    assert TrainingSettings(iterations=iterations, snapshots=snapshots).snapshot_steps() == steps
