"""The stage `check`: combinations that cannot work are errors before any training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_benchmark import METHODS, VALUES, Bench, settings_with
from user_code import command, tall_images

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import canonical, settings_hash
from fmbench.config.reading import parse
from fmbench.errors import ConfigError
from fmbench.flow.solvers.grids import GRIDS
from fmbench.stages import check
from fmbench.store.files import read_json
from fmbench.system.progress import Console


def checked(bench: Bench, tmp_path: Path, **changes: Any) -> Config:
    values = json.loads(json.dumps(VALUES)) | changes
    config = parse(values)
    data = {d: bench.results / "data" / d for d in config.datasets}
    check.run(specs.check(config), data, tmp_path / "checked.json", Console("check", "none"))
    return config


def test_the_check_counts_parameters(bench):
    values = read_json(bench.results / "checked.json")
    assert values["key"] == settings_hash(specs.check(bench.config))
    assert values["methods"] == METHODS
    for dataset in bench.config.datasets:
        expected = bench.row("train", dataset, "fm_ot", "parameters")["value"]
        assert values["parameters"][dataset] == expected


@pytest.mark.parametrize(
    ("method", "fragments"),
    [
        (
            {"path": "ot", "prediction": "velocity", "weighting": "likelihood"},
            ["the loss weight is not finite at an end of the interval", "narrow it with t_min and t_max"],
        ),
        ({"path": {"name": "ot", "sigma_max": 1.0}, "prediction": "v"}, ["path 'ot' does not take the parameters", "sigma_max"]),
        ({"path": {"name": "ot", "sigma_min": 2.0}, "prediction": "velocity"}, ["sigma_min must be in [0, 1), not 2.0"]),
        ({"path": "vp", "prediction": "score", "t_max": 1.5}, ["[0.0, 1.5] is not within the path's"]),
        ({"path": "ot", "prediction": "velocity", "time": "log_snr"}, ["the density of t"]),
        ({"path": "no_such_module:P", "prediction": "velocity"}, ["path 'no_such_module:P' cannot be imported"]),
        *(
            (
                {"path": path, "oracle": {"bandwidth": 0.0}},
                ["field of a finite set is infinite at t = 1", "give the oracle a bandwidth, or a t_max before that"],
            )
            for path in ("cosine_vp", {"name": "ot", "sigma_min": 0.0})
        ),
        ({"path": "ot", "prediction": "x", "coupling": "no_such_module:C"}, ["coupling 'no_such_module:C' cannot be imported"]),
        (
            {"path": "ot", "prediction": "x", "coupling": {"name": "sinkhorn", "regularisation": 0}},
            ["regularisation must be a positive number, not 0"],
        ),
        ({"path": {"name": "ve", "sigma_maxx": 9.0}, "oracle": {}}, ["path 've' does not take the parameters", "sigma_maxx"]),
    ],
)
def test_an_impossible_method_is_an_error(bench, tmp_path, method, fragments):
    with pytest.raises(ConfigError) as caught:
        checked(bench, tmp_path, methods=["fm_ot", {"name": "odd", **method}])
    for fragment in ("methods.odd: ", *fragments):
        assert fragment in str(caught.value)
    assert not (tmp_path / "checked.json").exists()


def test_a_grid_that_a_path_does_not_have_is_found_before_any_training(bench, tmp_path, monkeypatch):
    """The check builds every grid of the sweep for every method; the uniform grid always exists."""
    made = []

    def grid(path: Any, t_min: float, t_max: float, steps: int) -> None:
        made.append((type(path).__name__, t_min, t_max, steps))
        if steps == 6:
            raise ValueError("6 steps are too many for this grid")

    monkeypatch.setitem(GRIDS, "karras", grid)  # type: ignore[arg-type]
    for nfe in (8, 12):
        evaluation = {"sweep": {"solvers": ["euler", {"name": "heun", "grid": "karras", "nfe": [nfe]}]}}
        settings = settings_with("board", evaluation=evaluation)
        arguments: dict[str, Any] = {"methods": ["ddpm", "oracle_ot"], "datasets": ["board"], "settings": settings}
        if nfe == 8:
            checked(bench, tmp_path, **arguments)
            continue
        with pytest.raises(ConfigError) as caught:
            checked(bench, tmp_path / "wrong", **arguments)
        for method in ("ddpm", "oracle_ot"):
            assert f"methods.{method}: 6 steps are too many for this grid" in str(caught.value)
    vp, ot = ("VariancePreserving", 0.0, 1 - 1e-5), ("OptimalTransport", 0.0, 1.0)
    assert made == [(*vp, 4), (*ot, 4), (*vp, 6), (*ot, 6)]


@pytest.mark.parametrize(
    "method",
    [
        {"path": "cosine_vp", "t_max": 0.99, "oracle": {"bandwidth": 0.0}},
        {"path": "cosine_vp", "oracle": {"bandwidth": 1e-3}},
        {"path": "vp", "oracle": {"bandwidth": 0.0}},
        {"path": "ve", "oracle": {"bandwidth": 0.0}},
        {"path": "ot", "oracle": {}},
    ],
)
def test_a_possible_oracle_passes(bench, tmp_path, method):
    """With a remedy that the error names; or without one, if noise is left at the end of the path."""
    checked(bench, tmp_path, methods=[{"name": "odd", **method}])
    assert read_json(tmp_path / "checked.json")["methods"] == ["odd"]


@pytest.mark.parametrize(
    ("dataset", "network", "fragments"),
    [
        ("board", {"kind": "unet"}, ["a U-Net works on images of shape (C, H, W), not on (2,)", "'mlp' for points"]),
        ("tall", {"kind": "mlp"}, ["an MLP works on points of shape (D,), not on (3, 6, 4)", "'unet' for images"]),
        ("board", {"kind": "user_code:Lines", "parameters": {"bais": True}}, ["does not take the parameters", "bais"]),
        ("board", {"kind": "user_code:NoSuch"}, ["network 'user_code:NoSuch' cannot be imported"]),
        ("board", {"kind": "user_code:narrow"}, ["with method fm_ot"]),
        ("tall", {"kind": "unet", "channels": 14, "channels_multiple": [1], "head_channels": 4}, ["14 channels", "heads of 4"]),
    ],
)
def test_an_impossible_network_is_an_error(bench, tmp_path, dataset, network, fragments):
    with pytest.raises(ConfigError) as caught:
        checked(bench, tmp_path, settings=settings_with(dataset, network=network))
    for fragment in (f"settings.{dataset}.network", *fragments):
        assert fragment in str(caught.value)


def test_three_levels_on_images_of_6_by_6(tmp_path):
    data = {"source": "user_code:tall_images", "parameters": {"height": 6, "width": 6}}
    network = {"kind": "unet", "channels": 8, "channels_multiple": [1, 2, 2]}
    settings = settings_with("tall", data=data, network=network)
    config = parse(VALUES | {"settings": settings, "datasets": ["tall"]})
    command("prepare", "--spec", canonical(specs.prepare(config, "tall")), "--out", tmp_path / "tall")
    with pytest.raises(ConfigError, match=r"settings\.tall\.network: 3 levels halve .* divisible by 4, not 6 x 6"):
        check.run(specs.check(config), {"tall": tmp_path / "tall"}, tmp_path / "checked.json", Console("check", "none"))


def test_dotted_names_are_looked_up_before_the_shape_of_samples_is_known(tmp_path, capsys):
    """A message names what is not checked yet."""

    def check_of(**changes: Any) -> None:
        config = parse(VALUES | {"settings": settings_with("tall", **changes), "datasets": ["tall"]})
        check.run(specs.check(config), {"tall": tmp_path / "nowhere"}, tmp_path / "checked.json", Console("check", "lines"))

    source = {"source": "user_code:tall_images"}
    check_of(data=source, network={"kind": "user_code:Lines"})
    assert "settings.tall.network is tried once its data are prepared" in capsys.readouterr().err
    features = {"extractor": "classifier", "more_extractors": [{"extractor": "user_code:NO_FACTORY"}]}
    with pytest.raises(ConfigError) as caught:
        check_of(data={"source": "user_code:nothing"}, network={"kind": "user_code:NoNet"}, evaluation={"features": features})
    for line in ("tall.data: data set 'user_code:nothing'", "tall.network: network 'user_code:NoNet'"):
        assert f"settings.{line} cannot be imported" in str(caught.value)
    assert "settings.tall.evaluation.features: extractor 'user_code:NO_FACTORY'" in str(caught.value)


def test_a_network_whose_output_would_broadcast(bench, tmp_path):
    with pytest.raises(ConfigError, match="shape"):
        checked(bench, tmp_path, settings=settings_with("board", network={"kind": "user_code:Mean"}))


@pytest.mark.parametrize("labels", [None, 0, 3], ids=["none", "one class", "the fourth alone"])
def test_labels_that_cannot_train_a_classifier_are_an_error(tmp_path, labels):
    raw = tall_images()
    np.savez(tmp_path / "a.npz", train=raw.train, test=raw.test, y=np.full(60, labels or 0), z=np.full(20, labels or 0))
    parameters = {"path": str(tmp_path / "a.npz")} | ({} if labels is None else {"train_labels": "y", "test_labels": "z"})
    data = {"source": "array", "parameters": parameters}
    config = parse(VALUES | {"settings": settings_with("tall", data=data), "datasets": ["tall"]})
    command("prepare", "--spec", canonical(specs.prepare(config, "tall")), "--out", tmp_path / "tall")
    what = "the images have no labels" if labels is None else "the training images are of one class only"
    with pytest.raises(ConfigError, match=f"tall.data: {what}, .*; choose another extractor under evaluation.features"):
        check.run(specs.check(config), {"tall": tmp_path / "tall"}, tmp_path / "checked.json", Console("check", "none"))
    spec = canonical(specs.features(config, "tall"))
    said = command("features", "--spec", spec, "--data", tmp_path / "tall", "--out", tmp_path / "features")
    assert (
        said.code == 3
        and f"tall: {what}, so the extractor classifier cannot be trained" in said.err
        and not (tmp_path / "features").exists()
    )


@pytest.mark.parametrize(("layout", "axes"), [("CHW", (60, 2, 6, 4)), ("HWC", (60, 6, 4, 2)), ("HW", (60, 6, 4))])
@pytest.mark.parametrize("extractor", ["inception", "user_code:colours", "user_code:any_channels", "classifier"])
def test_channels_that_an_extractor_does_not_take_are_an_error_before_the_data_are_prepared(tmp_path, layout, axes, extractor):
    np.savez(tmp_path / "a.npz", train=np.zeros(axes, np.uint8), test=np.zeros(axes, np.uint8))
    data = {"source": "array", "parameters": {"path": str(tmp_path / "a.npz"), "layout": layout}}
    features = {"extractor": "classifier", "more_extractors": [] if extractor == "classifier" else [{"extractor": extractor}]}
    settings = settings_with("tall", data=data, evaluation=VALUES["settings"]["tall"]["evaluation"] | {"features": features})
    config = parse(VALUES | {"settings": settings, "datasets": ["tall"]})
    found = check.check_data_set(specs.check(config)["datasets"]["tall"], tmp_path / "nowhere", [])
    assert found.parameters and not found.complete  # the network is tried, and the labels are looked at later
    said = [text for text in found.problems if extractor in text]
    if layout == "HW" or extractor in ("user_code:any_channels", "classifier"):
        assert said == [] or (extractor == "inception" and "of 1 or 3 channels" not in said[0])  # its weights may be missing
    elif extractor == "inception":
        assert "inception takes images of 1 or 3 channels, not of 2; choose extractor: classifier" in said[0]
    else:
        assert "user_code:colours cannot be used: images must be uint8 of shape (B, 1 or 3, H, W)" in said[0]


def test_warnings_of_the_preparation_are_notes_of_the_check(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", train=1e5 + np.arange(60.0).reshape(30, 2), test=1e5 + np.arange(60.0).reshape(30, 2))
    data = {"source": "array", "parameters": {"path": str(tmp_path / "a.npz")}}
    config = parse(VALUES | {"settings": settings_with("board", data=data), "datasets": ["board"]})
    command("prepare", "--spec", canonical(specs.prepare(config, "board")), "--out", tmp_path / "board")
    check.run(specs.check(config), {"board": tmp_path / "board"}, tmp_path / "checked.json", Console("check", "lines"))
    assert "note: settings.board.data: train: in the network's units, column" in capsys.readouterr().err


def test_a_plug_in_network_passes_the_check(bench, tmp_path):
    network = {"kind": "user_code:Lines", "parameters": {"bias": False}}
    checked(bench, tmp_path, settings=settings_with("tall", network=network))
    assert read_json(tmp_path / "checked.json")["parameters"]["tall"] == 72 * 73


def test_all_errors_are_reported_at_once(bench, tmp_path):
    methods = [{"name": "odd", "path": "ot", "prediction": "velocity", "weighting": "likelihood"}, "fm_ot"]
    with pytest.raises(ConfigError) as caught:
        checked(bench, tmp_path, methods=methods, settings=settings_with("board", network={"kind": "unet"}))
    assert "methods.odd: " in str(caught.value) and "settings.board.network: " in str(caught.value)


def test_attention_at_a_missing_level_is_reported():
    settings: dict[str, Any] = {"kind": "unet", "channels_multiple": [1, 2], "attention_resolutions": [8, 16, 5]}
    assert check.unused_attention(settings, (1, 8, 8)) == (
        "attention_resolutions has 16, 5, but the heights of this network are 8, 4; there is no attention there"
    )
    assert check.unused_attention(settings | {"attention_resolutions": [8, 4]}, (1, 8, 8)) == ""
    assert check.unused_attention({"kind": "mlp"}, (2,)) == ""
