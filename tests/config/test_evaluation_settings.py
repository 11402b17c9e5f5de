"""The settings of evaluation: solvers, likelihood, dequantisation, trajectory, extractors."""

from typing import Any, get_args

import pytest
import torch
from config_values import changed, config_error
from torch import Tensor

from fmbench.config import names, specs
from fmbench.config.cells import Cell
from fmbench.config.evaluation_settings import FewStepSettings, SolverSettings, SweepSettings
from fmbench.config.reading import parse
from fmbench.config.solver_labels import is_fixed_step
from fmbench.flow.fields import CountingField
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.solvers.grids import GRIDS, uniform_grid
from fmbench.flow.solvers.registry import MULTISTEP, SOLVERS


@pytest.mark.parametrize("nfe", [10, 6, 2, 1])
def test_an_nfe_that_is_not_a_whole_number_of_steps_is_refused(nfe):
    message = config_error(changed(("settings.board.evaluation.sweep", {"solvers": ["euler", "rk4"], "nfe": [4, nfe]})))
    for fragment in ("settings.board.evaluation.sweep", "rk4 costs 4 evaluations a step", f"exactly {nfe}", "multiples of 4"):
        assert fragment in message


def test_a_solver_may_have_its_own_list_of_nfe():
    values = changed(("settings.board.evaluation.sweep", {"solvers": ["euler", {"name": "rk4", "nfe": [8]}], "nfe": [3, 10, 3]}))
    cells = [Cell("euler", "uniform", 3), Cell("euler", "uniform", 10), Cell("rk4", "uniform", 8)]
    assert parse(values).settings["board"].evaluation.sweep.cells() == cells


def sweep_of(**sweep: Any) -> SweepSettings:
    return parse(changed(("settings.board.evaluation.sweep", sweep))).settings["board"].evaluation.sweep


def test_a_solver_on_several_grids_is_several_cells():
    """A bare name, a name written out and one on the uniform grid are the same cell; another grid is another cell and label."""
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
    assert cells[2] == Cell("euler", "karras", 4)


def test_the_lowering_of_the_order_and_a_solver_of_ones_own_are_in_the_label():
    solvers = [
        "dpmpp_2m",
        {"name": "dpmpp_2m", "grid": "karras", "lower_order_final": False},
        {"name": "ab2", "lower_order_final": True},
        {"name": "mine", "use": "user_code:SOLVER", "grid": "log_snr"},
    ]
    settings = sweep_of(solvers=solvers, nfe=[8])
    labels = ["dpmpp_2m", "dpmpp_2m/karras/full_order_final", "ab2/lower_order_final", "mine/log_snr"]
    assert [cell.label for cell in settings.cells()] == labels
    assert settings.cells()[3].use == "user_code:SOLVER"
    assert all(map(is_fixed_step, [*labels, *names.STEP_COSTS]))
    assert not any(map(is_fixed_step, ["dopri5", "dopri5_shared", "", "closed form", "midpoint at 1000 NFE"]))


def test_adaptive_solvers_of_a_sweep():
    sweep = sweep_of(adaptive=["bosh3", {"name": "tsit5", "rtol": 1e-3}])
    assert [(a.name, a.rtol, a.atol) for a in sweep.adaptive] == [("bosh3", 1e-5, 1e-5), ("tsit5", 1e-3, 1e-5)]
    assert "adaptive" in sweep.model_dump() and "adaptive" not in sweep_of().model_dump()
    message = config_error(changed(("settings.board.evaluation.sweep.adaptive", ["rk45"])))
    assert "sweep.adaptive.0.name: unknown adaptive solver 'rk45'; known: dopri5, bosh3, tsit5, dopri8" in message


def test_settings_that_few_solvers_have_are_written_only_where_they_are_set():
    """The hash of a sweep, which is in its rows, must not change with a setting that it does not use."""
    plain, own = sweep_of(solvers=["euler", {"name": "mine", "use": "user_code:SOLVER"}]).model_dump()["solvers"]
    assert plain == {"name": "euler", "grid": "uniform", "nfe": None}
    assert own == {"use": "user_code:SOLVER", "name": "mine", "grid": "uniform", "nfe": None}


def few_step_of(*solvers: Any) -> FewStepSettings:
    config = parse(changed(("settings.board.evaluation.few_step", {"solvers": list(solvers), "nfe": [4]})))
    return config.settings["board"].evaluation.few_step


def test_the_options_of_a_stochastic_sampler_are_in_its_label_and_written_only_where_they_are_set():
    settings = few_step_of(
        "euler_maruyama",
        {"name": "euler_maruyama", "noise": 0.5, "diffusion": "reverse_sde"},
        {"name": "churn", "grid": "karras", "churn": 40, "noise": 1.003, "level_min": 0.05, "level_max": 50},
        "euler",
    )
    labels = ["euler_maruyama", "euler_maruyama/noise=0.5/diffusion=reverse_sde"]
    labels += ["churn/karras/churn=40/noise=1.003/level_min=0.05/level_max=50", "euler"]
    assert [cell.label for cell in settings.cells()] == labels and all(map(is_fixed_step, labels))
    assert dict(settings.cells()[1].options) == {"noise": 0.5, "diffusion": "reverse_sde"}
    assert settings.model_dump()["solvers"][3] == {"name": "euler", "grid": "uniform", "nfe": None}
    assert settings.model_dump()["solvers"][1]["noise"] == 0.5 and "churn" not in settings.model_dump()["solvers"][1]


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("churn", "churn needs the amount of fresh noise; give {name: churn, churn: 40}, or another amount"),
        ({"name": "churn_ddim", "noise": 1.0}, "churn_ddim needs the amount of fresh noise"),
        ({"name": "churn", "churn": -1.0}, "few_step.solvers.0.churn: must be at least 0"),
        (
            {"name": "churn", "churn": 4, "nfe": [5]},
            "churn costs 2 evaluations a step and cannot spend exactly 5; give multiples of 2",
        ),
        (
            {"name": "churn", "churn": 4, "diffusion": "two_sigma"},
            "churn has no option diffusion: its options are churn, noise, level_",
        ),
        ({"name": "churn", "churn": 4, "level_min": 3, "level_max": 2}, "level_min must be below level_max, not 3.0 and 2.0"),
        (
            {"name": "euler_maruyama", "churn": 4},
            "euler_maruyama has no option churn: its options are noise, diffusion; remove it",
        ),
        ({"name": "euler_maruyama", "diffusion": "none"}, "few_step.solvers.0.diffusion: must be 'two_sigma' or 'reverse_sde'"),
        ({"name": "euler_maruyama", "lower_order_final": True}, "euler_maruyama is no multistep solver"),
        ({"name": "euler", "noise": 1.0}, "euler has no option noise: it is no stochastic sampler; remove it"),
        (
            {"name": "churn", "use": "user_code:SOLVER", "churn": 4},
            "churn is the name of a built-in solver; give your own another one",
        ),
        (
            {"name": "mine", "use": "user_code:SOLVER", "churn": 4},
            "mine has no option churn: it is no stochastic sampler; remove it",
        ),
    ],
)
def test_an_impossible_stochastic_sampler_is_refused(solver, message):
    assert message in config_error(changed(("settings.board.evaluation.few_step", {"solvers": [solver], "nfe": [4]})))


@pytest.mark.parametrize("name", names.STOCHASTIC_SOLVERS)
def test_a_sweep_has_no_stochastic_samplers(name):
    """They have no end point of their own, so no error against a reference."""
    why = f"{name} is a stochastic sampler: fresh noise decides where its samples end, so they have no error against a reference"
    for value in ({"solvers": [name]}, {"solvers": [{"name": name, "grid": "karras"}]}, {"reference_solver": name}):
        message = config_error(changed(("settings.board.evaluation.sweep", value)))
        assert why in message and "List it in few_step.solvers" in message
    message = config_error(changed(("settings.board.evaluation.sweep", {"solvers": [{"name": "euler", "noise": 1.0}]})))
    assert "sweep.solvers.0.noise: unknown key" in message


@pytest.mark.parametrize("name", names.STEP_COSTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_solver_may_run_on_every_grid_at_multiples_of_its_cost(name, grid):
    cost = names.STEP_COSTS[name]
    (cell,) = sweep_of(solvers=[{"name": name, "grid": grid, "nfe": [12]}]).cells()
    assert cell == Cell(name, grid, 12)
    if cost > 1 and name not in names.ANY_NFE:
        message = config_error(changed(("settings.board.evaluation.sweep.solvers", [{"name": name, "grid": grid, "nfe": [13]}])))
        assert f"{name} costs {cost} evaluations a step and cannot spend exactly 13" in message


@pytest.mark.parametrize(
    ("solver", "fragments"),
    [
        (
            {"name": "euler", "grid": "karas"},
            ["sweep.solvers.0.grid", "'uniform', 'karras', 'log_snr', 'cosine', 'shift', 'quadratic', 'beta' or 'optimal'"],
        ),
        ({"name": "euler", "grids": "karras"}, ["sweep.solvers.0.grids: unknown key"]),
        ({"name": "euler", "nfe": []}, ["sweep.solvers.0.nfe: must have at least 1 entry"]),
        ({"name": "euler", "nfe": [0]}, ["sweep.solvers.0.nfe.0: must be at least 1, not 0"]),
        (
            {"name": "rk4", "grid": "optimal", "nfe": [260]},
            ["rk4/optimal at 260 evaluations: an optimal grid has at most 64 steps"],
        ),
        ({"grid": "karras"}, ["sweep.solvers.0.name: this key is missing"]),
        ({"name": "heun3"}, ["heun3 costs 3 evaluations a step and cannot spend exactly 4"]),
        ("euler/karras", ["unknown solver 'euler/karras'", "known: euler"]),
        ("user_code:Solver", ["sweep.solvers.0.name: unknown solver 'user_code:Solver'; known: euler", "give {name: mine, use:"]),
        (
            {"name": "mine", "use": "user_code"},
            ["sweep.solvers.0.use: must be a dotted name 'package.module:SOLVER', not 'user_"],
        ),
        ({"name": "euler", "use": "user_code:SOLVER"}, ["sweep.solvers.0.name: euler is the name of a built-in solver"]),
        ({"name": "dopri5", "use": "user_code:SOLVER"}, ["sweep.solvers.0.name: dopri5 is the name of a built-in solver"]),
        ({"name": "my solver", "use": "user_code:SOLVER"}, ["sweep.solvers.0.name: must be a name"]),
        ({"name": "rk4", "lower_order_final": True}, ["rk4 is no multistep solver and has no order to lower", "ab2, ab3"]),
    ],
)
def test_an_impossible_solver_of_a_sweep_is_refused(solver, fragments):
    message = config_error(changed(("settings.board.evaluation.sweep.solvers", [solver])))
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
        ("probes", 1, "probes"),  # a single probe has no spread
        ("probe", "sparse", "probe"),
        ("mode", "backward", "mode"),
        ("exact_up_to", -1, "exact_up_to"),
        ("rtol", 0.0, "rtol"),
        ("rtol", "1e-5", "rtol"),
        ("draw", [1], "draw"),
    ],
)
def test_impossible_dequantisation_settings_are_refused(key, value, place):
    message = config_error(changed((f"settings.digits.evaluation.dequantisation.{key}", value)))
    assert f"settings.digits.evaluation.dequantisation{'.' * bool(place)}{place}: " in message


def test_probes_are_applied_in_reverse_or_forward_mode():
    for mode in ("reverse", "forward"):
        config = parse(changed(("settings.board.evaluation.likelihood.mode", mode)))
        assert config.settings["board"].evaluation.likelihood.mode == mode
    assert "likelihood.mode: " in config_error(changed(("settings.board.evaluation.likelihood.mode", "backward")))


def test_a_reference_nfe_that_is_not_a_whole_number_of_steps_is_refused():
    message = config_error(changed(("settings.board.evaluation.sweep", {"reference_solver": "rk4", "reference_nfe": 1001})))
    assert "rk4 costs 4 evaluations a step and cannot spend exactly 1001; make reference_nfe a multiple of 4" in message
    assert "solvers: [" not in message
    message = config_error(changed(("settings.board.evaluation.sweep.reference_solver", "user_code:Solver")))
    assert "sweep.reference_solver: unknown solver 'user_code:Solver'; known: euler" in message


@pytest.mark.parametrize("key", ["nfe", "solvers"])
def test_an_empty_sweep_is_refused(key):
    message = config_error(changed((f"settings.board.evaluation.sweep.{key}", [])))
    assert f"settings.board.evaluation.sweep.{key}: must have at least 1 entry" in message


@pytest.mark.parametrize("place", ["settings.board.evaluation.sample.n", "settings.board.evaluation.likelihood.n"])
def test_a_single_sample_is_refused(place):
    """With n = 1 a standard deviation is NaN, which the table would show as a divergence."""
    assert place in config_error(changed((place, 1)))


@pytest.mark.parametrize(
    ("extractor", "options", "message"),
    [
        ("inception", {"weights": 3}, "options.weights must be the path of a file, as text, not 3"),
        ("efficientnet_lite0", {"size": "64"}, "options.size must be a whole number of pixels from 1 to 10000, not '64'"),
        ("efficientnet_lite0", {"size": 0}, "options.size must be a whole number of pixels from 1 to 10000, not 0"),
    ],
)
def test_impossible_options_of_an_extractor_are_refused(extractor, options, message):
    part = {"extractor": extractor, "options": options}
    for place, value in (("", part), (".more_extractors.0", {"more_extractors": [part]})):
        assert f"features{place}: {message}" in config_error(changed(("settings.digits.evaluation.features", value)))


def test_the_names_of_solvers_and_grids_are_those_of_the_registries():
    assert {name: solver.cost for name, solver in SOLVERS.items()} == names.STEP_COSTS
    assert {name: method.lower_order_final for name, method in MULTISTEP.items()} == names.MULTISTEP_SOLVERS
    assert get_args(SolverSettings.model_fields["grid"].annotation) == (*GRIDS, names.OPTIMAL_GRID)


@pytest.mark.parametrize("name", names.STEP_COSTS)
@pytest.mark.parametrize("steps", [1, 4])
def test_the_cost_of_a_step_is_what_a_counting_field_counts(name, steps):
    field: CountingField[Tensor] = CountingField(lambda t, x: -x)
    nfe = steps * names.STEP_COSTS[name]
    SOLVERS[name].spend(nfe, field, torch.ones(3, 2), lambda steps: uniform_grid(0.1, 0.9, steps), OptimalTransport())
    assert (field.calls, field.evaluations) == (nfe, 3 * nfe)


def test_few_step_settings_are_checked_like_those_of_a_sweep():
    message = config_error(changed(("settings.board.evaluation.few_step", {"solvers": ["rk4"], "nfe": [4, 10]})))
    assert "board.evaluation.few_step: rk4 costs 4 evaluations a step and cannot spend exactly 10" in message
    grid = [{"name": "heun", "grid": "karras", "nfe": [6]}]
    churn = [{"name": "churn", "grid": "karras", "nfe": [6], "churn": 2.0}]
    assert specs.check(parse(changed(("settings.board.evaluation.few_step.solvers", churn))))["grids"] == [["karras", 3]]
    config = parse(changed(("settings.board.evaluation.few_step.solvers", grid)))
    assert [tuple(grid) for grid in specs.check(config)["grids"]] == [("karras", 3)]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.5, 0.5], "times must increase, not [0.5, 0.5]"),
        ([1.0, 0.0], "times must increase, not [1.0, 0.0]"),
        ([0.5, 1.5], "must be at most 1.0, not 1.5"),
        ([-0.1], "must be at least 0.0, not -0.1"),
        ([], "must have at least 1 entry"),
    ],
)
def test_impossible_times_of_a_trajectory_are_refused(times, message):
    error = config_error(changed(("settings.board.evaluation.trajectory.times", times)))
    assert "board.evaluation.trajectory" in error
    assert message in error
