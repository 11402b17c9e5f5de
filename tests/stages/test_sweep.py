"""The stage `sweep`: errors of cells against the reference, and the cache."""

import re
import shutil

import pytest
import torch
from tiny_benchmark import noise

from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.store.seal import seal


def test_every_cell_spends_its_nfe(bench):
    cells = [(r["solver"], r["nfe"]) for r in bench.cells("board", "fm_ot")]
    whole = [(s, float(n)) for s in ("euler", "midpoint", "heun", "rk4", "ddim") for n in (4, 8)]
    assert cells == [*whole, ("midpoint/karras", 8.0)]
    assert [(r["solver"], r["nfe"]) for r in bench.cells("tall", "fm_ot")] == [("euler", 4.0), ("heun", 6.0)]


@pytest.mark.parametrize(("solver", "nfe"), [("euler", 4), ("midpoint", 8), ("heun", 8), ("rk4", 4)])
def test_the_error_of_a_cell_equals_one_by_hand(bench, solver, nfe):
    data, model = bench.data("board"), bench.model("board", "mine")
    x0 = noise(data, model, 10)
    with torch.no_grad():
        ends = []
        for name, steps in ((solver, nfe // FIXED[solver].stages), ("rk4", 10)):
            grid = uniform_grid(model.objective.t_min, model.objective.t_max, steps)
            ends.append(integrate(model.field(), x0, grid, FIXED[name]).double())
    (row,) = [r for r in bench.cells("board", "mine") if (r["solver"], r["nfe"]) == (solver, nfe)]
    of_each = (ends[0] - ends[1]).square().mean(1)
    assert row["value"] == pytest.approx(of_each.mean().item(), rel=1e-3)
    rows = [r for r in bench.rows("sweep", "board", "mine") if (r["metric"], r["solver"]) == ("mse_stderr", solver)]
    (error,) = [r["value"] for r in rows if r["nfe"] == nfe]
    assert error == pytest.approx(of_each.std().item() / 10**0.5, rel=1e-3)
    assert (row["n"], row["batch"], row["reference"]) == (10, 4, "rk4 at 40 NFE")


def test_the_reference_error_equals_one_by_hand(bench):
    """By hand against a much finer grid; the stage compares with dopri5 at 1e-7."""
    data, model = bench.data("board"), bench.model("board", "mine")
    with torch.no_grad():
        coarse, fine = (
            integrate(
                model.field(), noise(data, model, 6), uniform_grid(model.objective.t_min, model.objective.t_max, n), FIXED["rk4"]
            )
            for n in (10, 200)
        )
    row = bench.row("sweep", "board", "mine", "reference_mse")
    assert row["value"] == pytest.approx(float((coarse.double() - fine).square().mean()), rel=0.5, abs=1e-11)
    assert row["value"] < min(r["value"] for r in bench.cells("board", "mine"))
    # The solve's columns are the reference's own; dopri5's are said where it is named.
    columns = ("n", "batch", "solver", "nfe", "rtol", "atol")
    assert [row[c] for c in columns] == [6, 4, "rk4 at 40 NFE", 40.0, None, None]
    counted = model.field()
    with torch.no_grad():
        dopri5(counted, noise(data, model, 6), model.objective.t_min, model.objective.t_max, rtol=1e-7, atol=1e-7)
    assert row["reference"] == f"dopri5 at 1e-07, {counted.evaluations / 6:.1f} NFE" and counted.evaluations / 6 != 40


def test_straightness_and_path_length_equal_those_by_hand(bench):
    """By sums over a much finer solve: the integral of |v - d|^2 per coordinate over T, and that of |v| over |d|."""
    data, model = bench.data("board"), bench.model("board", "mine")
    start, end, steps = model.objective.t_min, model.objective.t_max, 400
    states, speeds = [noise(data, model, 10)], []
    with torch.no_grad():
        for t in uniform_grid(start, end, steps)[:-1]:
            here = torch.stack([t, t + (end - start) / steps])
            speeds.append(
                model.field()(here.mean(), states[-1] + model.field()(t, states[-1]) * (end - start) / steps / 2).double()
            )
            states.append(integrate(model.field(), states[-1], here, FIXED["rk4"]))
    v, d = torch.stack(speeds), states[-1].double() - states[0].double()
    assert end - start == 1
    deviations, ratios = (v - d).square().mean(2).mean(0), v.norm(dim=2).mean(0) / d.norm(dim=1)
    for metric, values in (("straightness", deviations), ("path_length_ratio", ratios)):
        row, error = (bench.row("sweep", "board", "mine", f"{metric}{suffix}") for suffix in ("", "_stderr"))
        assert row["value"] == pytest.approx(values.mean().item(), rel=2e-2)
        assert error["value"] == pytest.approx(values.std().item() / 10**0.5, rel=5e-2)
        assert (row["n"], row["solver"], row["nfe"]) == (10, "rk4 at 40 NFE", 40.0)


def test_more_steps_mean_less_error(bench):
    for solver in ("euler", "midpoint", "heun", "rk4"):
        errors = [r["value"] for r in bench.cells("board", "fm_ot") if r["solver"] == solver]
        assert errors == sorted(errors, reverse=True)


def test_a_sweep_run_again_computes_nothing_and_one_more_nfe_computes_one_cell_each(spoilable):
    before = spoilable.rows("sweep", "board", "fm_ot")
    said = spoilable.run("sweep", "board", "fm_ot")
    assert "0 cells computed, 11 from the cache" in said.err
    assert spoilable.rows("sweep", "board", "fm_ot") == before

    settings = spoilable.config.settings["board"].evaluation.sweep.model_dump()
    more = settings | {"solvers": ["ddim", *settings["solvers"], {"name": "rk4", "nfe": [4, 8, 12]}]}
    said = spoilable.run("sweep", "board", "fm_ot", settings=more)
    assert "1 cells computed, 11 from the cache" in said.err
    after = {(r["metric"], r["solver"], r["nfe"]): r["value"] for r in spoilable.rows("sweep", "board", "fm_ot")}
    assert len(after) == 3 * 12 + 1 + 4
    assert all(after[r["metric"], r["solver"], r["nfe"]] == r["value"] for r in before)  # the seconds too
    assert after["mse", "rk4", 12.0] < after["mse", "rk4", 8.0]

    grids = settings | {"solvers": [{"name": "midpoint", "grid": grid, "nfe": [8]} for grid in ("karras", "cosine", "uniform")]}
    said = spoilable.run("sweep", "board", "fm_ot", settings=grids)
    assert "1 cells computed, 2 from the cache" in said.err
    values = [r["value"] for r in spoilable.cells("board", "fm_ot")]
    assert len(set(values)) == 3 and values[::2] == [after["mse", s, 8.0] for s in ("midpoint/karras", "midpoint")]


def test_other_weights_settings_or_code_are_not_in_the_cache(spoilable):
    settings = spoilable.config.settings["board"].evaluation.sweep.model_dump()
    for change in ({"n": 9}, {"batch": 5}, {"reference_nfe": 44}, {"reference_solver": "heun"}):
        said = spoilable.run("sweep", "board", "fm_ot", settings=settings | change)
        assert "11 cells computed" in said.err, change
    assert "11 cells computed" in spoilable.run("sweep", "board", "fm_ot", seed=4).err
    assert "11 cells computed" in spoilable.run("sweep", "board", "fm_ot", code="0123456789abcdef").err
    shutil.copytree(spoilable.folder("train", "board", "fm_ot"), spoilable.results / "old")
    weights = spoilable.folder("train", "board", "fm_ot") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    said = spoilable.run("sweep", "board", "fm_ot")
    assert said.code == 3 and "was changed by hand" in said.err
    weights.write_bytes(re.sub(rb"(?<=fmbench-sha256:)[0-9a-f]{64}", 64 * b"0", bytes(content)))
    seal(weights)
    assert "11 cells computed" in spoilable.run("sweep", "board", "fm_ot").err


def test_a_damaged_cache_entry_is_computed_again(spoilable):
    before = spoilable.rows("sweep", "board", "fm_ot")
    for entry in (spoilable.results / "cache").rglob("*.*"):
        entry.write_bytes(entry.read_bytes()[:20])
    said = spoilable.run("sweep", "board", "fm_ot")
    assert "11 cells computed" in said.err
    after = spoilable.rows("sweep", "board", "fm_ot")
    assert [r for r in after if r["metric"] != "seconds"] == [r for r in before if r["metric"] != "seconds"]
    assert len(after) == len(before)
