"""MeanFlow in the stages: an ordinary field for NLL, sweep and the adaptive solver, and samples by jumps beside it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow.parquet import read_table
from tiny_benchmark import CPU, VALUES, Bench, noise
from user_code import command

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.errors import ConfigError
from fmbench.flow.likelihood import log_likelihood
from fmbench.stages.evaluators.loading import load_evaluator

GUIDED: dict[str, Any] = {"condition": "label", "training": VALUES["settings"]["tall"]["training"] | {"label_dropout": 0.2}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """mean_flow on points and, with labels and guidance, on images."""
    values = copy.deepcopy(VALUES) | {"methods": ["mean_flow"]}
    tall = values["settings"]["tall"]
    tall |= GUIDED
    tall["evaluation"] |= {"guidance": 1.5}
    tall["evaluation"]["few_step"] |= {"jumps": [1, 3]}
    bench = Bench(tmp_path_factory.mktemp("mean_flow"), values)
    assert bench.whole("check", "--data", bench.results / "data", "--out", bench.results / "checked.json").code == 0
    for dataset in ("board", "tall"):
        data, features = bench.results / "data" / dataset, bench.results / "features" / dataset
        said = [command("prepare", "--spec", canonical(specs.prepare(bench.config, dataset)), "--out", data)]
        said += [
            command("features", "--spec", canonical(specs.features(bench.config, dataset)), "--data", data, "--out", features)
        ]
        said += [bench.run(stage, dataset, "mean_flow") for stage in ("train", "sample", "few_step")]
        assert not [s.err for s in said if s.code]
    return bench


@pytest.mark.parametrize(("dataset", "jumps", "cost"), [("board", [1, 2, 4], 1), ("tall", [1, 3], 2)])
def test_samples_by_jumps_are_rows_of_their_own_and_equal_those_by_hand(bench, dataset, jumps, cost):
    """x_r = x_t + (r - t) m(x_t, t, r) on equal steps; with guidance each evaluation counts as two."""
    data, model = bench.data(dataset), bench.model(dataset, "mean_flow")
    network = bench.network(dataset, "mean_flow")
    settings = bench.config.settings[dataset].evaluation
    judge = load_evaluator(bench.results / "features" / dataset, data, CPU)
    rows = [r for r in bench.rows("few_step", dataset, "mean_flow") if r["solver"] == "mean_flow"]
    found = {r["nfe"]: r["value"] for r in rows if r["metric"] == judge.primary}
    assert list(found) == [cost * n for n in jumps] and len(rows) == 3 * len(jumps)
    n = settings.few_step.n
    label = data.conditions(range(n), CPU)

    def mean(t: float, r: float, x: torch.Tensor) -> torch.Tensor:
        times = torch.tensor([t, r - t]).expand(n, 2)
        if not label:
            return network(times, x)
        untold = network(times, x, *data.condition.dropped(torch.ones(n, dtype=torch.bool), *label))
        return untold + settings.guidance * (network(times, x, *label) - untold)

    assert (model.objective.t_min, model.objective.t_max) == (0.0, 1.0)
    for steps in jumps:
        x = noise(data, model, n)
        with torch.no_grad():
            for k in range(steps):
                x = x + mean(k / steps, (k + 1) / steps, x) / steps
        expected, _ = judge.measure_primary(x.numpy())
        assert found[cost * steps] == pytest.approx(expected.value, rel=1e-3, abs=1e-6)


def test_solvers_and_likelihood_see_the_velocity_at_equal_times(bench):
    model, network = bench.model("board", "mean_flow"), bench.network("board", "mean_flow")
    x = noise(bench.data("board"), model, 5)
    t = torch.tensor(0.3, dtype=torch.float64)
    expected = network(torch.tensor([0.3, 0.0]).expand(5, 2), x)
    torch.testing.assert_close(model.field()(t, x), expected, rtol=0, atol=0)
    solved = log_likelihood(model.field(), x, 0.0, 1.0, rtol=1e-3, atol=1e-3)
    assert solved.log_p.isfinite().all() and not solved.failed.any()
    assert bench.run("likelihood", "board", "mean_flow").code == bench.run("sweep", "board", "mean_flow").code == 0
    assert bench.row("likelihood", "board", "mean_flow", "nll")["status"] == "ok"
    assert {r["status"] for r in bench.cells("board", "mean_flow")} == {"ok"}


def test_the_span_was_trained_and_is_saved(bench):
    """Its weights start at random and the loss depends on them; a jump from t to r is not the velocity at t."""
    network = bench.network("board", "mean_flow")
    x = noise(bench.data("board"), bench.model("board", "mean_flow"), 5)
    near, far = (network(torch.tensor([0.0, span]).expand(5, 2), x) for span in (0.0, 1.0))
    assert (far - near).abs().max() > 0.05
    shown = read_table(bench.folder("few_step", "board", "mean_flow") / "previews.parquet").column("solver").to_pylist()
    assert set(shown) == {"euler", "dopri5"}
    assert np.isfinite([r["value"] for r in bench.rows("few_step", "board", "mean_flow")]).all()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"training": {"compile": True}}, "compile: true"),
        ({"training": {"precision": "bf16"}}, "precision: bf16"),
        ({"training": {"batch_size": 32, "accumulation": 4}}, "accumulation: 4"),
        ({"training": {"batch_size": 1}}, "batch_size: 1"),
        ({}, "2 processes"),
    ],
)
def test_a_training_whose_derivative_is_not_supported_is_refused_before_it_begins(change, what):
    values = copy.deepcopy(VALUES) | {"methods": [{"name": "mine", "use": "mean_flow"}], "datasets": ["board"]}
    values["settings"]["board"]["training"] |= change.get("training", {})
    values |= {} if change else {"processes": 2}
    with pytest.raises(ConfigError, match=rf"training of mine on board: .* not supported with {what}; leave the method out"):
        parse(values)
    values["methods"] = [{"name": "mine", "use": "mean_flow", "jumps": "none"}]
    assert parse(values).methods[0].resolve().jumps is None
