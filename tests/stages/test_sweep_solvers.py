"""The stage `sweep`: time grids and DDIM."""

import json
import shutil

import pytest
import torch
from tiny_benchmark import (
    VALUES,
    Bench,
    noise,
)

from fmbench.flow.prediction import EPSILON
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import GRIDS, uniform_grid
from fmbench.flow.solvers.tableaux import FIXED

SHOWN = ("uniform", "karras", "log_snr", "cosine")


@pytest.fixture(scope="module")
def noise_predicting(healthy, tmp_path_factory) -> Bench:
    """A network that predicts noise, on the VP path, with a sweep of DDIM and grids."""
    values = json.loads(json.dumps(VALUES))
    sweep = {"n": 10, "batch": 4, "nfe": [6], "reference_solver": "rk4", "reference_nfe": 80, "reference_check_n": 4}
    sweep["solvers"] = ["ddim", *({"name": "heun", "grid": grid} for grid in SHOWN), {"name": "ddim", "grid": "karras"}]
    values["settings"]["board"]["evaluation"]["sweep"] = sweep
    values |= {"methods": [{"name": "eps", "use": "ddpm"}], "datasets": ["board"]}
    bench = Bench(tmp_path_factory.mktemp("eps"), values)
    shutil.copytree(healthy.results / "data", bench.results / "data")
    for stage in ("train", "sweep"):
        said = bench.run(stage, "board", "eps")
        assert said.code == 0, said.err
    return bench


def reference_of(bench: Bench, method: str, nfe: int) -> torch.Tensor:
    data, model = bench.data("board"), bench.model("board", method)
    grid = uniform_grid(model.objective.t_min, model.objective.t_max, nfe // 4)
    with torch.no_grad():
        return integrate(model.field(), noise(data, model, 10), grid, FIXED["rk4"]).double()


@pytest.mark.parametrize("grid", ["uniform", "karras"])
def test_a_ddim_cell_equals_ddim_on_the_predicted_noise(noise_predicting, grid):
    """By hand from the network's output, which is noise; the stage works from the velocity."""
    data, model = noise_predicting.data("board"), noise_predicting.model("board", "eps")
    network, objective = noise_predicting.network("board", "eps"), model.objective
    times = GRIDS[grid](objective.path, objective.t_min, objective.t_max, 6)
    assert objective.prediction is EPSILON
    calls = []

    def predicts(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return network(t.float().expand(len(x)), x)

    with torch.no_grad():
        end = ddim(predicts, noise(data, model, 10), times, objective.path, EPSILON)
    assert len(calls) == 6
    label = "ddim" if grid == "uniform" else f"ddim/{grid}"
    (row,) = [r for r in noise_predicting.cells("board", "eps") if r["solver"] == label]
    expected = float((end.double() - reference_of(noise_predicting, "eps", 80)).square().mean())
    assert row["value"] == pytest.approx(expected, rel=2e-3)
    assert row["nfe"] == 6


def test_a_cell_with_a_grid_equals_the_solver_on_that_grid(noise_predicting):
    data, model = noise_predicting.data("board"), noise_predicting.model("board", "eps")
    objective, errors = model.objective, {}
    for name in SHOWN:
        times = GRIDS[name](objective.path, objective.t_min, objective.t_max, 3)
        with torch.no_grad():
            end = integrate(model.field(), noise(data, model, 10), times, FIXED["heun"]).double()
        errors["heun" if name == "uniform" else f"heun/{name}"] = float(
            (end - reference_of(noise_predicting, "eps", 80)).square().mean()
        )
    found = {r["solver"]: r["value"] for r in noise_predicting.cells("board", "eps") if r["solver"].startswith("heun")}
    assert list(found) == ["heun", "heun/karras", "heun/log_snr", "heun/cosine"]
    assert found == pytest.approx(errors, rel=1e-3)
    assert len({f"{value:.3e}" for value in found.values()}) == 4


def test_ddim_on_the_straight_path_equals_euler_up_to_rounding(bench):
    """a = t and s = 1 - (1 - sigma_min) t are linear in t; on the cosine path they are not."""
    for method, same in (("fm_ot", True), ("oracle_ot", True), ("mine", False)):
        errors = {(r["solver"], r["nfe"]): r["value"] for r in bench.cells("board", method)}
        for nfe in (4.0, 8.0):
            assert (errors["ddim", nfe] == pytest.approx(errors["euler", nfe], rel=1e-3)) == same


def test_ddim_may_be_the_reference(noise_predicting):
    settings = noise_predicting.config.settings["board"].evaluation.sweep.model_dump()
    settings |= {"reference_solver": "ddim", "reference_nfe": 6, "solvers": [{"name": "ddim", "grid": "uniform", "nfe": [6]}]}
    assert noise_predicting.run("sweep", "board", "eps", settings=settings).code == 0
    (row,) = noise_predicting.cells("board", "eps")
    assert (row["value"], row["reference"]) == (0, "ddim at 6 NFE")
    assert noise_predicting.run("sweep", "board", "eps").code == 0
    assert len(noise_predicting.cells("board", "eps")) == 6
