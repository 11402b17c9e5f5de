"""The stage `sweep`: multistep solvers, and solvers of the user's own."""

import copy
import shutil

import pytest
import torch
from tiny_benchmark import VALUES, Bench, noise
from user_code import SOLVER

from fmbench.flow.fields import CountingField
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import GRIDS, uniform_grid
from fmbench.flow.solvers.optimal_grid import candidates, local_errors, optimal_grid
from fmbench.flow.solvers.registry import MULTISTEP, SOLVERS, StepSolver, find_solver
from fmbench.flow.solvers.tableaux import FIXED, HEUN, TSIT5
from fmbench.stages.shared.method_checks import solver_problems
from fmbench.store.records import read_rows

OWN = {"name": "mine", "use": "user_code:SOLVER"}


@pytest.fixture(scope="module")
def swept(healthy, tmp_path_factory) -> Bench:
    """The trained models of the healthy benchmark, with another sweep."""
    values = copy.deepcopy(VALUES)
    solvers = [*MULTISTEP, {"name": "unipc2", "grid": "karras", "lower_order_final": False}, OWN, OWN | {"grid": "karras"}]
    solvers += [{"name": "ab2", "grid": "optimal"}]
    sweep = {"n": 10, "batch": 4, "nfe": [6], "solvers": solvers, "reference_solver": "rk4", "reference_nfe": 80}
    sweep["adaptive"] = ["bosh3", {"name": "tsit5", "rtol": 1e-3, "atol": 1e-3}]
    values["settings"]["board"]["evaluation"]["sweep"] = sweep | {"reference_check_n": 4}
    bench = Bench(tmp_path_factory.mktemp("own"), values)
    for folder in ("data", "models"):
        shutil.copytree(healthy.results / folder, bench.results / folder)
    said = bench.run("sweep", "board", "fm_ot")
    assert said.code == 0, said.err
    return bench


def test_multistep_solvers_and_ones_own_have_the_rows_of_any_solver(swept):
    data, model = swept.data("board"), swept.model("board", "fm_ot")
    objective, x0 = model.objective, noise(data, model, 10)
    grids = {name: GRIDS[name](objective.path, objective.t_min, objective.t_max, 6) for name in ("uniform", "karras")}
    with torch.no_grad():
        wanted = {name: MULTISTEP[name].solve(model.field(), x0, grids["uniform"], objective.path) for name in MULTISTEP}
        full = find_solver("unipc2", lower_order_final=False)
        wanted["unipc2/karras/full_order_final"] = full.spend(6, model.field(), x0, lambda steps: grids["karras"], objective.path)
        wanted["mine"] = SOLVER.solve(model.field(), x0, grids["uniform"], objective.path)
        wanted["mine/karras"] = SOLVER.solve(model.field(), x0, grids["karras"], objective.path)
        # The optimal grid is fitted on the noise of the 64 samples after the 10 that are measured.
        times = candidates(objective.t_min, objective.t_max)
        others = noise(data, model, 74)[10:]
        fitted = optimal_grid(local_errors(model.field(), others, times, objective.path), times, 6)
        wanted["ab2/optimal"] = MULTISTEP["ab2"].solve(model.field(), x0, fitted, objective.path)
        fine = uniform_grid(objective.t_min, objective.t_max, 20)
        exact = integrate(model.field(), x0, fine, FIXED["rk4"]).double()
    rows = {row["solver"]: row for row in swept.cells("board", "fm_ot")}
    assert list(rows) == list(wanted)
    for name, end in wanted.items():
        assert rows[name]["value"] == pytest.approx(float((end.double() - exact).square().mean()), rel=1e-3), name
        assert (rows[name]["nfe"], rows[name]["status"]) == (6, "ok")
    assert len({row["value"] for row in rows.values()}) > 9


def test_the_cost_of_an_optimal_grid_is_a_row(swept):
    found = read_rows([swept.folder("sweep", "board", "fm_ot") / "rows.parquet"]).to_pylist()
    (row,) = [row for row in found if row["metric"] == "grid_nfe"]
    assert (row["value"], row["solver"], row["n"], row["status"]) == (64 * (2 * 2 + 1), "optimal", 64, "ok")


def test_adaptive_solvers_have_rows_of_their_nfe_and_error(swept):
    data, model = swept.data("board"), swept.model("board", "fm_ot")
    objective = model.objective
    found = read_rows([swept.folder("sweep", "board", "fm_ot") / "rows.parquet"]).to_pylist()
    rows = {(row["metric"], row["solver"]): row for row in found if row["metric"].startswith("adaptive")}
    solvers = ["bosh3", "bosh3_shared", "tsit5", "tsit5_shared"]
    assert list(rows) == [(metric, solver) for solver in solvers for metric in ("adaptive_nfe", "adaptive_mse")]
    x0, ends = noise(data, model, 10), (objective.t_min, objective.t_max)
    with torch.no_grad():
        alone = dopri5(model.field(), x0, *ends, pair=TSIT5, rtol=1e-3, atol=1e-3)
        shared = [dopri5(model.field(), part, *ends, pair=TSIT5, rtol=1e-3, atol=1e-3, per_sample=False) for part in x0.split(4)]
    row = rows["adaptive_nfe", "tsit5"]
    assert row["value"] == row["nfe"] == float(alone.nfe.double().mean()) and (row["rtol"], row["atol"]) == (1e-3, 1e-3)
    assert rows["adaptive_nfe", "tsit5_shared"]["value"] == float(torch.cat([s.nfe for s in shared]).double().mean())
    assert rows["adaptive_mse", "bosh3"]["value"] < rows["adaptive_mse", "tsit5"]["value"]
    assert rows["adaptive_mse", "bosh3"]["reference"] == "rk4 at 80 NFE"


def test_a_solver_of_ones_own_has_one_of_three_forms():
    x, path = torch.linspace(-1, 1, 6).reshape(3, 2), OptimalTransport()
    field = CountingField(lambda t, x: torch.sin(x) + t.to(x.dtype))

    def grid(steps: int) -> torch.Tensor:
        return uniform_grid(0, 1, steps)

    tableau = find_solver("mine", "fmbench.flow.solvers.tableaux:HEUN")
    function = StepSolver(lambda field, x, grid, path: integrate(field, x, grid, HEUN), cost=2)
    built_in = SOLVERS["heun"].spend(8, field, x, grid, path)
    assert tableau.cost == 2 and torch.equal(tableau.spend(8, field, x, grid, path), built_in)
    assert torch.equal(function.spend(8, field, x, grid, path), built_in)
    with pytest.raises(ValueError, match="a step costs 2 evaluations, so this solver cannot spend exactly 7"):
        function.spend(7, field, x, grid, path)
    with pytest.raises(ValueError, match="rk4 is no multistep method, so it has no lower_order_final"):
        find_solver("rk4", lower_order_final=True)


@pytest.mark.parametrize(
    ("use", "nfe", "message"),
    [
        ("user_code:SOLVER", 6, ""),
        ("fmbench.flow.solvers.tableaux:RK4", 6, "a step costs 4 evaluations, so this solver cannot spend exactly 6"),
        ("user_code:WASTEFUL", 1, "takes 2 evaluations, not 1; correct its cost"),
        ("user_code:SHAPELESS", 1, "the result must have the shape, type and device of x"),
        ("user_code:NOT_A_SOLVER", 6, "user_code:NOT_A_SOLVER is not a solver; give a Multistep, a Tableau, or a StepSolver"),
        ("user_code:MISSING", 6, "solver 'user_code:MISSING' cannot be imported"),
    ],
)
def test_a_solver_of_ones_own_is_tried_before_any_training(use, nfe, message):
    found = solver_problems([{"solver": "mine", "grid": "uniform", "nfe": nfe, "use": use, "lower_order_final": None}])
    if message:
        assert found[0].startswith("solver mine: ") and message in found[0]
    else:
        assert found == []
