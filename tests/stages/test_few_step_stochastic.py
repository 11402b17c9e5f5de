"""The stage `few_step`: stochastic samplers, with noise that depends on the seed, the cell and the sample alone."""

import copy
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_benchmark import CPU, SEED, VALUES, Bench, noise
from torch import Tensor

from fmbench.config.cells import Cell
from fmbench.config.reading import parse
from fmbench.flow.solvers.grids import GRIDS
from fmbench.flow.solvers.stochastic import DIFFUSIONS, Churn, ddim_churn, euler_maruyama, heun_churn, scaled
from fmbench.flow.starts import ConditionStart
from fmbench.stages import few_step
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.stages.shared.fixed_solve import fixed
from fmbench.stages.shared.job import Job
from fmbench.store.weights import read_tensors, write_tensors
from fmbench.system.progress import Console
from fmbench.system.rng import indexed_normal

SAMPLERS: list[Any] = [
    "edm_heun",
    {"name": "euler_maruyama"},
    {"name": "euler_maruyama", "noise": 0.5, "diffusion": "reverse_sde"},
    {"name": "churn", "grid": "karras", "churn": 3.0},
    {"name": "churn_ddim", "churn": 40, "noise": 1.003, "level_max": 50.0},
    {"name": "churn", "churn": 0},
]
LABELS = [
    "edm_heun",
    "euler_maruyama",
    "euler_maruyama/noise=0.5/diffusion=reverse_sde",
    "churn/karras/churn=3",
    "churn_ddim/churn=40/noise=1.003/level_max=50",
    "churn/churn=0",
]


def values(nfe: list[int]) -> dict[str, Any]:
    changed = copy.deepcopy(VALUES)
    for dataset in ("board", "tall"):
        settings = changed["settings"][dataset]["evaluation"]["few_step"]
        settings |= {"n": 20, "batch": 12, "nfe": nfe, "solvers": SAMPLERS}
    return changed


@pytest.fixture(scope="module")
def sampled(bench, tmp_path_factory) -> Bench:
    """The trained models of the benchmark, with stochastic samplers in the stage few_step."""
    copied = Bench(tmp_path_factory.mktemp("stochastic"), values([6]))
    for folder in ("data", "features", "models", "sample"):
        shutil.copytree(bench.results / folder, copied.results / folder)
    for dataset, method in (("board", "fm_ot"), ("board", "near"), ("board", "ddpm"), ("tall", "mine")):
        said = copied.run("few_step", dataset, method)
        assert said.code == 0, said.err
    return copied


def by_hand(bench: Bench, dataset: str, method: str, label: str, grid: str, steps: int, sampler: Any) -> np.ndarray:
    data, model = bench.data(dataset), bench.model(dataset, method)
    objective = model.objective
    times = GRIDS[grid](objective.path, objective.t_min, objective.t_max, steps)

    def fresh(step: int) -> Tensor:
        return indexed_normal(SEED, f"few_step/{label}/6/{step}", range(20), data.shape)

    with torch.no_grad():
        return sampler(model.field(), noise(data, model, 20), times, objective.path, fresh).numpy()


@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("board", "near"), ("tall", "mine")])
def test_their_rows_are_those_of_samples_by_hand(sampled, dataset, method):
    data = sampled.data(dataset)
    judge = load_evaluator(sampled.results / "features" / dataset, data, CPU)
    rows = {r["solver"]: r for r in sampled.rows("few_step", dataset, method) if r["metric"] == judge.primary}
    assert list(rows) == [*LABELS, "dopri5"]
    reverse = scaled(DIFFUSIONS["reverse_sde"], 0.5)
    two_sigma = DIFFUSIONS["two_sigma"]
    wanted = {
        LABELS[1]: ("uniform", 6, lambda *a: euler_maruyama(*a, two_sigma)),
        LABELS[2]: ("uniform", 6, lambda *a: euler_maruyama(*a, reverse)),
        LABELS[3]: ("karras", 3, lambda *a: heun_churn(*a, Churn(3.0))),
        LABELS[4]: ("uniform", 6, lambda *a: ddim_churn(*a, Churn(40.0, level_max=50.0, noise_scale=1.003))),
    }
    for label, (grid, steps, sampler) in wanted.items():
        samples = by_hand(sampled, dataset, method, label, grid, steps, sampler)
        expected, _ = judge.measure_primary(samples)
        assert rows[label]["value"] == pytest.approx(expected.value, rel=1e-3, abs=1e-6), label
        assert (rows[label]["status"], rows[label]["n"], rows[label]["batch"]) == ("ok", 20, 12)
    objective = sampled.model(dataset, method).objective
    c = objective.path.coefficients(torch.tensor([objective.t_min, objective.t_max], dtype=torch.float64))
    single = int(c.a[0] == 0) + int(c.s[1] == 0)  # steps of Heun's method that are Euler's
    assert [rows[label]["nfe"] for label in LABELS] == [6 - single * (k in (0, 3, 5)) for k in range(6)]


def test_without_churn_the_row_is_that_of_the_deterministic_sampler(sampled):
    rows = sampled.rows("few_step", "board", "fm_ot")
    plain, churned = ([r for r in rows if r["solver"] == label and r["unit"] != "s"] for label in ("edm_heun", "churn/churn=0"))
    assert [r["value"] for r in plain] == [r["value"] for r in churned] and len(plain) == 2


def test_a_model_that_diverged_has_skipped_rows(sampled):
    rows = [r for r in sampled.rows("few_step", "board", "ddpm") if r["metric"] == "energy_distance"]
    assert [r["solver"] for r in rows] == [*LABELS, "dopri5"]
    assert {r["status"] for r in rows} == {"skipped"} and all("training diverged" in r["reason"] for r in rows)


def test_samples_that_overflow_are_a_diverged_row(sampled, tmp_path):
    bench = Bench(tmp_path, values([6]))
    shutil.copytree(sampled.results, tmp_path, dirs_exist_ok=True)
    path = bench.folder("train", "board", "fm_ot") / "model.safetensors"
    weights = read_tensors(path)
    write_tensors(path, {name: value * 1e30 for name, value in weights.tensors.items()}, weights.metadata)
    assert bench.run("few_step", "board", "fm_ot").code == 0
    rows = {r["solver"]: r for r in bench.rows("few_step", "board", "fm_ot") if r["metric"] == "energy_distance"}
    assert rows["euler_maruyama"]["status"] == "diverged"
    assert rows["euler_maruyama"]["reason"] == "the samples of euler_maruyama at 6 NFE, or their distance, are not finite"


def cells() -> list[Cell]:
    return parse(values([6])).settings["board"].evaluation.few_step.cells()


@pytest.mark.parametrize("cell", cells(), ids=lambda c: c.label)
@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("tall", "mine")])
def test_samples_do_not_depend_on_the_batch(sampled, cell, dataset, method):
    """But for the rounding of the network, which computes batches of other sizes in another order."""
    model = sampled.model(dataset, method)
    job = Job(sampled.spec("few_step", dataset, method), Console("off"), CPU, "")
    whole, parts, fewer = (fixed(model, job, n, batch, cell) for n, batch in ((20, 20), (20, 7), (9, 20)))
    np.testing.assert_allclose(parts.samples, whole.samples, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fewer.samples, whole.samples[:9], rtol=1e-3, atol=1e-4)
    assert whole.nfe == parts.nfe == fewer.nfe
    assert np.array_equal(fixed(model, job, 20, 20, cell).samples, whole.samples)


def test_a_method_that_does_not_start_at_noise_has_skipped_rows(sampled, tmp_path, monkeypatch):
    """There the velocity says nothing about a score."""
    bench = Bench(tmp_path, values([6]))
    shutil.copytree(sampled.results, tmp_path, dirs_exist_ok=True)
    model = sampled.model("board", "fm_ot")
    moved = replace(model, objective=replace(model.objective, start=ConditionStart()))
    monkeypatch.setattr(few_step, "model_of", lambda *_: moved)
    settings = bench.spec("few_step", "board", "fm_ot")["settings"] | {"solvers": [{"name": "euler_maruyama"}]}
    said = bench.run("few_step", "board", "fm_ot", settings=settings)
    assert said.code == 0 and "0 cells computed, 0 from the cache" in said.err
    rows = [r for r in bench.rows("few_step", "board", "fm_ot") if r["solver"] == "euler_maruyama"]
    assert [r["metric"] for r in rows] == ["energy_distance", "energy_distance_stderr", "seconds"]
    assert {(r["status"], r["reason"]) for r in rows} == {("skipped", few_step.NO_SCORE)}
