"""The whole config: the repository's files, names, and what must fit together."""

from pathlib import Path

import pytest
from config_values import BASE, changed, config_error

import fmbench
from fmbench.config import names, selections, specs
from fmbench.config.datasets import sample_shape, split_sizes
from fmbench.config.methods import METHODS, ORACLES
from fmbench.config.reading import load, parse
from fmbench.config.super_resolution_settings import super_resolution_problem
from fmbench.errors import ConfigError
from fmbench.report.figures.registry import FIGURES
from fmbench.report.table2.numbers import PAPERS_DATA
from fmbench.stages.plan.workload import network_cost

ROOT = Path(fmbench.__file__).parent.parent


PRESETS = sorted((ROOT / "configs").glob("*.yaml"))


def test_the_default_config_parses():
    config = load(str(ROOT / "config.yaml"))
    assert [m.name for m in config.methods] == [name for name in names.OF_THE_PAPER if name != "regression"]
    assert set(config.datasets) == {"checkerboard", "digits"}
    assert len(config.seeds) > 1


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_every_preset_parses_over_the_default(preset):
    config = load(str(ROOT / "config.yaml"), str(preset))
    for dataset in config.datasets:
        for method in config.methods:
            assert specs.train(config, dataset, method.name, config.seeds[0])["dataset"] == dataset


SUPER_RESOLUTION = [preset for preset in PRESETS if preset.stem.startswith("superres_")]


@pytest.mark.parametrize("preset", SUPER_RESOLUTION, ids=lambda p: p.stem)
def test_a_preset_of_super_resolution_makes_table_2_and_tests_claim_11(preset):
    config = load(str(ROOT / "config.yaml"), str(preset))
    assert selections.super_resolved(config) == config.datasets
    assert [m.name for m in config.methods[:2]] == ["regression", "ddpm"] and "fm_ot" in {m.name for m in config.methods}
    for dataset in config.datasets:
        settings = config.dataset(dataset)
        shape = sample_shape(settings.data.source, settings.data.parameters)
        sizes = split_sizes(settings.data.source, settings.data.parameters)
        about = settings.evaluation.super_resolution, settings.evaluation.sample.n, settings.evaluation.features.splits
        assert super_resolution_problem(*about, shape, None if sizes is None else sizes[1]) == ""


def test_the_full_preset_of_super_resolution_has_the_network_and_the_training_of_sr3():
    config = load(str(ROOT / "config.yaml"), str(ROOT / "configs" / "superres_imagenet.yaml"))
    (dataset,) = config.datasets
    assert dataset == PAPERS_DATA and config.dataset(dataset).data.parameters == {"size": 256, "smaller": "drop"}
    network, training = config.dataset(dataset).network, config.training(dataset, "fm_ot")
    assert (network.channels, network.channels_multiple, network.depth, network.dropout) == (128, [1, 2, 4, 4, 8, 8], 3, 0)
    assert (training.batch_size, training.iterations, training.warmup_iterations) == (256, 1_000_000, 10_000)
    assert (training.learning_rate, config.training(dataset, "regression").learning_rate) == (1e-4, 1e-5)
    cost = network_cost(config, dataset, (3, 256, 256))
    assert cost.parameters == pytest.approx(625e6, rel=0.02)  # SR3's number


def test_the_smoke_preset_is_a_small_default():
    default, smoke = (load(str(ROOT / "config.yaml"), *more) for more in ([], [str(ROOT / "configs" / "smoke.yaml")]))
    assert smoke.datasets == default.datasets
    assert [m for m in default.methods if m in smoke.methods] == smoke.methods
    assert smoke.results_dir != default.results_dir
    for dataset in default.datasets:
        assert smoke.settings[dataset].training.iterations < default.settings[dataset].training.iterations / 5


def test_the_zoo_has_the_networks_and_trainings_of_the_default_config():
    default, zoo = (load(str(ROOT / "config.yaml"), *more) for more in ([], [str(ROOT / "configs" / "zoo.yaml")]))
    assert zoo.datasets == default.datasets and len(zoo.seeds) >= 4 and selections.overridden(zoo) == {}
    assert {m.name for m in default.methods} - {"oracle_vp"} < {m.name for m in zoo.methods}
    for dataset in default.datasets:
        ours, usual = zoo.dataset(dataset), default.dataset(dataset)
        assert (ours.data, ours.network, ours.training) == (usual.data, usual.network, usual.training)


def test_the_default_gives_every_method_the_same_training():
    config = load(str(ROOT / "config.yaml"))
    assert selections.overridden(config) == {}
    trained = [m.name for m in config.methods if m.name not in selections.oracles(config)]
    assert len(trained) == 5
    for dataset in config.datasets:
        jobs = [specs.train(config, dataset, method, 0) for method in trained]
        for part in ("training", "network"):
            assert all(job[part] == jobs[0][part] for job in jobs)


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
        ("methods.2.weighting", "hm", ["methods.2.weighting.name: ", "unknown weighting 'hm'", "known: uniform, x, eps"]),
        ("methods.2.time", "hm", ["methods.2.time.name: ", "unknown time distribution 'hm'", "known: uniform, log_snr"]),
        ("settings.board.evaluation.sweep.solvers", ["eulr"], ["board.evaluation.sweep", "unknown solver 'eulr'", "euler, mid"]),
        ("settings.board.evaluation.sweep.solvers", [{"name": "eulr", "nfe": [4]}], ["solvers.0.name", "unknown solver 'eulr'"]),
        ("settings.board.evaluation.sweep.reference_solver", "rk5", ["evaluation.sweep", "unknown solver 'rk5'", "known: euler"]),
    ],
)
def test_an_unknown_name_is_reported_with_its_place_and_the_known_names(place, value, fragments):
    message = config_error(changed((place, value)))
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("seeds", [0, 1, 0], "seed 0 is listed more than once"),
        ("datasets", ["board", "digits", "board"], "data set board is listed more than once"),
        ("methods", ["fm_ot", "ddpm", "fm_ot"], "method fm_ot is listed more than once"),
    ],
)
def test_nothing_may_be_listed_twice(place, value, message):
    assert message in config_error(changed((place, value)))


@pytest.mark.parametrize("place", ["seeds", "datasets", "methods"])
def test_empty_lists_are_refused(place):
    assert f"{place}: must have at least 1 entry" in config_error(changed((place, [])))


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
def test_a_value_out_of_bounds_is_reported_with_its_place(place, value):
    assert f"  {place}: " in config_error(changed((place, value)))


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
def test_a_results_folder_with_unexpanded_or_invisible_characters_is_refused(monkeypatch, path, remedy):
    monkeypatch.setenv("HOME", "/home/me")
    message = config_error(changed(("results_dir", path)))
    assert f"results_dir: {path!r} " in message and message.endswith(remedy)


def test_an_unknown_method_or_data_set_is_refused():
    config = parse(BASE)
    with pytest.raises(ConfigError, match="unknown method 'scoreflow'; this config has ddpm, fm_ot, mine"):
        config.method("scoreflow")
    with pytest.raises(ConfigError, match="unknown data set 'cifar10'; this config has board, digits"):
        config.dataset("cifar10")


def test_the_names_of_methods_and_figures_are_those_of_the_registries():
    assert tuple(METHODS)[: len(names.OF_THE_PAPER)] == names.OF_THE_PAPER
    assert tuple(name for name in METHODS if METHODS[name].oracle is not None) == ORACLES == ("oracle_ot", "oracle_vp")
    assert set(names.FIGURES) == set(FIGURES)


@pytest.mark.parametrize(
    ("name", "data", "differs"),
    [
        ("cifar10", "digits", "not digits"),
        ("imagenet32", {"source": "imagenet_downsampled", "parameters": {"size": 64}}, "3 x 32 x 32, not 3 x 64 x 64"),
        ("cifar10", {"source": "imagenet_downsampled", "parameters": {"size": 32}}, "not imagenet_downsampled"),
        ("imagenet64", {"source": "folder", "parameters": {"path": "x", "size": 64}}, ""),
        ("cifar10", {"source": "my.data:CIFAR"}, ""),
        ("my_cifar10", "digits", ""),
    ],
)
def test_the_papers_names_are_reserved_for_the_papers_data(name, data, differs):
    """Tables show the numbers of the paper beside a data set of that name."""
    values = {"seeds": [0], "datasets": [name], "methods": ["ddpm"]}
    values["settings"] = {name: {"data": data, "network": {"kind": "unet", "channels": 8}, "training": {"iterations": 9}}}
    if differs:
        with pytest.raises(ConfigError, match=f"{name} is a data set of the paper.*{differs}.*another name"):
            parse(values)
    else:
        assert parse(values).datasets == [name]
