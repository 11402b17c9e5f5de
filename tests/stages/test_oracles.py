"""Oracles in every stage: their bandwidth, loss, likelihood and samples."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow.parquet import read_table
from tiny_benchmark import CPU, MODEL_FILES, ORACLES, SEED, VALUES, Bench, by_metric, evaluated
from user_code import command

from fmbench.config import specs
from fmbench.config.hashing import canonical, settings_hash
from fmbench.errors import DataError
from fmbench.flow.fields import CountingField
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.stages.shared.models import load_model
from fmbench.store.files import read_json
from fmbench.system.rng import generator, indexed_normal, indexed_uniform


def points_of(bench: Bench, dataset: str, method: str) -> np.ndarray:
    """The points of an oracle in model space, by hand: points scaled, images in the middle of their levels."""
    train = np.asarray(bench.data(dataset).train, np.float64)
    if method == "near":
        train = train[np.sort(torch.randperm(len(train), generator=generator(0, "oracle/points")).numpy()[:20])]
    return (2 * train if dataset == "board" else (train + 0.5) * 2 / 5 - 1).reshape(len(train), -1)


def log_density_by_hand(x: np.ndarray, points: np.ndarray, variance: float) -> np.ndarray:
    squares = ((x.reshape(len(x), 1, -1) - points) ** 2).sum(2)
    dimensions = points.shape[1]
    exponents = -squares / (2 * variance) - dimensions / 2 * np.log(2 * np.pi * variance)
    top = exponents.max(1)
    return top + np.log(np.exp(exponents - top[:, None]).mean(1))


def test_an_oracle_has_rows_of_a_training_and_no_parameters(bench):
    for dataset, n in (("board", 300), ("tall", 40)):
        for method in ORACLES:
            values = {r["metric"]: r["value"] for r in bench.rows("train", dataset, method)}
            assert values["parameters"] == values["iterations"] == 0
            assert values["images_seen"] == (20 if method == "near" else n)
            assert values["final_loss"] > 0
            config = read_json(bench.folder("train", dataset, method) / "config.json")
            assert (config["parameters"], config["step"], config["reason"]) == (0, 0, "")
            curve = read_table(bench.folder("train", dataset, method) / "loss_curve.parquet")
            assert curve.num_rows == 0 and curve.column_names == ["step", "loss", "learning_rate"]
            assert {r["step"] for r in bench.rows("train", dataset, method)} == {0}


def test_the_bandwidth_of_an_oracle(bench):
    """Images: the spread within a level. Points: the leave-one-out bandwidth. Or the value of the config."""
    assert bench.row("train", "tall", "oracle_ot", "bandwidth")["value"] == pytest.approx(2 / 5 / math.sqrt(12), rel=1e-12)
    for dataset in ("board", "tall"):
        assert bench.row("train", dataset, "near", "bandwidth")["value"] == 0.3
    points = points_of(bench, "board", "oracle_ot")
    squares = ((points[:, None] - points) ** 2).sum(2)
    np.fill_diagonal(squares, np.inf)

    def left_out(h: float) -> float:
        return float((np.log(np.exp(-squares[:200] / (2 * h**2)).sum(1)) - 2 * np.log(h)).sum())

    best = bench.row("train", "board", "oracle_ot", "bandwidth")["value"]
    step = 1000 ** (1 / 24)
    assert left_out(best) > max(left_out(best * step), left_out(best / step))


def test_the_loss_of_an_oracle_is_the_lowest_possible(bench):
    """E |u_t(x_t) - (x1 - x0)|^2 per coordinate, over other draws than the 1000 of the stage."""
    model = bench.model("board", "oracle_ot")
    assert model.oracle is not None
    g = torch.Generator().manual_seed(0)
    n = 500
    x1, x0 = model.oracle.points.sample(n, g), torch.randn(n, 2, generator=g).double()
    t = torch.rand(n, generator=g).double()
    x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
    velocity = torch.cat([model.velocity(at, x[None]) for at, x in zip(t, x_t, strict=True)])
    loss = (velocity - (x1 - x0)).square().mean(1)
    found = bench.row("train", "board", "oracle_ot", "final_loss")["value"]
    assert found == pytest.approx(float(loss.mean()), abs=4 * float(loss.std()) * math.sqrt(1 / n + 1 / 1000))


@pytest.mark.parametrize("dataset", ["board", "tall"])
@pytest.mark.parametrize("method", ORACLES)
def test_the_nll_of_an_oracle_is_the_closed_form_of_the_test_points(bench, dataset, method):
    data, bandwidth = bench.data(dataset), bench.row("train", dataset, method, "bandwidth")["value"]
    x = torch.from_numpy(np.array(data.test))
    x1 = data.to_model(x, indexed_uniform(SEED, "dequantise", range(len(x)), data.shape)).double().numpy()
    # At the end of both paths a = 1; of the noise there is sigma_min left.
    variance = bandwidth**2 + {"oracle_ot": 0.0, "near": 0.01}[method] ** 2
    log_p = log_density_by_hand(x1, points_of(bench, dataset, method), variance)
    nll = -(log_p + 2 * math.log(2)) if dataset == "board" else math.log2(5 / 2) - log_p / (72 * math.log(2))
    row, error = (bench.row("likelihood", dataset, method, metric) for metric in ("nll", "nll_stderr"))
    assert row["value"] == pytest.approx(nll.mean(), rel=1e-6)
    assert error["value"] == pytest.approx(nll.std(ddof=1) / math.sqrt(len(nll)), rel=1e-5)
    assert (row["n"], row["solver"], row["nfe"]) == (len(x), "closed form", None)
    assert row["draws"] == error["draws"] == {"board": None, "tall": 1}[dataset]  # as of a network
    assert bench.row("likelihood", dataset, method, "nll_own_closed_form")["draws"] is None
    assert row["unit"] == {"board": "nats", "tall": "bits/dim"}[dataset]


@pytest.mark.parametrize("dataset", ["board", "tall"])
@pytest.mark.parametrize(("method", "off"), [("oracle_ot", 1e-4), ("near", 2e-3)])
def test_the_solve_of_an_oracle_agrees_with_its_closed_form(bench, tmp_path, dataset, method, off):
    """At a fine tolerance; the VE path's start is the base only to a few parts in (data / sigma_max)^2.

    There the log densities of base and marginal differ by m x / sigma_max^2 with the points' mean m, which over n draws
    leaves a deviation of |m| / (sigma_max sqrt(n)).
    """
    assert evaluated(bench, "likelihood", dataset, method, tmp_path, rtol=1e-6, atol=1e-6).code == 0
    rows = by_metric(tmp_path)
    own, closed = rows["nll_own"], rows["nll_own_closed_form"]
    if method == "near":
        unit = 1 if dataset == "board" else 72 * math.log(2)
        off += 3 * float(np.linalg.norm(points_of(bench, dataset, method).mean(0))) / (20 * math.sqrt(own["n"])) / unit
    assert own["value"] == pytest.approx(closed["value"], abs=off)
    assert own["solver"] == "dopri5_shared, exact divergence" and closed["solver"] == "closed form"
    assert own["nfe"] == rows["nfe_likelihood"]["value"] > bench.row("likelihood", dataset, method, "nll_own")["nfe"]
    assert rows["nll"]["value"] == bench.row("likelihood", dataset, method, "nll")["value"]  # no solver in it


def test_an_oracles_likelihood_evaluates_the_closed_form_and_counts_it(bench, tmp_path, monkeypatch):
    seen = []
    original = FiniteOracle.velocity_and_divergence

    def counted(self: FiniteOracle, path: Any, t: torch.Tensor, x: torch.Tensor) -> Any:
        seen.append(len(x))
        return original(self, path, t, x)

    monkeypatch.setattr(FiniteOracle, "velocity_and_divergence", counted)
    assert evaluated(bench, "likelihood", "tall", "near", tmp_path).code == 0
    row = bench.row("likelihood", "tall", "near", "nfe_likelihood")
    # Batches of 5, 5 and 4: each evaluation of the pair counts for every sample in it.
    assert set(seen) == {5, 4} and row["value"] == row["nfe"] == pytest.approx(sum(seen) / 14, rel=1e-12)


@pytest.mark.parametrize("dataset", ["board", "tall"])
@pytest.mark.parametrize("method", ORACLES)
def test_samples_of_an_oracle_lie_around_its_points(bench, dataset, method):
    samples = np.load(bench.folder("sample", dataset, method) / "samples.npy").astype(np.float64)
    points = points_of(bench, dataset, method)
    bandwidth = bench.row("train", dataset, method, "bandwidth")["value"]
    nearest = ((samples.reshape(len(samples), 1, -1) - points) ** 2).sum(2).min(1)
    # The squared distance to the point it belongs to is bandwidth^2 times chi squared.
    dimensions = points.shape[1]
    assert nearest.max() < bandwidth**2 * (dimensions + 5 * math.sqrt(2 * dimensions))
    if dataset == "tall":
        assert nearest.mean() == pytest.approx(bandwidth**2 * dimensions, rel=0.2)
    (row,) = [r for r in bench.rows("sample", dataset, method) if r["metric"] == "sample_std"]
    assert row["status"] == "ok"


def test_the_sweep_of_an_oracle_uses_its_closed_form_field(bench):
    data, model = bench.data("board"), bench.model("board", "near")
    assert model.oracle is not None and model.flow().path.base_std == 20
    x0 = indexed_normal(SEED, "sample", range(10), (2,)) * 20
    oracle, path = model.oracle.points, model.flow().path
    field: CountingField[torch.Tensor] = CountingField(lambda t, x: oracle.velocity(path, t, x), 0.0, 1.0)
    ends = [integrate(field, x0, uniform_grid(0.0, 1.0, n), FIXED["rk4"]).double() for n in (2, 10)]
    row = next(r for r in bench.cells("board", "near") if (r["solver"], r["nfe"]) == ("rk4", 8.0))
    assert row["value"] == pytest.approx(float((ends[0] - ends[1]).square().mean()), rel=1e-3)
    assert field.calls == 48 and data.shape == (2,)


@pytest.mark.parametrize("change", ["points", "weights"])
def test_the_cache_tells_oracles_of_other_data_or_weights_apart(bench, tmp_path, change):
    """The field depends on the data, so the hash of the weights, which the cache uses, must change with the data."""
    values = json.loads(json.dumps(VALUES)) | {"datasets": ["board"], "methods": [VALUES["methods"][4]]}
    if change == "points":
        values["settings"]["board"]["data"]["parameters"]["train"] = 200
    else:
        values["methods"][0]["oracle"]["bandwidth"] = 0.31
    other = Bench(tmp_path, values)
    command("prepare", "--spec", canonical(specs.prepare(other.config, "board")), "--out", other.results / "data" / "board")
    assert other.run("train", "board", "near").code == 0
    assert other.model("board", "near").sha256 != bench.model("board", "near").sha256
    folder, wanted = other.folder("train", "board", "near"), settings_hash(bench.spec("train", "board", "near"))
    with pytest.raises(DataError, match="not the model of this job's spec"):
        load_model(folder, other.data("board"), CPU, wanted)


def test_an_oracle_made_again_has_the_same_bytes(bench, tmp_path):
    folders = ["--data", bench.results / "data/tall", "--checkpoints", tmp_path / "none", "--out", tmp_path / "again"]
    said = command("train", "--spec", canonical(bench.spec("train", "tall", "near")), "--progress", "lines", *folders)
    assert said.code == 0
    assert "no training: 20 points, bandwidth 0.3, least loss" in said.err and not (tmp_path / "none").exists()
    for name in MODEL_FILES:
        assert (tmp_path / "again" / name).read_bytes() == (bench.folder("train", "tall", "near") / name).read_bytes()


def test_an_oracle_of_another_data_set_is_refused(bench, tmp_path):
    folders = ["--data", bench.results / "data/board", "--checkpoints", tmp_path, "--out", tmp_path / "out"]
    said = command("train", "--spec", canonical(bench.spec("train", "tall", "near")), *folders)
    assert said.code == 3 and "which is not what this job's spec was made for" in said.err
    assert not (tmp_path / "out").exists()


def test_identical_points_give_no_bandwidth(tmp_path):
    values = VALUES | {"datasets": ["board"], "methods": [{"name": "one", "path": "ot", "oracle": {"points": 1}}]}
    one = Bench(tmp_path, values)
    command("prepare", "--spec", canonical(specs.prepare(one.config, "board")), "--out", one.results / "data" / "board")
    said = one.run("train", "board", "one")
    assert said.code == 2 and "needs at least two different points; give a bandwidth" in said.err
