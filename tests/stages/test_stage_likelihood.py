"""The stage `likelihood`: NLL against solves by hand, its probes and its NFE."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_benchmark import (
    GOOD,
    SEED,
    by_metric,
    evaluated,
)
from user_code import command

from fmbench.config.hashing import canonical
from fmbench.config.methods import Method, Part
from fmbench.flow.fields import velocity_field
from fmbench.flow.likelihood import LogLikelihood, bits_per_dimension, log_likelihood
from fmbench.flow.objectives import build
from fmbench.flow.paths import VarianceExploding
from fmbench.stages.shared.models import Model, model_of
from fmbench.store.records import read_rows
from fmbench.system.rng import indexed_rademacher, indexed_uniform


@pytest.mark.parametrize("method", GOOD)
def test_nll_of_points_equals_a_solve_by_hand_over_all_test_points(bench, method):
    data, model = bench.data("board"), bench.model("board", method)
    x = torch.from_numpy(np.array(data.test)).double()
    field = velocity_field(bench.network("board", method).double(), model.objective.path, model.objective.prediction)
    result = log_likelihood(field, 2 * x, model.objective.t_min, model.objective.t_max, rtol=1e-7, atol=1e-7)
    nll = -(result.log_p + 2 * math.log(2))  # the network sees twice the coordinates
    row, error = (bench.row("likelihood", "board", method, m) for m in ("nll", "nll_stderr"))
    assert row["value"] == pytest.approx(float(nll.mean()), abs=2e-3)
    assert error["value"] == pytest.approx(float(nll.std()) / math.sqrt(50), rel=1e-2)
    assert (row["n"], row["batch"], row["unit"]) == (50, 20, "nats")
    assert row["solver"] == "dopri5_shared, exact divergence"
    assert row["rtol"] == row["atol"] == 1e-4


def test_a_density_of_points_integrates_to_one(bench):
    """exp(log p) of the model on a grid over the plane."""
    model = bench.model("board", "fm_ot")
    axis = torch.linspace(-12, 12, 97)
    grid = torch.cartesian_prod(axis, axis)
    result = log_likelihood(model.field(), grid, 0.0, 1.0, rtol=1e-4, atol=1e-4)
    assert float(result.log_p.exp().sum()) * 0.25**2 == pytest.approx(1, abs=0.03)


def test_nll_of_images_is_in_bits_over_all_test_images(bench):
    """14 images in batches of 5: the last one is not dropped. Exact divergence, the same dequantisation: the estimate agrees."""
    data, model = bench.data("tall"), bench.model("tall", "fm_ot")
    u = indexed_uniform(SEED, "dequantise", range(14), data.shape)
    x1 = data.to_model(torch.from_numpy(np.array(data.test)), u)
    result = log_likelihood(model.field(), x1, 0.0, 1.0, rtol=1e-2, atol=1e-2)
    exact = bits_per_dimension(result.log_p, 72, 5)
    row, error = (bench.row("likelihood", "tall", "fm_ot", m) for m in ("nll", "nll_stderr"))
    assert (row["n"], row["batch"], row["unit"]) == (14, 5, "bits/dim")
    assert row["solver"] == "dopri5_shared, hutchinson rademacher x2"
    assert row["value"] == pytest.approx(float(exact.mean()), abs=0.05)
    assert error["value"] > 0


def test_nll_does_not_depend_on_the_batch_beyond_the_tolerance(bench, tmp_path):
    spec = bench.spec("likelihood", "tall", "fm_ot")
    spec["settings"] |= {"batch": 14}
    folders = {"--data": bench.results / "data" / "tall", "--model": bench.folder("train", "tall", "fm_ot"), "--out": tmp_path}
    assert command("likelihood", "--spec", canonical(spec), *(x for pair in folders.items() for x in pair)).code == 0
    (row,) = [r for r in read_rows([tmp_path / "rows.parquet"]).to_pylist() if r["metric"] == "nll"]
    assert row["value"] == pytest.approx(bench.row("likelihood", "tall", "fm_ot", "nll")["value"], abs=0.01)


def test_the_nfe_of_the_likelihood_is_that_of_the_joint_solve(bench):
    row = bench.row("likelihood", "tall", "fm_ot", "nfe_likelihood")
    assert row["value"] == row["nfe"] >= 8
    # A mean over batches of 5, 5 and 4 of counts that are 2 + 6 k.
    assert (row["value"] * 14) % 1 == pytest.approx(0, abs=1e-6)


def exploding(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The field of N(0, I) data on a VE path: x_t is N(0, (1 + s^2) I)."""
    c = VE.coefficients(t)
    return (c.ds * c.s / (1 + c.s**2)).to(x.dtype) * x


VE = VarianceExploding(0.1, 5.0)


@pytest.mark.parametrize("stage", ["likelihood", "dequantisation"])
def test_the_nll_uses_the_base_deviation_of_the_path(bench, tmp_path, monkeypatch, stage):
    """Against the closed form: the flow carries a Gaussian whose deviation is the base's, 5, not 1."""
    objective = build(Method("m", Part("ve", {"sigma_min": 0.1, "sigma_max": 5.0}), Part("velocity")))

    def replaced(*arguments: Any) -> Model:
        return dataclasses.replace(model_of(*arguments), velocity=exploding, objective=objective)

    monkeypatch.setattr(f"fmbench.stages.{stage}.model_of", replaced)
    changes = {"n": 4, "batch": 4, "exact_up_to": 72, "rtol": 1e-6, "atol": 1e-6} | (
        {"draws": [1]} if stage == "dequantisation" else {}
    )
    assert evaluated(bench, stage, "tall", "fm_ot", tmp_path, **changes).code == 0
    data = bench.data("tall")
    x1 = data.to_model(torch.from_numpy(np.array(data.test[:4])), indexed_uniform(SEED, "dequantise", range(4), data.shape))
    width = 5.0 * math.sqrt((1 + 0.1**2) / (1 + 5.0**2))
    log_p = torch.distributions.Normal(0.0, width).log_prob(x1.double()).flatten(1).sum(1)
    found = by_metric(tmp_path)["nll" if stage == "likelihood" else "nll_exact"]["value"]
    assert found == pytest.approx(float(bits_per_dimension(log_p, 72, 5).mean()), abs=1e-4)


def test_the_nfe_of_a_batch_is_weighted_by_its_samples(bench, tmp_path, monkeypatch):
    """Also if solves failed."""

    def solved(field: Any, x1: torch.Tensor, *_: Any, **__: Any) -> LogLikelihood:
        field.count.calls += 10 if len(x1) == 5 else 30  # batches of 5, 5 and 4
        return LogLikelihood(torch.zeros(2, len(x1)).double(), torch.zeros(len(x1)), torch.arange(len(x1)) == 4, 2)

    monkeypatch.setattr("fmbench.stages.shared.likelihood_solve.log_likelihood", solved)
    assert evaluated(bench, "likelihood", "tall", "fm_ot", tmp_path).code == 0
    row = by_metric(tmp_path)["nll"]
    assert row["nfe"] == pytest.approx((10 * 10 + 30 * 4) / 14, rel=1e-12)
    assert row["reason"] == "dopri5 failed on 2 of 14 test samples (step size vanished or 20000 NFE spent)"


def test_forward_mode_gives_the_same_nll(bench, tmp_path):
    found = {}
    for mode in ("forward", "reverse"):
        said = evaluated(bench, "likelihood", "tall", "fm_ot", tmp_path / mode, mode=mode, n=2, rtol=1e-2, atol=1e-2)
        assert said.code == 0, said.err
        found[mode] = {metric: row["value"] for metric, row in by_metric(tmp_path / mode).items()}
    # A forward pass for each probe is an evaluation for each; behind one, all probes are taken backwards.
    assert found["forward"].pop("nfe_likelihood") == 2 * found["reverse"].pop("nfe_likelihood")
    assert found["forward"] == pytest.approx(found["reverse"], rel=1e-4)
    assert set(found["forward"]) == {"nll", "nll_stderr", "nll_probe_std"}


def test_nll_probe_std_is_the_spread_of_two_probes(bench):
    data, model = bench.data("tall"), bench.model("tall", "mine")
    variances = []
    for indices in (range(5), range(5, 10), range(10, 14)):
        x1 = data.to_model(
            torch.from_numpy(np.array(data.test[indices.start : indices.stop])),
            indexed_uniform(SEED, "dequantise", indices, data.shape),
        )
        z = torch.stack([indexed_rademacher(SEED, f"probe/{k}", indices, data.shape) for k in range(2)])
        o = model.objective
        by_probe = log_likelihood(model.field(), x1, o.t_min, o.t_max, probes=z, rtol=1e-3, atol=1e-3).by_probe
        variances.append((by_probe[0] - by_probe[1]) ** 2 / 4)
    expected = math.sqrt(float(torch.cat(variances).mean())) / (72 * math.log(2))
    row = bench.row("likelihood", "tall", "mine", "nll_probe_std")
    assert row["value"] == pytest.approx(expected, rel=1e-5)
    assert (row["draws"], row["probes"], row["unit"]) == (1, 2, "bits/dim")
