import copy
import dataclasses
import json
import re
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from torch import Tensor

import fmbench
from fmbench.config import names, specs
from fmbench.config.config import Config
from fmbench.config.evaluation_settings import SolverSettings, SweepSettings
from fmbench.config.hashing import canonical, settings_hash
from fmbench.config.method_settings import OracleSettings, method_from_values, method_values
from fmbench.config.methods import METHODS, ORACLE, ORACLES, Part
from fmbench.config.reading import load, parse
from fmbench.config.training_settings import TrainingOverrides, TrainingSettings
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError
from fmbench.flow.fields import CountingField
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import GRIDS, uniform_grid
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.report.figures.registry import FIGURES

ROOT = Path(fmbench.__file__).parent.parent
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))

BASE: dict[str, Any] = {
    "results_dir": "results",
    "seeds": [0, 1],
    "datasets": ["board", "digits"],
    "methods": ["ddpm", "fm_ot", {"name": "mine", "path": "cosine_vp", "prediction": "v"}],
    "settings": {
        "board": {
            "data": {"source": "checkerboard", "parameters": {"train": 100}},
            "network": {"kind": "mlp", "width": 8},
            "training": {"iterations": 100, "learning_rate": 0.001, "warmup_iterations": 10},
            "evaluation": {"sweep": {"nfe": [4, 8]}, "likelihood": {"n": 10}, "sample": {"n": 10}},
        },
        "digits": {"data": "digits", "network": {"kind": "unet", "channels": 8}},
    },
    "tracking": {"enabled": False},
}


def changed(*changes: tuple[str, Any], base: dict[str, Any] = BASE) -> dict[str, Any]:
    """``base`` with the values at dotted places set; a number is a place in a list."""
    values = copy.deepcopy(base)
    for place, value in changes:
        *way, last = (int(key) if key.isdigit() else key for key in place.split("."))
        here: Any = values
        for key in way:
            here = here[key] if isinstance(here, list) else here.setdefault(key, {})
        here[last] = value
    return values


def complaint(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(values)
    return str(caught.value)


# The files of the repository


def test_the_default_config_parses():
    config = load(str(ROOT / "config.yaml"))
    assert [m.name for m in config.methods] == list(names.METHODS)
    assert set(config.datasets) == {"checkerboard", "digits"}
    assert len(config.seeds) > 1


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_every_preset_parses_over_the_default(preset):
    config = load(str(ROOT / "config.yaml"), str(preset))
    for dataset in config.datasets:
        for method in config.methods:
            assert specs.train(config, dataset, method.name, config.seeds[0])["dataset"] == dataset


def test_the_smoke_preset_is_the_default_made_small():
    default, smoke = (load(str(ROOT / "config.yaml"), *more) for more in ([], [str(ROOT / "configs" / "smoke.yaml")]))
    assert smoke.datasets == default.datasets
    assert [m for m in default.methods if m in smoke.methods] == smoke.methods
    assert smoke.results_dir != default.results_dir
    for dataset in default.datasets:
        assert smoke.settings[dataset].training.iterations < default.settings[dataset].training.iterations / 5


def test_the_default_gives_every_method_the_same_training():
    config = load(str(ROOT / "config.yaml"))
    assert specs.overridden(config) == {}
    trained = [m.name for m in config.methods if m.name not in specs.oracles(config)]
    assert len(trained) == 5
    for dataset in config.datasets:
        jobs = [specs.train(config, dataset, method, 0) for method in trained]
        for part in ("training", "network"):
            assert all(job[part] == jobs[0][part] for job in jobs)


def test_later_files_are_laid_over_earlier_ones(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(BASE))
    second.write_text("seeds: [7]\nsettings: {board: {training: {learning_rate: 0.5}}}\n")
    config = load(str(first), str(second))
    assert config.seeds == [7]
    training = config.settings["board"].training
    assert (training.learning_rate, training.iterations, training.warmup_iterations) == (0.5, 100, 10)
    assert config.settings["digits"] == parse(BASE).settings["digits"]


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (None, ["there is no config file", "missing.yaml"]),
        ("seeds: [0", ["missing.yaml", "not valid YAML"]),
        ("- seeds", ["missing.yaml", "must hold a mapping, not a list"]),
        ("", ["datasets: this key is missing", "methods: this key is missing", "settings: this key is missing"]),
        ("[]", ["missing.yaml", "must hold a mapping, not a list"]),
        ("seeds: 2024-13-45", ["missing.yaml", "not valid YAML", "month must be in 1..12"]),
        ("seeds: [0]\ndevice: cpu\nseeds: [1]", ["missing.yaml: ", "'seeds'", "twice, in line 1 and in line 3", "keep one"]),
        ("tracking:\n  uri: a\n  'uri': b", ["missing.yaml: ", "'uri'", "twice, in line 2 and in line 3"]),
        ("tracking: {uri: a, uri: b}", ["missing.yaml: ", "'uri'", "twice, in line 1 and in line 1"]),
        ("device: cpu\nseeds: [010]", ["missing.yaml: 010 in line 2 is the number 8 to YAML", "write 8", "'010' in quotes"]),
        ("seeds: [1:30]", ["missing.yaml: 1:30 in line 1 is the number 90 to YAML", "base 60", "write 90"]),
        ("live_after: 1:30.5", ["missing.yaml: 1:30.5 in line 1 is the number 90.5 to YAML"]),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, fragments):
    path = tmp_path / "missing.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_folder_is_no_config_file(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path} is a folder, not a config file; name a file in it"):
        load(str(tmp_path))


def test_a_key_may_stand_over_one_that_is_merged_into_its_mapping(tmp_path):
    """YAML's own way to say a thing twice."""
    path = tmp_path / "config.yaml"
    own = "a: {deep: {more: &more {<<: &off {x: 1, v: 0, 'z': 0x10}, x: 2}}}\nb: {<<: *more, x: 3, w: 0}\n"
    path.write_text(own)
    off = {"x": 1, "v": 0, "z": 16}
    assert read(str(path)) == {"a": {"deep": {"more": off | {"x": 2}}}, "b": off | {"x": 3, "w": 0}}


def test_a_number_with_an_exponent_but_no_dot_is_a_string_in_yaml(tmp_path):
    """The trap itself: what the error explains is what YAML does."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(BASE).replace("learning_rate: 0.001", "learning_rate: 1e-4"))
    with pytest.raises(ConfigError, match=r"settings\.board\.training\.learning_rate: .*'1e-4'.*write 1\.0e-4"):
        load(str(path))
    path.write_text(path.read_text().replace("1e-4", "1.0e-4"))
    assert load(str(path)).settings["board"].training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("1e-4", "1.0e-4"),
        ("1.0e3", "1.0e+3"),
        ("2E3", "2.0e+3"),
        ("-.5e3", "-0.5e+3"),
        ("7.e2", "7.e+2"),
        ("+1e+1", "+1.0e+1"),
    ],
)
@pytest.mark.parametrize("place", ["settings.digits.network.max_frequency", "methods.2.path.sigma_max"])
def test_the_remedy_for_an_exponent_is_a_number_to_yaml(written, remedy, place):
    """Of a setting and of an open parameter alike."""
    assert isinstance(yaml.safe_load(written), str) and yaml.safe_load(remedy) == float(written)
    message = complaint(changed(("methods.2.path", {"name": "ve"}), (place, written)))
    assert f"{place}: the number '{written}' is written as a string: in YAML an exponent needs a dot" in message
    assert f"write {remedy}" in message


# Bad input: where it stands, what was found, what to do


@pytest.mark.parametrize(
    "place",
    [
        "seedz",
        "tracking.url",
        "settings.board.trainning",
        "settings.board.data.sauce",
        "settings.board.network.widht",
        "settings.digits.network.widht",
        "settings.board.training.lr",
        "settings.board.evaluation.swep",
        "settings.board.evaluation.sweep.nfes",
        "settings.board.evaluation.sample.tolerance",
        "settings.board.evaluation.likelihood.prob",
        "settings.board.evaluation.features.epoch",
        "methods.2.wieghting",
        "methods.2.training.betas",
    ],
)
def test_an_unknown_key_at_any_depth(place):
    assert f"{place}: unknown key" in complaint(changed(("methods.2.training", {}), (place, 1)))


@pytest.mark.parametrize(
    ("place", "value", "fragments"),
    [
        ("methods.0", "ddmp", ["methods.0: ", "unknown method 'ddmp'", "known: ddpm", "fm_ot", "package.module:MY_METHOD"]),
        ("methods.2.use", "ddmp", ["methods.2", "unknown method 'ddmp'", "known: ddpm", "package.module:MY_METHOD"]),
        ("datasets.1", "mnist", ["unknown data set mnist", "settings has board, digits", "Add an entry under settings"]),
        ("settings.board.data", "mnist", ["settings.board.data.source: ", "unknown data set 'mnist'", "known: checkerboard"]),
        ("settings.board.network.kind", "mpl", ["settings.board.network: ", "unknown network kind 'mpl'", "known: mlp, unet"]),
        ("methods.2.path", "pv", ["methods.2.path.name: ", "unknown path 'pv'", "known: ot, vp", "package.module:ATTRIBUTE"]),
        ("methods.2.prediction", "w", ["methods.2.prediction.name: ", "unknown prediction 'w'", "known: epsilon, x"]),
        ("methods.2.weighting", "hm", ["methods.2.weighting.name: ", "unknown weighting 'hm'", "known: uniform, epsilon"]),
        ("methods.2.time", "hm", ["methods.2.time.name: ", "unknown time distribution 'hm'", "known: uniform, log_snr"]),
        ("settings.board.evaluation.sweep.solvers", ["eulr"], ["board.evaluation.sweep", "unknown solver 'eulr'", "euler, mid"]),
        ("settings.board.evaluation.sweep.solvers", [{"name": "eulr", "nfe": [4]}], ["solvers.0.name", "unknown solver 'eulr'"]),
        ("settings.board.evaluation.sweep.reference_solver", "rk5", ["evaluation.sweep", "unknown solver 'rk5'", "known: euler"]),
    ],
)
def test_an_unknown_name_says_where_and_what_is_known(place, value, fragments):
    message = complaint(changed((place, value)))
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    "place",
    [
        "settings.board.training.learning_rate",
        "settings.board.training.iterations",
        "settings.board.training.ema_decay",
        "settings.digits.network.max_frequency",
        "settings.board.network.width",
        "settings.board.evaluation.sample.rtol",
        "settings.board.evaluation.sweep.nfe.0",
        "settings.board.evaluation.likelihood.n",
        "methods.2.training.learning_rate",
        "methods.2.t_max",
        "seeds.1",
    ],
)
def test_a_number_written_as_a_string(place):
    message = complaint(changed(("methods.2.training", {}), (place, "1e-4")))
    assert f"{place}: " in message
    assert "'1e-4' is written as a string" in message
    assert "write 1.0e-4" in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("methods.2.path", {"name": "ot", "sigma_min": "1e-4"}),
        ("methods.2.time", {"name": "logit_normal", "std": "1e-1"}),
        ("settings.board.data", {"source": "checkerboard", "parameters": {"train": "1e4"}}),
        ("methods.2.path", {"name": "ve", "sigmas": [{"max": "1.0e2"}]}),
    ],
)
def test_a_parameter_written_as_a_string(place, value):
    """The parameters of a part are open to any name, but a number is a number."""
    assert "is written as a string" in complaint(changed((place, value)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e3", "the number '1e3' is written as a string, but must be a whole number: write 1000"),
        ("10", "the number '10' is written as a string, but must be a whole number: write 10"),
        (1e3, "the number 1000.0 is written as a decimal, but must be a whole number: write 1000"),
    ],
)
@pytest.mark.parametrize("place", ["settings.board.training.iterations", "settings.board.evaluation.sample.n", "seeds.1"])
def test_a_whole_number_written_otherwise(place, value, message):
    found = complaint(changed((place, value)))
    assert f"{place}: {message}" in found and "1.0e" not in found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (date(2024, 1, 2), "2024-01-02 is a date, but a parameter must be text, a number"),
        ([{"since": date(2024, 1, 2)}], "put it in quotes if it is text"),
        ({"of": {1: "a"}}, "the key 1 is not text; put it in quotes"),
        (float("inf"), "inf is not a finite number"),
        ({"a"}, "is a set, but a parameter must be"),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "methods.2.path.own",
        "methods.2.time.own",
        "settings.board.data.parameters.own",
        "settings.board.network.parameters.own",
        "settings.digits.evaluation.features.options.own",
    ],
)
def test_a_parameter_is_of_a_type_of_json(place, value, message):
    parts = [("methods.2.path", {"name": "ve"}), ("methods.2.time", {"name": "uniform"})]
    more = [
        ("settings.board.network", {"kind": "user_code:Lines"}),
        ("settings.digits.evaluation.features.extractor", "user_code:E"),
    ]
    found = complaint(changed(*parts, *more, (place, value)))
    assert f"{place}: " in found and message in found
    plain = {"text": "2024-01-02", "list": [1, 0.5, True, None, {"deep": []}]}
    canonical(parse(changed(*parts, *more, (place, plain))).model_dump())


@pytest.mark.parametrize("nfe", [10, 6, 2, 1])
def test_an_nfe_that_a_solver_cannot_spend(nfe):
    message = complaint(changed(("settings.board.evaluation.sweep", {"solvers": ["euler", "rk4"], "nfe": [4, nfe]})))
    for fragment in ("settings.board.evaluation.sweep", "rk4 costs 4 evaluations a step", f"exactly {nfe}", "multiples of 4"):
        assert fragment in message


def test_a_solver_with_a_list_of_its_own():
    values = changed(("settings.board.evaluation.sweep", {"solvers": ["euler", {"name": "rk4", "nfe": [8]}], "nfe": [3, 10, 3]}))
    cells = [("euler", "uniform", 3), ("euler", "uniform", 10), ("rk4", "uniform", 8)]
    assert parse(values).settings["board"].evaluation.sweep.cells() == cells


def sweep_of(**sweep: Any) -> SweepSettings:
    return parse(changed(("settings.board.evaluation.sweep", sweep))).settings["board"].evaluation.sweep


def test_a_solver_on_several_grids_is_several_cells():
    """A name alone, a name written out and one on the uniform grid are the same; another grid is not, and its label says so."""
    solvers = [
        "euler",
        {"name": "euler"},
        {"name": "euler", "grid": "uniform", "nfe": [8]},
        {"name": "euler", "grid": "karras"},
        {"name": "midpoint", "grid": "log_snr", "nfe": [6]},
        "ddim",
    ]
    cells = sweep_of(solvers=solvers, nfe=[4, 8]).cells()
    assert [(cell.label, cell.nfe) for cell in cells] == [
        ("euler", 4),
        ("euler", 8),
        ("euler/karras", 4),
        ("euler/karras", 8),
        ("midpoint/log_snr", 6),
        ("ddim", 4),
        ("ddim", 8),
    ]
    assert cells[2] == ("euler", "karras", 4)


@pytest.mark.parametrize("name", names.STEP_COSTS)
@pytest.mark.parametrize("grid", names.GRIDS)
def test_every_solver_may_run_on_every_grid_at_multiples_of_its_cost(name, grid):
    cost = names.STEP_COSTS[name]
    (cell,) = sweep_of(solvers=[{"name": name, "grid": grid, "nfe": [12]}]).cells()
    assert cell == (name, grid, 12)
    if cost > 1:
        message = complaint(changed(("settings.board.evaluation.sweep.solvers", [{"name": name, "grid": grid, "nfe": [13]}])))
        assert f"{name} costs {cost} evaluations a step and cannot spend exactly 13" in message


@pytest.mark.parametrize(
    ("solver", "fragments"),
    [
        ({"name": "euler", "grid": "karas"}, ["sweep.solvers.0.grid", "'uniform', 'karras', 'log_snr' or 'cosine'"]),
        ({"name": "euler", "grids": "karras"}, ["sweep.solvers.0.grids: unknown key"]),
        ({"name": "euler", "nfe": []}, ["sweep.solvers.0.nfe: List should have at least 1 item"]),
        ({"name": "euler", "nfe": [0]}, ["sweep.solvers.0.nfe.0: Input should be greater than or equal to 1"]),
        ({"grid": "karras"}, ["sweep.solvers.0.name: this key is missing"]),
        ({"name": "heun3"}, ["heun3 costs 3 evaluations a step and cannot spend exactly 4"]),
        ("euler/karras", ["unknown solver 'euler/karras'", "known: euler"]),
        ("user_code:Solver", ["sweep.solvers.0.name: unknown solver 'user_code:Solver'; known: euler"]),
    ],
)
def test_a_solver_of_a_sweep_that_cannot_be(solver, fragments):
    message = complaint(changed(("settings.board.evaluation.sweep.solvers", [solver])))
    assert "dotted" not in message  # nobody's own are taken
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("draws", [], "draws"),
        ("draws", [0], "draws.0"),
        ("draws", ["5"], "draws.0"),
        ("draws", 5, "draws"),
        ("draws", [1, 5, 5], ""),
        ("n", 1, "n"),
        ("probes", 1, "probes"),  # one shows no spread
        ("probe", "sparse", "probe"),
        ("mode", "backward", "mode"),
        ("exact_up_to", -1, "exact_up_to"),
        ("rtol", 0.0, "rtol"),
        ("rtol", "1e-5", "rtol"),
        ("draw", [1], "draw"),
    ],
)
def test_draws_that_cannot_be(key, value, place):
    message = complaint(changed((f"settings.digits.evaluation.dequantisation.{key}", value)))
    assert f"settings.digits.evaluation.dequantisation{'.' * bool(place)}{place}: " in message


def test_how_probes_are_applied_is_one_of_two_ways():
    for mode in ("reverse", "forward"):
        config = parse(changed(("settings.board.evaluation.likelihood.mode", mode)))
        assert config.settings["board"].evaluation.likelihood.mode == mode
    assert "likelihood.mode: " in complaint(changed(("settings.board.evaluation.likelihood.mode", "backward")))


def test_a_reference_that_cannot_be_spent():
    message = complaint(changed(("settings.board.evaluation.sweep", {"reference_solver": "rk4", "reference_nfe": 1001})))
    assert "rk4 costs 4 evaluations a step and cannot spend exactly 1001; make reference_nfe a multiple of 4" in message
    assert "solvers: [" not in message
    message = complaint(changed(("settings.board.evaluation.sweep.reference_solver", "user_code:Solver")))
    assert "sweep.reference_solver: unknown solver 'user_code:Solver'; known: euler" in message and "dotted" not in message


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("seeds", [0, 1, 0], "seed 0 is listed more than once"),
        ("datasets", ["board", "digits", "board"], "data set board is listed more than once"),
        ("methods", ["fm_ot", "ddpm", "fm_ot"], "method fm_ot is listed more than once"),
    ],
)
def test_nothing_is_listed_twice(place, value, message):
    assert message in complaint(changed((place, value)))


@pytest.mark.parametrize("betas", [[1.5, 0.9], [0.9, 1.0], [-0.1, 0.9]])
def test_decays_of_moments_are_below_one(betas):
    assert "settings.board.training.betas." in complaint(changed(("settings.board.training.betas", betas)))


@pytest.mark.parametrize("place", ["seeds", "datasets", "methods"])
def test_lists_that_must_not_be_empty(place):
    assert f"{place}: List should have at least 1 item" in complaint(changed((place, [])))


@pytest.mark.parametrize("key", ["nfe", "solvers"])
def test_a_sweep_over_nothing(key):
    message = complaint(changed((f"settings.board.evaluation.sweep.{key}", [])))
    assert f"settings.board.evaluation.sweep.{key}: List should have at least 1 item" in message


@pytest.mark.parametrize("warmup", [100, 101])
def test_a_warmup_as_long_as_the_training(warmup):
    message = complaint(changed(("settings.board.training.warmup_iterations", warmup)))
    assert f"settings.board.training: warmup_iterations ({warmup}) must be less than iterations (100)" in message


def test_a_warmup_too_long_for_one_methods_own_training_names_the_method():
    message = complaint(changed(("methods.2.training", {"iterations": 10})))
    assert "warmup_iterations (10) must be less than iterations (10)" in message
    assert "mine" in message and "board" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", "ot"),
        ("prediction", "x"),
        ("weighting", "epsilon"),
        ("time", "log_snr"),
        ("use", "fm_ot"),
        ("t_min", 0.1),
        ("t_max", 0.5),
        ("oracle", {}),
    ],
)
def test_a_method_of_the_paper_keeps_its_ingredients(key, value):
    message = complaint(changed(("methods", [{"name": "ddpm", key: value}])))
    for fragment in ("methods.0: ", "ddpm is a known method", key, "Give the variant a name of its own", "use: ddpm"):
        assert fragment in message


def test_a_method_of_the_paper_may_train_differently():
    config = parse(changed(("methods", [{"name": "ddpm", "training": {"learning_rate": 0.5}}, "fm_ot"])))
    assert config.method("ddpm").resolve() == METHODS["ddpm"]
    assert config.training("board", "ddpm").learning_rate == 0.5
    assert config.training("board", "fm_ot").learning_rate == 0.001
    assert specs.overridden(config) == {"ddpm": {"learning_rate": 0.5}}


def test_a_method_may_train_without_what_the_data_set_clips():
    """null is what the paper has, where the data set has something else; and results written down say so."""
    clipped = ("settings.board.training.clip_norm", 1.0)
    config = parse(changed(clipped, ("methods.2.training", {"clip_norm": None})))
    for found in (config, parse(json.loads(canonical(specs.describe(config))))):
        assert [found.training("board", m).clip_norm for m in ("ddpm", "mine")] == [1.0, None]
        assert specs.overridden(found) == {"mine": {"clip_norm": None}}
    assert specs.train(config, "board", "mine", 0) != specs.train(parse(changed(clipped)), "board", "mine", 0)


@pytest.mark.parametrize("key", sorted(set(TrainingOverrides.model_fields) - {"clip_norm"}))
def test_null_is_no_override(key):
    message = complaint(changed(("methods.2.training", {key: None})))
    assert f"methods.2.training.{key}: null sets nothing; give a value, or leave the key out for that of the data set" in message


def test_a_null_beside_every_other_setting_counts():
    own = {"iterations": 50, "batch_size": 8, "learning_rate": 0.1, "schedule": "constant", "warmup_iterations": 0}
    own |= {"ema_decay": 0.5, "clip_norm": None, "precision": "fp32", "accumulation": 1}
    config = parse(changed(("settings.board.training.clip_norm", 1.0), ("methods.2.training", own)))
    assert config.training("board", "mine").clip_norm is None


@pytest.mark.parametrize("given", [{"prediction": "v"}, {"path": "ot"}, {"weighting": "uniform"}])
def test_a_method_of_ones_own_needs_path_and_prediction(given):
    message = complaint(changed(("methods.2", {"name": "mine", **given})))
    for fragment in ("methods.2: ", "'mine'", "needs at least path and prediction", "use: package.module:MY_METHOD"):
        assert fragment in message


# Oracles


@pytest.mark.parametrize(
    ("oracle", "place", "fragment"),
    [
        ({"bandwidth": -0.1}, "oracle.bandwidth", "greater than or equal to 0"),
        ({"bandwidth": float("inf")}, "oracle.bandwidth", "finite"),
        ({"bandwidth": float("nan")}, "oracle.bandwidth", ""),
        ({"bandwidth": "1e-3"}, "oracle.bandwidth", "'1e-3' is written as a string"),
        ({"points": 0}, "oracle.points", "greater than or equal to 1"),
        ({"points": 10.5}, "oracle.points", "integer"),
        ({"points": "1e4"}, "oracle.points", "'1e4' is written as a string"),
        ({"pints": 10}, "oracle.pints", "unknown key"),
        ("ot", "oracle", ""),
    ],
)
def test_an_oracle_that_cannot_be(oracle, place, fragment):
    message = complaint(changed(("methods.2", {"name": "mine", "path": "ve", "oracle": oracle})))
    assert f"methods.2.{place}: " in message and fragment in message


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "mine", "path": "ve", "oracle": {}},
        {"name": "mine", "use": "oracle_ot"},
        {"name": "mine", "use": "fm_ot", "oracle": {}},
        {"name": "oracle_vp"},
    ],
)
@pytest.mark.parametrize(
    "more", [{"learning_rate": 0.5}, {"iterations": 7}, {"clip_norm": None}, "prediction", "weighting", "time"]
)
def test_what_only_a_training_has_is_refused_of_an_oracle(entry, more):
    """It would change nothing, and whoever wrote it thinks it does."""
    given = {"training": more} if isinstance(more, dict) else {more: {"prediction": "velocity"}.get(more, "uniform")}
    message = complaint(changed(("methods.2", entry | given)))
    named = next(iter(more)) if isinstance(more, dict) else more
    if entry["name"] == "oracle_vp" and isinstance(more, str):
        assert "oracle_vp is a known method" in message and f"its {more} cannot be changed" in message
    else:
        assert (
            f"methods.2: {entry['name']} is an oracle, which is not trained, so {named} would change nothing; remove it"
            in message
        )


@pytest.mark.parametrize("name", ["oracle_ot", "oracle_vp"])
def test_a_known_oracle_keeps_its_path_and_what_it_knows(name):
    for change in ({"path": "ve"}, {"oracle": {"points": 5}}, {"t_max": 0.9}):
        message = complaint(changed(("methods.2", {"name": name, **change})))
        assert f"{name} is a known method" in message and f"use: {name}" in message


def test_an_oracle_of_ones_own_needs_no_more_than_a_path():
    method = parse(changed(("methods.2", {"name": "mine", "path": {"name": "ve", "sigma_max": 9.0}, "oracle": {}}))).methods[2]
    resolved = method.resolve()
    assert resolved.path == Part("ve", {"sigma_max": 9.0}) and resolved.prediction == Part("velocity")
    assert resolved.oracle == METHODS["oracle_ot"].oracle
    message = complaint(changed(("methods.2", {"name": "mine", "oracle": {}})))
    assert "needs at least path and prediction" in message and "or path and oracle: {}" in message


def test_use_of_an_oracle_on_another_path():
    method = parse(changed(("methods.2", {"name": "mine", "use": "oracle_ot", "path": "ve"}))).methods[2].resolve()
    assert method == dataclasses.replace(METHODS["oracle_ot"], name="mine", path=Part("ve"))


def test_an_oracle_on_the_path_of_a_network_predicts_its_velocity():
    """Whatever the network would have predicted: the closed form is that of the field."""
    entry = {"name": "mine", "use": "ddpm", "oracle": {"points": 7, "bandwidth": 0.0}}
    method = parse(changed(("methods.2", entry))).methods[2].resolve()
    assert (method.path, method.prediction) == (Part("vp"), Part("velocity"))
    assert method.oracle == {"points": 7, "bandwidth": 0.0}


def test_no_known_oracle_shares_its_settings_with_another():
    """A change to one would be a change to all."""
    known = [METHODS[name].oracle for name in ORACLES]
    assert len({id(values) for values in (*known, ORACLE)}) == len(known) + 1
    assert OracleSettings().model_dump() == ORACLE


def test_no_method_is_called_data():
    """The previews and figures of the real data go by that name."""
    assert "methods.2" in complaint(changed(("methods.2.name", "data")))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seeds.0", -1),
        ("seeds.0", True),
        ("seeds.0", 0.5),
        ("settings.board.training.iterations", 0),
        ("settings.board.training.iterations", 10.5),
        ("settings.board.training.learning_rate", 0),
        ("settings.board.training.learning_rate", -0.1),
        ("settings.board.training.ema_decay", 1.0),
        ("settings.board.training.schedule", "cosine"),
        ("settings.board.network.time_embedding", "fourier"),
        ("settings.board.evaluation.likelihood.probe", "sparse"),
        ("settings.digits.network.channels_multiple", []),
        ("settings.digits.network.dropout", 1.0),
        ("methods.2.name", "with/slash"),
        ("methods.2.name", ""),
        ("results_dir", ""),
        ("methods", "ddpm"),
        ("settings.board", None),
    ],
)
def test_a_value_out_of_bounds_is_found_in_its_place(place, value):
    assert f"  {place}: " in complaint(changed((place, value)))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "place", ["settings.board.training.learning_rate", "settings.board.evaluation.sample.rtol", "methods.2.t_max"]
)
def test_no_setting_is_infinite(place, value):
    assert place in complaint(changed((place, value)))


@pytest.mark.parametrize("place", ["settings.board.evaluation.sample.n", "settings.board.evaluation.likelihood.n"])
def test_one_sample_has_no_spread(place):
    """With n = 1 a standard deviation is NaN, which would stand in the table as a divergence."""
    assert place in complaint(changed((place, 1)))


def test_a_missing_network_kind_says_so_alone():
    message = complaint(changed(("settings.board.network", {"width": 8})))
    assert "settings.board.network" in message and "kind" in message and "mlp" in message
    assert "width: unknown key" not in message


@pytest.mark.parametrize(
    ("network", "takes", "strange"),
    [
        ({"kind": "mlp"}, "mlp takes kind, width, depth", "channels, dropout"),
        ({"kind": "mynet:Net", "parameters": {"width": 8}}, "mynet:Net takes kind, parameters", "channels, dropout"),
    ],
)
def test_a_network_laid_over_one_of_another_kind(tmp_path, network, takes, strange):
    """One line, that says where the keys may be from."""
    files = [tmp_path / "default.yaml", tmp_path / "mine.yaml"]
    files[0].write_text(yaml.safe_dump(changed(("settings.digits.network.dropout", 0.5))))
    files[1].write_text(yaml.safe_dump({"settings": {"digits": {"network": network}}}))
    with pytest.raises(ConfigError) as caught:
        load(*map(str, files))
    _, line = str(caught.value).splitlines()
    assert (
        f"settings.digits.network: a network of kind {takes}" in line
        and f", but not {strange}. An earlier config file may have set these" in line
    )
    assert "files are merged key by key. If so, give your data set a name that no earlier file uses" in line


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"kind": "mynet:Net", "parametres": {}}, "network.parametres: unknown key"),
        ({"kind": "mynet:Net", "parameters": 3}, "network.parameters: "),
    ],
)
def test_a_network_of_ones_own_is_held_to_what_such_a_network_takes(network, message):
    found = complaint(changed(("settings.board.network", network)))
    assert f"settings.board.{message}" in found and len(found.splitlines()) == 2


@pytest.mark.parametrize(
    ("extractor", "options", "message"),
    [
        ("inception", {"weights": 3}, "options.weights must be the path of a file, as text, not 3"),
        ("efficientnet_lite0", {"size": "64"}, "options.size must be a whole number of pixels, 1 or more, not '64'"),
        ("efficientnet_lite0", {"size": 0}, "options.size must be a whole number of pixels, 1 or more, not 0"),
    ],
)
def test_options_of_an_extractor_that_cannot_be(extractor, options, message):
    part = {"extractor": extractor, "options": options}
    for place, value in (("", part), (".more_extractors.0", {"more_extractors": [part]})):
        assert f"features{place}: {message}" in complaint(changed(("settings.digits.evaluation.features", value)))


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("~/x", "write the path out, such as /home/me/x"),
        ("$HOME/x", "write the path out, such as /home/me/x"),
        ("of/$NO_SUCH_VARIABLE", "write the path out"),
        (" ", "has a space at an end or an invisible character, such as a line break; remove it"),
        ("results\n", "has a space at an end or an invisible character, such as a line break; remove it"),
        ("re\nsults", "has a space at an end or an invisible character, such as a line break; remove it"),
    ],
)
def test_a_results_folder_that_nobody_means(monkeypatch, path, remedy):
    monkeypatch.setenv("HOME", "/home/me")
    message = complaint(changed(("results_dir", path)))
    assert f"results_dir: {path!r} " in message and message.endswith(remedy)


def test_every_mistake_is_reported_at_once():
    message = complaint(changed(("settings.board.training.lr", 1), ("settings.digits.network.widht", 1), ("seeds", [])))
    assert len(message.splitlines()) == 4


def test_asking_for_what_the_config_does_not_have():
    config = parse(BASE)
    with pytest.raises(ConfigError, match="unknown method 'scoreflow'; this config has ddpm, fm_ot, mine"):
        config.method("scoreflow")
    with pytest.raises(ConfigError, match="unknown data set 'cifar10'; this config has board, digits"):
        config.dataset("cifar10")


# Names


def test_the_names_of_what_a_sweep_runs_are_the_solvers_and_grids_there_are():
    assert {**{name: tableau.stages for name, tableau in FIXED.items()}, "ddim": 1} == names.STEP_COSTS
    assert get_args(SolverSettings.model_fields["grid"].annotation) == names.GRIDS == tuple(GRIDS)


@pytest.mark.parametrize("name", names.STEP_COSTS)
@pytest.mark.parametrize("steps", [1, 4])
def test_the_cost_of_a_step_is_what_a_counting_field_sees(name, steps):
    path = OptimalTransport()
    field: CountingField[Tensor] = CountingField(lambda t, x: -x)
    x, grid = torch.ones(3, 2), uniform_grid(0.1, 0.9, steps)
    if name == "ddim":
        ddim(field, x, grid, path, VELOCITY)
    else:
        integrate(field, x, grid, FIXED[name])
    assert (field.calls, field.evaluations) == (steps * names.STEP_COSTS[name], 3 * steps * names.STEP_COSTS[name])


def test_the_names_of_methods_and_figures_are_what_there_is():
    assert tuple(METHODS) == names.METHODS
    assert tuple(name for name in names.METHODS if METHODS[name].oracle is not None) == ORACLES == ("oracle_ot", "oracle_vp")
    assert set(names.FIGURES) == set(FIGURES)


# Methods


def test_known_methods_resolve_to_the_registry():
    for name, method in METHODS.items():
        assert parse(changed(("methods", [name]))).method(name).resolve() == method


def test_an_inline_method_resolves():
    entry = {
        "name": "mine",
        "path": {"name": "ve", "sigma_max": 10.0},
        "prediction": "epsilon",
        "weighting": {"name": "epsilon"},
        "time": {"name": "logit_normal", "std": 0.5, "corrected": True},
        "t_min": 0.1,
        "t_max": 0.9,
    }
    method = parse(changed(("methods", [entry]))).method("mine").resolve()
    assert method.name == "mine"
    assert method.path == Part("ve", {"sigma_max": 10.0})
    assert (method.prediction, method.weighting) == (Part("epsilon"), Part("epsilon"))
    assert method.time == Part("logit_normal", {"std": 0.5, "corrected": True})
    assert (method.t_min, method.t_max) == (0.1, 0.9)


def test_what_an_inline_method_leaves_out_is_uniform():
    method = parse(BASE).method("mine").resolve()
    assert (method.weighting, method.time, method.t_min, method.t_max) == (Part("uniform"), Part("uniform"), None, None)


def test_use_starts_from_a_known_method():
    entry = {"name": "mine", "use": "scoreflow", "time": {"name": "log_snr", "corrected": True}}
    method = parse(changed(("methods", [entry]))).method("mine").resolve()
    assert method.name == "mine"
    assert (method.path, method.prediction, method.weighting) == (Part("vp"), Part("score"), Part("likelihood"))
    assert method.time == Part("log_snr", {"corrected": True})


def test_use_starts_from_a_dotted_method():
    method = parse(changed(("methods", [{"name": "mine", "use": "user_code:MY_METHOD", "t_max": 0.75}]))).method("mine").resolve()
    assert (method.name, method.path, method.weighting) == ("mine", Part("cosine_vp"), Part("velocity"))
    assert (method.t_min, method.t_max) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("use", "fragments"),
    [
        ("no_such_module:M", ["method 'no_such_module:M' cannot be imported", "No module named"]),
        ("user_code:NO_SUCH_METHOD", ["method 'user_code:NO_SUCH_METHOD' cannot be imported", "NO_SUCH_METHOD"]),
        ("math:pi", ["math:pi is a float, not a fmbench.config.methods.Method"]),
    ],
)
def test_use_of_what_is_no_method(use, fragments):
    with pytest.raises(ConfigError) as caught:
        parse(changed(("methods", [{"name": "mine", "use": use}]))).method("mine").resolve()
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_methods_overrides_leave_the_rest_of_the_training_alone():
    own = {"iterations": 50, "batch_size": 4, "schedule": "constant", "warmup_iterations": 0, "ema_decay": 0.5, "clip_norm": 1.0}
    config = parse(changed(("methods.2.training", own)))
    common, mine = config.training("board", "ddpm").model_dump(), config.training("board", "mine").model_dump()
    assert {k: v for k, v in mine.items() if common[k] != v} == own


@pytest.mark.parametrize("name", METHODS)
def test_method_values_round_trip(name):
    assert method_from_values(method_values(METHODS[name])) == METHODS[name]


# Specs: what a job depends on


EVALUATIONS = ("sample", "likelihood", "dequantisation", "sweep", "sample_quality", "learning_curve", "few_step", "trajectory")


def all_specs(config: Config) -> dict[tuple, str]:
    """Every spec of a config, canonical, by what it belongs to; but for what files that join others say they are of."""
    found = {(stage,): getattr(specs, stage)(config) for stage in ("check", "collect", "table1", "table4", "theory")}
    found |= {("gather", kind): specs.gather(kind, config) for kind in names.GATHERED}
    for dataset in config.datasets:
        found |= {("prepare", dataset): specs.prepare(config, dataset), ("features", dataset): specs.features(config, dataset)}
        for method in config.methods:
            for seed in config.seeds:
                found["train", dataset, method.name, seed] = specs.train(config, dataset, method.name, seed)
                for stage in EVALUATIONS:
                    found[stage, dataset, method.name, seed] = specs.evaluate(stage, config, dataset, method.name, seed)
    return {key: canonical({k: v for k, v in spec.items() if k not in ("of", "gathered")}) for key, spec in found.items()}


@pytest.mark.parametrize(
    ("change", "gathered"),
    [
        (
            ("settings.digits.training.iterations", 7),
            {"nfe", "learning_curve", "few_step", "few_step_previews", "trajectory", "dequantisation"},
        ),
        (("settings.digits.evaluation.learning_curve.rtol", 0.1), {"learning_curve"}),
        (("settings.digits.evaluation.dequantisation.draws", [1, 7]), {"dequantisation"}),
        (("settings.digits.evaluation.sweep.n", 7), set()),
    ],
)
def test_a_file_that_joins_others_is_of_what_they_are_of(change, gathered):
    before, after = (specs.collect(c)["gathered"] for c in (parse(BASE), parse(changed(change))))
    assert {name for name in before if before[name] != after[name]} == {f"{kind}.parquet" for kind in gathered}
    assert before == {f"{k}.parquet": specs.gather(k, parse(BASE))["of"] for k in names.GATHERED} | {
        "dequantisation.parquet": specs.table4(parse(BASE))["of"]
    }


def what_changes(*changes: tuple[str, Any]) -> set[tuple]:
    before, after = all_specs(parse(BASE)), all_specs(parse(changed(*changes)))
    assert before.keys() == after.keys()
    return {key for key in before if before[key] != after[key]}


def of_model(dataset: str | None = None, method: str | None = None) -> set[tuple]:
    """The train spec and all evaluations of the models that match."""
    return {key for key in all_specs(parse(BASE)) if len(key) == 4 and dataset in (None, key[1]) and method in (None, key[2])}


def test_a_spec_does_not_depend_on_the_order_of_keys():
    def reverse(values: Any) -> Any:
        return {k: reverse(values[k]) for k in reversed(values)} if isinstance(values, dict) else values

    assert all_specs(parse(reverse(BASE))) == all_specs(parse(BASE))
    assert settings_hash({"a": 1, "b": {"c": 2, "d": 3}}) == settings_hash({"b": {"d": 3, "c": 2}, "a": 1})


def test_a_default_written_out_changes_no_spec():
    assert what_changes(("settings.digits.training", {"iterations": 5000}), ("methods.2.weighting", "uniform")) == set()


@pytest.mark.parametrize(
    "change",
    [
        ("results_dir", "elsewhere"),
        ("tracking.enabled", True),
        ("tracking.uri", "http://localhost:5000"),
        ("tracking.live_after", 7.0),
    ],
)
def test_where_results_and_mirror_stand_changes_no_spec(change):
    assert what_changes(change) == set()


def test_one_methods_learning_rate_changes_that_method_alone():
    assert what_changes(("methods.2.training", {"learning_rate": 0.5})) == of_model(method="mine") | {("table1",)}


def test_the_common_learning_rate_of_a_data_set_changes_its_models_alone():
    assert what_changes(("settings.board.training.learning_rate", 0.5)) == of_model("board")


def test_an_ingredient_changes_its_method_and_the_check():
    assert what_changes(("methods.2.path", {"name": "ot", "sigma_min": 0.1})) == of_model(method="mine") | {
        ("check",),
        ("theory",),
    }


def test_the_data_changes_everything_on_it():
    change = ("settings.board.data.parameters.train", 200)
    assert what_changes(change) == of_model("board") | {("check",), ("prepare", "board"), ("features", "board")}


@pytest.mark.parametrize(
    ("place", "value", "stages"),
    [
        ("sweep.nfe", [4, 8, 12], {"sweep"}),
        ("likelihood.rtol", 0.1, {"likelihood"}),
        ("likelihood.mode", "forward", {"likelihood"}),
        ("sample.n", 11, {"sample", "sample_quality", "few_step"}),
        ("sweep.solvers", ["euler", "ddim"], {"sweep"}),
        ("dequantisation.probes", 7, {"dequantisation"}),
        ("learning_curve.rtol", 0.1, {"learning_curve"}),
        ("few_step.shown", 3, {"few_step"}),
        ("trajectory.times", [0.5, 1.0], {"trajectory"}),
    ],
)
def test_a_setting_of_an_evaluation_changes_what_uses_it(place, value, stages):
    changes = what_changes((f"settings.board.evaluation.{place}", value))
    assert changes == {key for key in of_model("board") if key[0] in stages}


def test_a_grid_of_a_sweep_is_checked_before_any_training():
    changes = what_changes(("settings.board.evaluation.sweep.solvers", [{"name": "heun", "grid": "karras", "nfe": [4, 8]}]))
    assert changes == {key for key in of_model("board") if key[0] == "sweep"} | {("check",)}
    solvers = ["euler", {"name": "heun", "grid": "karras", "nfe": [8, 4]}, {"name": "rk4", "grid": "karras", "nfe": [8]}]
    config = parse(changed(("settings.board.evaluation.sweep.solvers", solvers)))
    assert [tuple(grid) for grid in specs.check(config)["grids"]] == [("karras", 2), ("karras", 2), ("karras", 4)]


def test_the_settings_of_the_extractor_change_no_training():
    changes = what_changes(("settings.board.evaluation.features", {"epochs": 3}))
    assert changes == {("features", "board")} | {
        key for key in of_model("board") if key[0] in ("sample_quality", "learning_curve", "few_step")
    }


def test_another_seed_or_method_leaves_every_job_there_was_as_it_was():
    before = all_specs(parse(BASE))
    after = all_specs(parse(changed(("seeds", [0, 1, 2]), ("methods", [*BASE["methods"], "scoreflow"]))))
    whole = {("check",), ("collect",), ("table1",), ("table4",), ("theory",), *(("gather", kind) for kind in names.GATHERED)}
    assert {key for key in before if before[key] != after[key]} == whole


WITH_ORACLES = changed(("methods", [*BASE["methods"], "oracle_vp", {"name": "far", "use": "oracle_ot", "oracle": {"points": 9}}]))


def changes_with_oracles(*changes: tuple[str, Any]) -> set[tuple]:
    before, after = (all_specs(parse(v)) for v in (WITH_ORACLES, changed(*changes, base=WITH_ORACLES)))
    return {key for key in before if before[key] != after[key]}


def test_an_oracles_spec_has_neither_network_nor_training():
    config = parse(WITH_ORACLES)
    assert specs.oracles(config) == ["oracle_vp", "far"]
    network, oracle = (specs.train(config, "board", method, 1) for method in ("ddpm", "far"))
    assert set(network) - set(oracle) == {"network", "training", "processes"} and set(oracle) <= set(network)
    assert (specs.code_stage(network), specs.code_stage(oracle)) == ("train", "oracles")
    evaluation = specs.evaluate("sample", config, "board", "far", 1)
    assert specs.code_stage(evaluation) == "sample" and evaluation["model"] == settings_hash(oracle)
    assert oracle["method"]["oracle"] == {"points": 9, "bandwidth": None}


@pytest.mark.parametrize(
    "change",
    [
        ("settings.board.training.learning_rate", 0.5),
        ("settings.board.training.iterations", 50),
        ("settings.board.network.width", 9),
    ],
)
def test_what_networks_train_with_changes_no_oracle(change):
    changes = changes_with_oracles(change) - {("check",)}
    assert changes == {key for key in of_model("board") if len(key) == 4}
    assert not {"oracle_vp", "far"} & {key[2] for key in changes if len(key) == 4}


def test_what_an_oracle_knows_changes_that_oracle_alone():
    changes = changes_with_oracles(("methods.4.oracle.points", 8))
    assert {key[2] for key in changes if len(key) == 4} == {"far"}
    assert {key[0] for key in changes if len(key) == 4} == {"train", *EVALUATIONS}
    assert {key for key in changes if len(key) == 1} == {("check",), ("theory",)}


def test_the_data_changes_an_oracle():
    changes = changes_with_oracles(("settings.board.data.parameters.train", 200))
    assert {("train", "board", "far", 0), ("train", "board", "oracle_vp", 1)} <= changes


def test_what_is_joined():
    """Pictures are of the first seed, and what goes along training of what is trained."""
    config = parse(WITH_ORACLES)
    models = {(d, m.name, s) for d in config.datasets for m in config.methods for s in config.seeds}

    def gathered(kind: str) -> set[tuple[str, str, str, int, str]]:
        parts = [file.split("/") for file in specs.gather(kind, config)["files"]]
        return {(stage, d, m, int(seed), file) for stage, d, m, seed, file in parts}

    assert gathered("nfe") == {("sample", *m, "nfe.parquet") for m in models}
    assert gathered("few_step") == {("few_step", *m, "rows.parquet") for m in models}
    assert gathered("learning_curve") == {
        ("learning_curve", *m, "rows.parquet") for m in models if m[1] not in ("oracle_vp", "far")
    }
    first = {m for m in models if m[2] == config.seeds[0]}
    assert len(first) < len(models)
    assert gathered("trajectory") == {("trajectory", *m, "trajectory.parquet") for m in first}
    assert gathered("few_step_previews") == {("few_step", *m, "previews.parquet") for m in first}


def test_a_budget_is_checked_as_a_sweep_is():
    message = complaint(changed(("settings.board.evaluation.few_step", {"solvers": ["rk4"], "nfe": [4, 10]})))
    assert "board.evaluation.few_step: rk4 costs 4 evaluations a step and cannot spend exactly 10" in message
    grid = [{"name": "heun", "grid": "karras", "nfe": [6]}]
    config = parse(changed(("settings.board.evaluation.few_step.solvers", grid)))
    assert [tuple(grid) for grid in specs.check(config)["grids"]] == [("karras", 3)]


@pytest.mark.parametrize("times", [[0.5, 0.5], [1.0, 0.0], [0.5, 1.5], [-0.1], []])
def test_times_of_states_that_cannot_be(times):
    assert "board.evaluation.trajectory" in complaint(changed(("settings.board.evaluation.trajectory.times", times)))


def test_table_4_is_of_trained_methods_on_images():
    spec = specs.table4(parse(changed(("settings.digits.evaluation.dequantisation.draws", [1, 7]), base=WITH_ORACLES)))
    assert spec["methods"] == ["ddpm", "fm_ot", "mine"]
    assert (spec["datasets"], spec["draws"]) == (["digits"], {"digits": [1, 7]})


@pytest.mark.parametrize(
    ("source", "network", "images"),
    [
        ("checkerboard", {"kind": "mlp"}, False),
        ("digits", {"kind": "unet"}, True),
        ("user_code:tall_images", {"kind": "unet"}, True),
        ("user_code:two_points", {"kind": "mlp"}, False),
        ("user_code:tall_images", {"kind": "user_code:Lines"}, True),
    ],
)
def test_which_data_are_images_is_known_before_they_are_prepared(source, network, images):
    """Somebody's own are told by the network on them: an MLP takes points only."""
    values = changed(("datasets", ["board"]), ("settings.board", {"data": source, "network": network}))
    assert specs.images(parse(values)) == (["board"] if images else [])


def test_what_the_theory_depends_on_is_the_methods_alone():
    spec = specs.theory(parse(WITH_ORACLES))
    assert set(spec) == {"stage", "methods"}
    assert [m["name"] for m in spec["methods"]] == ["ddpm", "fm_ot", "mine", "oracle_vp", "far"]
    changes = [("settings.board.training.learning_rate", 0.5), ("seeds", [0, 1, 2]), ("settings.board.data", "digits")]
    assert ("theory",) not in changes_with_oracles(*changes)


def test_the_code_of_an_extractor_of_ones_own_is_part_of_the_stages_that_are_given_it():
    """An edit of it runs these again, and no other."""
    own = {"features": {"extractor": "user_code:colours"}}
    settings = {"digits": {"data": "digits", "network": {"kind": "unet"}, "evaluation": own}}
    config = parse({"datasets": ["digits"], "methods": ["fm_ot"], "settings": settings})
    for stage in (
        "sample",
        "likelihood",
        "dequantisation",
        "sweep",
        "sample_quality",
        "learning_curve",
        "few_step",
        "trajectory",
    ):
        given = "features" in specs.evaluate(stage, config, "digits", "fm_ot", 0)
        found = specs.plugins(specs.code_specs(stage, config, "digits", "fm_ot", 0))
        assert found == (("user_code:colours",) if given else ()), stage


def test_plugins_finds_dotted_names_at_any_depth():
    config = parse(
        changed(
            ("methods.2", {"name": "mine", "path": {"name": "user_code:Slow", "power": 2.0}, "prediction": "velocity"}),
            ("settings.board.data", {"source": "user_code:two_points"}),
            ("settings.board.network", {"kind": "user_code:Lines", "parameters": {"bias": False}}),
        )
    )
    assert set(specs.plugins(specs.train(config, "board", "mine", 0))) == {"user_code:Slow", "user_code:Lines"}
    assert set(specs.plugins(specs.train(config, "board", "ddpm", 0))) == {"user_code:Lines"}
    assert specs.plugins(specs.prepare(config, "board")) == ("user_code:two_points",)
    assert specs.plugins(specs.prepare(config, "digits")) == ()
    assert set(specs.plugins({"a": [{"b": ["x:y"]}, ("z", "p.q:R")], "n": 1})) == {"x:y", "p.q:R"}


# How a training is run


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
def test_trainings_that_cannot_be_run(changes, message):
    found = complaint(changed(*((f"settings.board.training.{key}", value) for key, value in changes.items())))
    assert re.search(message, found), found


def test_the_batch_is_shared_by_processes_and_micro_batches():
    shared = [("processes", 4), ("settings.board.training.batch_size", 24)]
    message = complaint(changed(*shared, ("settings.board.training.accumulation", 4)))
    assert "training of ddpm on board: batch_size (24) must be a multiple of processes x accumulation (4 x 4)" in message
    message = complaint(changed(*shared, ("methods.2.training", {"accumulation": 12})))
    assert "training of mine on board: batch_size (24) must be a multiple of processes x accumulation (4 x 12)" in message
    assert parse(changed(*shared, ("settings.board.training.accumulation", 3))).processes == 4


@pytest.mark.parametrize("entry", ["oracle_ot", {"name": "far", "use": "oracle_vp"}, {"name": "own", "path": "ve", "oracle": {}}])
def test_what_no_training_could_be_run_with_stops_no_oracle(entry):
    training = ("settings.board.training", {"precision": "tf32", "flips": True})
    impossible = [("processes", 3), ("datasets", ["board"]), training]
    assert parse(changed(*impossible, ("methods", [entry]))).processes == 3
    message = complaint(changed(*impossible, ("methods", [entry, "ddpm"])))
    assert "training of ddpm on board: batch_size (256) must be a multiple of processes" in message


def test_a_gpu_has_tf32_and_images_have_flips():
    config = parse(changed(("device", "cuda"), ("methods.2.training", {"precision": "tf32"})))
    assert [config.training("board", m).precision for m in ("fm_ot", "mine")] == ["fp32", "tf32"]
    assert parse(changed(("settings.digits.training", {"flips": True}))).training("digits", "ddpm").flips


@pytest.mark.parametrize(
    ("iterations", "snapshots", "steps"),
    [(100, 5, [20, 40, 60, 80, 100]), (30, 4, [7, 15, 22, 30]), (3, 5, [1, 2, 3]), (7, 1, [7]), (7, 0, [])],
)
def test_snapshots_are_evenly_spaced_and_the_last_is_the_end(iterations, snapshots, steps):
    assert TrainingSettings(iterations=iterations, snapshots=snapshots).snapshot_steps() == steps


def test_the_number_of_processes_is_part_of_a_training_alone():
    one, two = (parse(changed(("processes", n))) for n in (1, 2))
    a, b = (specs.train(config, "board", "ddpm", 0) for config in (one, two))
    assert a["processes"] == 1 and a | {"processes": 2} == b
    assert specs.features(one, "digits") == specs.features(two, "digits")


def test_an_alias_is_not_changed_with_its_anchor(tmp_path):
    """As Snakemake has it: a later file changes what it names, and nothing else."""
    board = "{data: checkerboard, network: {kind: mlp}}"
    (tmp_path / "a.yaml").write_text(f"datasets: [one, two]\nmethods: [fm_ot]\nsettings: {{one: &s {board}, two: *s}}\n")
    (tmp_path / "b.yaml").write_text("settings: {one: {network: {width: 5}}}\n")
    config = load(str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert [config.dataset(name).network.width for name in ("one", "two")] == [5, 512]


def test_a_config_that_holds_itself(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "datasets: [one]\nmethods: [fm_ot]\n"
        "settings: {one: {data: {source: digits, parameters: &a {test: 360, x: *a}}, network: {kind: unet}}}\n"
    )
    with pytest.raises(ConfigError, match=r"a\.yaml contains itself: an alias"):
        load(str(tmp_path / "a.yaml"))
    with pytest.raises(ConfigError, match="the config contains itself: an alias"):
        parse(yaml.safe_load((tmp_path / "a.yaml").read_text()))


def test_json_with_tabs_and_merge_keys_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{\n\t"seeds": [1],\n\t"datasets": ["x"]\n}\n')
    assert read(str(tmp_path / "a.json")) == {"seeds": [1], "datasets": ["x"]}
    (tmp_path / "twice.json").write_text('{"seeds": [1],\n"seeds": [2]}\n')
    with pytest.raises(ConfigError, match="'seeds' is there twice, in line 1 and in line 2"):
        read(str(tmp_path / "twice.json"))
    (tmp_path / "b.yaml").write_text("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b}\n")
    assert read(str(tmp_path / "b.yaml"))["c"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("name", "data", "differs"),
    [
        ("cifar10", "digits", "it is not digits"),
        ("imagenet32", {"source": "imagenet_downsampled", "parameters": {"size": 64}}, "it is 3 x 32 x 32, not 3 x 64 x 64"),
        ("cifar10", {"source": "imagenet_downsampled", "parameters": {"size": 32}}, "it is not imagenet_downsampled"),
        ("imagenet64", {"source": "folder", "parameters": {"path": "x", "size": 64}}, ""),
        ("cifar10", {"source": "my.data:CIFAR"}, ""),
        ("my_cifar10", "digits", ""),
    ],
)
def test_the_papers_names_are_for_the_papers_data(name, data, differs):
    """Tables show the paper's numbers beside a data set of that name."""
    values = {"seeds": [0], "datasets": [name], "methods": ["ddpm"]}
    values["settings"] = {name: {"data": data, "network": {"kind": "unet", "channels": 8}, "training": {"iterations": 9}}}
    if differs:
        with pytest.raises(ConfigError, match=f"{name} is a data set of the paper.*{differs}.*another name"):
            parse(values)
    else:
        assert parse(values).datasets == [name]
