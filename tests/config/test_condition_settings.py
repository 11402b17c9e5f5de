"""The condition of a data set in a config: what is taken, what is refused, and whose hash it changes."""

from typing import get_args

import pytest
from config_values import BASE, changed, config_error

from fmbench.config import selections, specs
from fmbench.config.condition_settings import LowResolutionSettings, unfit_factor
from fmbench.config.hashing import settings_hash
from fmbench.config.reading import load, parse
from fmbench.config.written_out import written_out
from fmbench.data.resizing import FILTERS

HALF = {"low_resolution": {"factor": 2}}


def test_data_sets_without_a_condition_keep_their_hashes():
    """The hashes of the default config before there were conditions: its results are kept by them."""
    config = load("config.yaml")
    prepared = {d: settings_hash(specs.prepare(config, d)) for d in config.datasets}
    assert prepared == {"checkerboard": "302ec197be3ea92d", "digits": "2a3523586d19e46f"}
    models = {d: settings_hash(specs.train(config, d, "ddpm", 0)) for d in config.datasets}
    assert models == {"checkerboard": "32af3c80ae2f0577", "digits": "ee64c2df263f64db"}
    samples = {d: settings_hash(specs.evaluate("sample", config, d, "ddpm", 0)) for d in config.datasets}
    assert samples == {"checkerboard": "e2c3bb0393943c21", "digits": "0e791494e7b335d2"}
    assert settings_hash(written_out(parse(BASE))) == "ff14672faa56cee3"


def test_a_condition_changes_the_specs_of_its_data_set_alone():
    config = parse(changed(("settings.digits.condition", HALF)))
    assert specs.prepare(config, "digits")["condition"] == {"low_resolution": {"factor": 2, "filter": "bicubic"}}
    assert specs.check(config)["datasets"]["digits"]["condition"] == specs.prepare(config, "digits")["condition"]
    before = parse(BASE)
    for dataset, same in (("board", True), ("digits", False)):
        assert (specs.prepare(before, dataset) == specs.prepare(config, dataset)) == same
        for stage in ("sample", "likelihood"):
            found = [specs.evaluate(stage, c, dataset, "ddpm", 0) for c in (before, config)]
            assert (found[0] == found[1]) == same
    assert selections.super_resolved(before) == [] and selections.super_resolved(config) == ["digits"]
    labelled = parse(changed(("settings.digits.condition", "label")))
    assert specs.prepare(labelled, "digits")["condition"] == "label" and selections.super_resolved(labelled) == []


@pytest.mark.parametrize("condition", ["label", HALF, {"low_resolution": {"factor": 4, "filter": "area"}}, None])
def test_a_config_that_is_written_out_has_the_same_condition(condition):
    config = parse(changed(("settings.digits.condition", condition)))
    assert parse(written_out(config) | {"results_dir": "r"}).dataset("digits").condition == config.dataset("digits").condition
    assert ("condition" in written_out(config)["settings"]["digits"]) == (condition is not None)


def test_the_filters_are_those_of_the_resizing():
    assert get_args(LowResolutionSettings.model_fields["filter"].annotation) == tuple(FILTERS)


@pytest.mark.parametrize(
    ("dataset", "condition", "message"),
    [
        ("digits", "labels", "settings.digits.condition: unknown condition 'labels'; known: label, or {low_resolution:"),
        ("digits", {"label": 1}, "settings.digits.condition: unknown condition label; known"),
        ("digits", {"low_resolution": {}}, "settings.digits.condition.low_resolution.factor: this key is missing"),
        ("digits", {"low_resolution": {"factor": 1}}, "low_resolution.factor: must be at least 2, not 1"),
        ("digits", {"low_resolution": {"factor": 3}}, "8 x 8 pixels cannot be reduced by the factor 3; choose from 2, 4, 8"),
        ("digits", HALF | {"label": 1}, "unknown condition low_resolution, label"),
        ("board", HALF, "settings.board.condition: low_resolution is for images, and checkerboard has points; remove it"),
        ("board", "label", "settings.board.condition: checkerboard has no labels, so label cannot be the condition; remove it"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_when_the_config_is_read(dataset, condition, message):
    assert message in config_error(changed((f"settings.{dataset}.condition", condition)))


def test_an_mlp_takes_no_image_whatever_the_data_are():
    changes = ("settings.board.data", {"source": "array", "parameters": {"path": "x.npz"}}), ("settings.board.condition", HALF)
    assert "low_resolution is for images, and an MLP takes points; remove it" in config_error(changed(*changes))


def test_the_factors_that_fit_are_the_common_divisors():
    assert unfit_factor(4, 32, 64) == "" and unfit_factor(8, 4, 8).endswith("choose from 2, 4")
    assert unfit_factor(2, 7, 9).endswith("choose another size of the images")
