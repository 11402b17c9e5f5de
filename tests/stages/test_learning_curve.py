"""The stage `learning_curve`: NFE and quality at each snapshot."""

import shutil
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_benchmark import CPU, VALUES, Bench, by_metric, noise
from user_code import command

from fmbench.config.hashing import canonical
from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.stages.shared.adaptive_solve import States
from fmbench.stages.shared.initial_network import new_network
from fmbench.stages.shared.models import Model
from fmbench.store.files import read_json
from fmbench.store.records import read_rows
from fmbench.store.weights import read_tensors, write_tensors


def test_a_snapshot_is_sampled_once(bench, tmp_path):
    """After a kill the stage continues with its cache, and writes the same rows."""
    shutil.copytree(bench.results / "cache" / "learning_curve" / "tall" / "fm_ot", tmp_path / "cache")
    folders = ["--data", bench.results / "data" / "tall", "--model", bench.folder("train", "tall", "fm_ot"), "--out", tmp_path]
    folders += ["--features", bench.results / "features" / "tall", "--cache", tmp_path / "cache"]

    def said() -> str:
        found = command(
            "learning-curve", "--spec", canonical(bench.spec("learning_curve", "tall", "fm_ot")), "--progress", "lines", *folders
        )
        assert found.code == 0, found.err
        return found.err

    entries = sorted((tmp_path / "cache").iterdir())
    assert f"{len(entries)} snapshots, {len(entries)} from the cache" in said() and len(entries) > 1
    entries[0].unlink()
    assert f"{len(entries)} snapshots, {len(entries) - 1} from the cache" in said()
    rows = read_rows([tmp_path / "rows.parquet"]).to_pylist()
    assert [(r["metric"], r["step"], r["value"]) for r in rows] == [
        (r["metric"], r["step"], r["value"]) for r in bench.rows("learning_curve", "tall", "fm_ot")
    ]


def test_the_spread_of_nfe_is_the_sample_standard_deviation(bench, tmp_path, monkeypatch):
    """With n - 1 in the denominator, as in the stage ``sample``."""
    spent = np.array([8, 14, 14, 20, 38, 8, 14, 26])

    def solved(times: list[float], model: Model, *_: Any, **__: Any) -> States:
        return States(np.zeros((1, 8, *model.dataset.shape), np.float32), spent, np.zeros(8, bool))

    monkeypatch.setattr("fmbench.stages.learning_curve.states_at", solved)
    folders = ["--data", bench.results / "data" / "tall", "--model", bench.folder("train", "tall", "fm_ot"), "--out", tmp_path]
    folders += ["--features", bench.results / "features" / "tall", "--cache", tmp_path / "cache"]
    said = command(
        "learning-curve", "--spec", canonical(bench.spec("learning_curve", "tall", "fm_ot")), "--progress", "lines", *folders
    )
    assert said.code == 0, said.err
    rows = by_metric(tmp_path)
    assert rows["nfe"]["value"] == spent.mean()
    assert rows["nfe_std_over_samples"]["value"] == pytest.approx(statistics.stdev(spent.tolist()), rel=1e-12)


def snapshot(bench: Bench, dataset: str, method: str, step: int) -> CountingField[torch.Tensor]:
    """The field of a snapshot, built by hand from the tensors of the file."""
    folder = bench.folder("train", dataset, method)
    found = load_file(folder / "snapshots.safetensors")
    tensors = {name.split("/", 1)[1]: value for name, value in found.items() if name.startswith(f"{step:08d}/")}
    network = new_network(bench.spec("train", dataset, method), bench.data(dataset))
    network.load_state_dict(tensors)
    objective = bench.model(dataset, method).objective
    field = velocity_field(network.eval(), objective.path, objective.prediction)
    return CountingField(field, objective.t_min, objective.t_max)


def steps_of(bench: Bench, dataset: str, method: str) -> list[int]:
    return read_tensors(bench.folder("train", dataset, method) / "snapshots.safetensors").metadata["steps"]


@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("board", "mine"), ("tall", "fm_ot")])
def test_nfe_and_distance_of_each_snapshot_equal_those_by_hand(bench, dataset, method):
    """From the noise of the stage ``sample``, sample by sample."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.learning_curve
    judge = load_evaluator(bench.results / "features" / dataset, data, CPU)
    rows = {(r["metric"], r["step"]): r for r in bench.rows("learning_curve", dataset, method)}
    steps = steps_of(bench, dataset, method)
    assert len(steps) > 1 and steps[-1] == bench.config.training(dataset, method).iterations
    names = ("nfe", "nfe_std_over_samples", judge.primary, f"{judge.primary}_stderr")
    assert set(rows) == {(m, s) for m in names for s in steps}
    for step in steps:
        field = snapshot(bench, dataset, method, step)
        with torch.no_grad():
            x0 = noise(data, model, settings.n)
            solved = dopri5(field, x0, model.objective.t_min, model.objective.t_max, rtol=settings.rtol, atol=settings.atol)
        # A step may be accepted on one side of 1 in a batch and on the other in another: allow one sample one step.
        assert rows["nfe", step]["value"] == pytest.approx(solved.nfe.double().mean().item(), abs=6.01 / settings.n)
        spread = solved.nfe.double().std().item()
        assert rows["nfe_std_over_samples", step]["value"] == pytest.approx(spread, abs=1)
        expected, error = judge.measure_primary(solved.x.numpy())
        row = rows[judge.primary, step]
        assert rows[f"{judge.primary}_stderr", step]["value"] == pytest.approx(error, rel=0.02)
        assert row["value"] == pytest.approx(expected.value, rel=0.02, abs=1e-4)
        assert (row["unit"], row["features"], row["reference"]) == (expected.unit, expected.features, expected.reference)
        assert (row["n"], row["rtol"], row["solver"], row["status"]) == (settings.n, settings.rtol, "dopri5", "ok")
    values = [rows[judge.primary, s]["value"] for s in steps]
    assert len(set(values)) > 2  # they are of different weights


def test_the_last_snapshot_is_the_final_model(bench):
    """With the settings of the stage ``sample``, the numbers of the last snapshot are those of the model."""
    last = {r["metric"]: r for r in bench.rows("learning_curve", "board", "fm_ot") if r["step"] == 60}
    for metric in ("nfe", "nfe_std_over_samples"):
        assert last[metric]["value"] == bench.row("sample", "board", "fm_ot", metric)["value"]
    for metric in ("energy_distance", "energy_distance_stderr"):
        assert last[metric]["value"] == bench.row("sample_quality", "board", "fm_ot", metric)["value"]


@pytest.mark.parametrize("dataset", VALUES["datasets"])
def test_oracles_have_no_rows_and_diverged_trainings_name_their_last_step(bench, dataset):
    assert bench.rows("learning_curve", dataset, "oracle_ot") == []
    rows, stopped = (
        bench.rows("learning_curve", dataset, "ddpm"),
        read_json(bench.folder("train", dataset, "ddpm") / "config.json"),
    )
    last = [r for r in rows if r["step"] == stopped["step"]]
    assert {r["metric"] for r in last if r["status"] == "skipped"} == {"nfe", "nfe_std_over_samples", *PRIMARY[dataset]}
    assert all(r["reason"] == f"training diverged: {stopped['reason']}" for r in last if r["status"] == "skipped")
    assert {r["step"] for r in rows} == {*steps_of(bench, dataset, "ddpm"), stopped["step"]}


PRIMARY = {"board": ("energy_distance", "energy_distance_stderr"), "tall": ("frechet", "frechet_stderr")}


@pytest.mark.parametrize("damage", ["missing", "truncated", "others"])
def test_unusable_snapshots_are_an_error_with_a_remedy(spoilable, damage):
    path = spoilable.folder("train", "board", "fm_ot") / "snapshots.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    else:
        write_tensors(path, {"00000060/weight": torch.zeros(3)}, {"steps": [60]})
    said = spoilable.run("learning_curve", "board", "fm_ot")
    assert said.code == 3 and str(path) in said.err
    assert {"missing": "are missing", "truncated": "cannot be used", "others": "do not fit"}[damage] in said.err
