"""Specs: what a job depends on."""

from typing import Any

import pytest
from config_values import BASE, EVALUATIONS, changed

from fmbench.config import execution, selections, specs
from fmbench.config.config import Config
from fmbench.config.hashing import canonical, settings_hash
from fmbench.config.plugins import plugins_in
from fmbench.config.reading import parse
from fmbench.config.stages import GATHERED


def all_specs(config: Config) -> dict[tuple, str]:
    """Every spec of a config as canonical JSON, without the hashes of gathered files."""
    found = {(stage,): getattr(specs, stage)(config) for stage in ("check", "collect", "table1", "table4", "theory")}
    found |= {("gather", kind): specs.gather(kind, config) for kind in GATHERED}
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
            {"nfe", "learning_curve", "few_step", "few_step_previews", "trajectory", "half_way", "dequantisation"},
        ),
        (("settings.digits.evaluation.learning_curve.rtol", 0.1), {"learning_curve"}),
        (("settings.digits.evaluation.dequantisation.draws", [1, 7]), {"dequantisation"}),
        (("settings.digits.evaluation.sweep.n", 7), set()),
    ],
)
def test_the_hash_of_a_gathered_file_covers_its_rows(change, gathered):
    before, after = (specs.collect(c)["gathered"] for c in (parse(BASE), parse(changed(change))))
    assert {name for name in before if before[name] != after[name]} == {f"{kind}.parquet" for kind in gathered}
    assert before == {f"{k}.parquet": specs.gather(k, parse(BASE))["of"] for k in GATHERED} | {
        "dequantisation.parquet": specs.table4(parse(BASE))["of"]
    }


def what_changes(*changes: tuple[str, Any]) -> set[tuple]:
    before, after = all_specs(parse(BASE)), all_specs(parse(changed(*changes)))
    assert before.keys() == after.keys()
    return {key for key in before if before[key] != after[key]}


def of_model(dataset: str | None = None, method: str | None = None) -> set[tuple]:
    """The keys of the train specs and evaluations of the matching models."""
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
def test_file_locations_and_tracking_change_no_spec(change):
    assert what_changes(change) == set()


def test_an_override_changes_that_method_alone():
    assert what_changes(("methods.2.training", {"learning_rate": 0.5})) == of_model(method="mine") | {("table1",)}


def test_a_training_setting_changes_the_models_of_its_data_set_alone():
    assert what_changes(("settings.board.training.learning_rate", 0.5)) == of_model("board")


def test_an_ingredient_of_a_method_changes_that_method_and_the_check():
    assert what_changes(("methods.2.path", {"name": "ot", "sigma_min": 0.1})) == of_model(method="mine") | {
        ("check",),
        ("theory",),
    }


def test_the_source_of_a_data_set_changes_everything_on_it():
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
def test_an_evaluation_setting_changes_the_stages_that_use_it(place, value, stages):
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


def test_another_seed_or_method_changes_no_existing_job():
    before = all_specs(parse(BASE))
    after = all_specs(parse(changed(("seeds", [0, 1, 2]), ("methods", [*BASE["methods"], "scoreflow"]))))
    whole = {("check",), ("collect",), ("table1",), ("table4",), ("theory",), *(("gather", kind) for kind in GATHERED)}
    assert {key for key in before if before[key] != after[key]} == whole


WITH_ORACLES = changed(("methods", [*BASE["methods"], "oracle_vp", {"name": "far", "use": "oracle_ot", "oracle": {"points": 9}}]))


def changes_with_oracles(*changes: tuple[str, Any]) -> set[tuple]:
    before, after = (all_specs(parse(v)) for v in (WITH_ORACLES, changed(*changes, base=WITH_ORACLES)))
    return {key for key in before if before[key] != after[key]}


def test_the_spec_of_an_oracle_has_neither_network_nor_training():
    config = parse(WITH_ORACLES)
    assert selections.oracles(config) == ["oracle_vp", "far"]
    network, oracle = (specs.train(config, "board", method, 1) for method in ("ddpm", "far"))
    assert set(network) - set(oracle) == {"network", "training", "processes"} and set(oracle) <= set(network)
    assert (execution.code_stage(network), execution.code_stage(oracle)) == ("train", "oracles")
    evaluation = specs.evaluate("sample", config, "board", "far", 1)
    assert execution.code_stage(evaluation) == "sample" and evaluation["model"] == settings_hash(oracle)
    assert oracle["method"]["oracle"] == {"points": 9, "bandwidth": None}


@pytest.mark.parametrize(
    "change",
    [
        ("settings.board.training.learning_rate", 0.5),
        ("settings.board.training.iterations", 50),
        ("settings.board.network.width", 9),
    ],
)
def test_network_and_training_settings_change_no_oracle(change):
    changes = changes_with_oracles(change) - {("check",)}
    assert changes == {key for key in of_model("board") if len(key) == 4}
    assert not {"oracle_vp", "far"} & {key[2] for key in changes if len(key) == 4}


def test_the_settings_of_an_oracle_change_that_oracle_alone():
    changes = changes_with_oracles(("methods.4.oracle.points", 8))
    assert {key[2] for key in changes if len(key) == 4} == {"far"}
    assert {key[0] for key in changes if len(key) == 4} == {"train", *EVALUATIONS}
    assert {key for key in changes if len(key) == 1} == {("check",), ("theory",)}


def test_the_data_changes_an_oracle():
    changes = changes_with_oracles(("settings.board.data.parameters.train", 200))
    assert {("train", "board", "far", 0), ("train", "board", "oracle_vp", 1)} <= changes


def test_the_files_that_are_gathered():
    """Pictures are those of the first seed; learning curves are those of trained methods."""
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
    assert gathered("half_way") == {("trajectory", *m, "rows.parquet") for m in models}
    assert gathered("trajectory") == {("trajectory", *m, "trajectory.parquet") for m in first}
    assert gathered("few_step_previews") == {("few_step", *m, "previews.parquet") for m in first}


def test_table_4_shows_trained_methods_on_images():
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
def test_data_sets_of_images_are_known_before_they_are_prepared(source, network, images):
    """The network shows it for plug-in sources: an MLP takes points only."""
    values = changed(("datasets", ["board"]), ("settings.board", {"data": source, "network": network}))
    assert selections.images(parse(values)) == (["board"] if images else [])


def test_the_theory_depends_on_the_methods_alone():
    spec = specs.theory(parse(WITH_ORACLES))
    assert set(spec) == {"stage", "methods"}
    assert [m["name"] for m in spec["methods"]] == ["ddpm", "fm_ot", "mine", "oracle_vp", "far"]
    changes = [("settings.board.training.learning_rate", 0.5), ("seeds", [0, 1, 2]), ("settings.board.data", "digits")]
    assert ("theory",) not in changes_with_oracles(*changes)


def test_the_code_of_a_plug_in_extractor_belongs_to_the_stages_that_use_it():
    """An edit of its code reruns these stages and no others."""
    own = {"features": {"extractor": "user_code:colours"}}
    settings = {"digits": {"data": "digits", "network": {"kind": "unet"}, "evaluation": own}}
    config = parse({"datasets": ["digits"], "methods": ["fm_ot"], "settings": settings})
    for stage in EVALUATIONS:
        given = "features" in specs.evaluate(stage, config, "digits", "fm_ot", 0)
        found = plugins_in(execution.code_specs(stage, config, "digits", "fm_ot", 0))
        assert found == (("user_code:colours",) if given else ()), stage


def test_the_code_of_a_solver_of_ones_own_belongs_to_the_stage_that_runs_it():
    """An edit of a solver in a sweep reruns the sweep alone."""
    for stage in ("sweep", "few_step"):
        own = {stage: {"solvers": ["euler", {"name": "mine", "use": "user_code:SOLVER"}], "nfe": [4, 8]}}
        board = {"data": "checkerboard", "network": {"kind": "mlp"}, "evaluation": own}
        config = parse({"datasets": ["board"], "methods": ["fm_ot"], "settings": {"board": board}})
        found = {s: plugins_in(execution.code_specs(s, config, "board", "fm_ot", 0)) for s in ("train", *EVALUATIONS)}
        assert {s for s, plugins in found.items() if plugins} == {stage} and found[stage] == ("user_code:SOLVER",)
        assert [(cell["use"], cell["nfe"]) for cell in specs.check(config)["solvers"]] == [
            ("user_code:SOLVER", n) for n in (4, 8)
        ]


def test_plugins_finds_dotted_names_at_any_depth():
    config = parse(
        changed(
            ("methods.2", {"name": "mine", "path": {"name": "user_code:Slow", "power": 2.0}, "prediction": "velocity"}),
            ("settings.board.data", {"source": "user_code:two_points"}),
            ("settings.board.network", {"kind": "user_code:Lines", "parameters": {"bias": False}}),
        )
    )
    assert set(plugins_in(specs.train(config, "board", "mine", 0))) == {"user_code:Slow", "user_code:Lines"}
    assert set(plugins_in(specs.train(config, "board", "ddpm", 0))) == {"user_code:Lines"}
    assert plugins_in(specs.prepare(config, "board")) == ("user_code:two_points",)
    assert plugins_in(specs.prepare(config, "digits")) == ()
    assert set(plugins_in({"a": [{"b": ["x:y"]}, ("z", "p.q:R")], "n": 1})) == {"x:y", "p.q:R"}


def test_the_number_of_processes_is_part_of_trainings_alone():
    one, two = (parse(changed(("processes", n))) for n in (1, 2))
    a, b = (specs.train(config, "board", "ddpm", 0) for config in (one, two))
    assert a["processes"] == 1 and a | {"processes": 2} == b
    assert specs.features(one, "digits") == specs.features(two, "digits")
