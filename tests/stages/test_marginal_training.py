"""A training with the marginal target: its rows, what it learns, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_benchmark import CPU, VALUES, Bench
from user_code import command

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import OptimalTransport
from fmbench.stages import marginal_training
from fmbench.stages.marginal_training import METRICS

METHODS = [
    "fm_ot",
    {"name": "marginal", "use": "fm_ot", "target": "marginal"},
    {"name": "lost", "use": "fm_ot", "target": "marginal", "training": {"learning_rate": 1e30}},
]


def bench_of(folder: Path, **changes: Any) -> Bench:
    values = json.loads(json.dumps(VALUES)) | {"datasets": ["board", "tall"], "methods": METHODS}
    values["settings"]["board"]["training"] |= {"iterations": 400, "snapshots": 0, "checkpoint_every": 400, "ema_decay": 0.98}
    values["settings"]["board"]["data"]["parameters"]["train"] = 40
    values["settings"]["tall"]["training"]["flips"] = True
    for name, value in changes.items():
        values["settings"]["board"][name] = value
    bench = Bench(folder, values)
    for dataset in bench.config.datasets:
        out = folder / "data" / dataset
        assert command("prepare", "--spec", canonical(specs.prepare(bench.config, dataset)), "--out", out).code == 0
    return bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return bench_of(tmp_path_factory.mktemp("marginal"))


@pytest.fixture(scope="module")
def trained(bench) -> Bench:
    for dataset, method in (("board", "fm_ot"), ("board", "marginal"), ("tall", "marginal")):
        said = bench.run("train", dataset, method)
        assert said.code == 0, said.err
    return bench


def test_the_rows_of_both_targets(trained):
    for dataset in ("board", "tall"):
        values = {r["metric"]: r["value"] for r in trained.rows("train", dataset, "marginal")}
        assert 0 < values["gradient_variance"] < 0.9 * values["gradient_variance_conditional"]
        assert values["loss_floor"] > 0
    assert not METRICS.keys() & {r["metric"] for r in trained.rows("train", "board", "fm_ot")}


def test_both_targets_lead_to_the_same_field_and_the_losses_differ_by_the_floor(trained):
    """Theorem 2 by training: the distances of both fields to the oracle's are alike and small beside the field itself."""
    dataset = trained.data("board")
    points = dataset.to_model(torch.from_numpy(dataset.train.copy()), torch.tensor(0.5))
    oracle, path = FiniteOracle(points), OptimalTransport()
    g = torch.Generator().manual_seed(0)
    errors = {}
    for method in ("fm_ot", "marginal"):
        field = trained.model("board", method).field()
        total = scale = 0.0
        for t in (0.1, 0.3, 0.5):
            x = oracle.marginal_sample(path, t, 500, g).float()
            v = oracle.velocity(path, torch.tensor(t), x)
            total += float((field.rows(range(500))(torch.tensor(t, dtype=torch.float64), x) - v).square().mean())
            scale += float(v.square().mean())
        errors[method] = total / scale
    assert errors["marginal"] < 0.3 and errors["fm_ot"] < 0.3
    losses = {m: trained.row("train", "board", m, "final_loss")["value"] for m in errors}
    floor = trained.row("train", "board", "marginal", "loss_floor")["value"]
    assert losses["fm_ot"] - losses["marginal"] == pytest.approx(floor, rel=0.3)


def test_both_targets_lead_to_the_same_likelihood(trained):
    """Theorem 2 by training, in the number that the benchmark reports."""
    nll = {}
    for method in ("fm_ot", "marginal"):
        assert trained.run("likelihood", "board", method).code == 0
        row = trained.row("likelihood", "board", method, "nll")
        assert row["status"] == "ok"
        nll[method] = row["value"]
    assert nll["marginal"] == pytest.approx(nll["fm_ot"], abs=0.1)


def test_a_diverged_training_has_diverged_rows(bench):
    assert bench.run("train", "board", "lost").code == 0
    rows = {r["metric"]: r for r in bench.rows("train", "board", "lost")}
    assert {rows[metric]["status"] for metric in METRICS} == {"diverged"}


def test_flipped_images_are_points_of_the_target(bench):
    from fmbench.config.method_settings import method_from_values
    from fmbench.config.training_settings import TrainingSettings
    from fmbench.flow.objectives import build

    dataset = bench.data("tall")
    objective = build(method_from_values(bench.spec("train", "tall", "marginal")["method"]))
    for flips, n in ((False, 40), (True, 80)):
        data = marginal_training.with_data(objective, dataset, TrainingSettings(flips=flips), CPU).data
        assert len(data.points) == n and data.bandwidth == pytest.approx(2 / 5 / 12**0.5)


def test_what_has_no_marginal_target(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(marginal_training, "MOST_POINTS", 39)
    said = bench.run("train", "board", "marginal")
    assert said.code != 0 and "board has 40, more than 39; leave out the target" in said.err
    values = json.loads(json.dumps(VALUES)) | {"datasets": ["tall"], "methods": METHODS[:2]}
    values["settings"]["tall"] |= {"data": "digits", "condition": "label"}
    values["settings"]["tall"]["evaluation"] = {}
    conditioned = Bench(tmp_path, values)
    said = conditioned.whole("check", "--data", tmp_path / "data", "--out", tmp_path / "checked.json")
    assert said.code != 0
    assert "condition: marginal: target: marginal is for data sets without a condition; leave out the target" in said.err
