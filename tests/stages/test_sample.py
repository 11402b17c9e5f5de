"""The stage `sample`: samples, previews and NFE, against solves by hand."""

import numpy as np
import pytest
import torch
from pyarrow.parquet import read_table
from tiny_benchmark import GOOD, SEED, evaluated, noise
from user_code import command

from fmbench.config.hashing import canonical
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.store.previews import NFE
from fmbench.store.records import read_rows


@pytest.mark.parametrize(
    ("dataset", "method"), [("board", "fm_ot"), ("board", "mine"), ("tall", "fm_ot"), ("board", "oracle_ot"), ("tall", "near")]
)
def test_nfe_equals_a_count_by_hand(bench, dataset, method):
    """Each sample alone, counted by hand: the rows are the mean, the spread and the maximum over samples."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.sample
    field, calls = model.field(), []

    def counted(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        calls[-1] += 1
        return field(t, x)

    with torch.no_grad():
        for x0 in noise(data, model, settings.n):
            calls.append(0)
            dopri5(counted, x0[None], model.objective.t_min, model.objective.t_max, rtol=settings.rtol, atol=settings.atol)
    assert all(c % 6 == 2 for c in calls)
    row = bench.row("sample", dataset, method, "nfe")
    # A step may be accepted on one side of 1 in a batch and on the other alone: allow one sample one step.
    assert row["value"] == pytest.approx(np.mean(calls), abs=6.01 / settings.n)
    assert row["nfe"] == row["value"]
    assert (row["n"], row["rtol"], row["solver"]) == (settings.n, settings.rtol, "dopri5")
    assert bench.row("sample", dataset, method, "nfe_max")["value"] == pytest.approx(max(calls), abs=6)
    spread, error = (bench.row("sample", dataset, method, m)["value"] for m in ("nfe_std_over_samples", "nfe_stderr"))
    assert spread == pytest.approx(np.std(calls, ddof=1), abs=0.5) and error == pytest.approx(spread / settings.n**0.5)


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_shared_nfe_equals_the_calls_of_one_solve(bench, dataset):
    data, model = bench.data(dataset), bench.model(dataset, "fm_ot")
    settings = bench.config.settings[dataset].evaluation.sample
    field = model.field()
    with torch.no_grad():
        x0 = noise(data, model, settings.shared_batch)
        dopri5(field, x0, model.objective.t_min, model.objective.t_max, rtol=settings.rtol, atol=settings.atol, per_sample=False)
    row = bench.row("sample", dataset, "fm_ot", "nfe_shared")
    assert row["value"] == field.calls
    assert row["n"] == row["batch"] == settings.shared_batch
    assert row["solver"] == "dopri5_shared"


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_samples_equal_a_solve_by_hand_from_the_same_noise(bench, dataset):
    data, model = bench.data(dataset), bench.model(dataset, "fm_ot")
    samples = np.load(bench.folder("sample", dataset, "fm_ot") / "samples.npy")
    settings = bench.config.settings[dataset].evaluation.sample
    assert samples.shape == (settings.n, *data.shape) and samples.dtype == np.float32
    grid = uniform_grid(model.objective.t_min, model.objective.t_max, 30)
    with torch.no_grad():
        fine = integrate(model.field(), noise(data, model, settings.n), grid, FIXED["rk4"]).numpy()
    assert np.abs(samples - fine).max() < 20 * settings.rtol
    assert bench.row("sample", dataset, "fm_ot", "sample_std")["value"] == pytest.approx(samples.std(), rel=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_samples_do_not_depend_on_the_batch(bench, tmp_path, batch):
    """Up to rounding: matrix products of another batch size add in another order."""
    settings = bench.config.settings["tall"].evaluation.sample.model_dump() | {"batch": batch}
    spec = bench.spec("sample", "tall", "fm_ot") | {"settings": settings}
    folders = {"--data": bench.results / "data" / "tall", "--model": bench.folder("train", "tall", "fm_ot"), "--out": tmp_path}
    said = command("sample", "--spec", canonical(spec), *(x for pair in folders.items() for x in pair))
    assert said.code == 0
    found, before = (np.load(p / "samples.npy") for p in (tmp_path, bench.folder("sample", "tall", "fm_ot")))
    np.testing.assert_allclose(found, before, atol=1e-4)
    (nfe,) = [r for r in read_rows([tmp_path / "rows.parquet"]).to_pylist() if r["metric"] == "nfe"]
    assert nfe["value"] == pytest.approx(bench.row("sample", "tall", "fm_ot", "nfe")["value"], abs=6.01 / 16)
    assert nfe["batch"] == batch


def test_methods_start_from_the_same_noise(bench):
    """The distance between two methods' samples from the same noise is less than from other noise."""
    one, other = (np.load(bench.folder("sample", "board", m) / "samples.npy") for m in GOOD)
    assert np.abs(one - other).mean() < 0.6 * np.abs(one - np.roll(other, 1, 0)).mean()


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_previews_are_the_first_samples_in_data_space(bench, dataset):
    data = bench.data(dataset)
    samples = np.load(bench.folder("sample", dataset, "fm_ot") / "samples.npy")
    preview = read_table(bench.folder("sample", dataset, "fm_ot") / "preview.parquet").to_pylist()
    assert [p["index"] for p in preview] == list(range(len(samples)))
    found = np.array([p["values"] for p in preview]).reshape(samples.shape)
    np.testing.assert_array_equal(found, data.to_data(samples))
    assert all(p["shape"] == list(data.shape) for p in preview)


def test_a_failed_solve_is_a_diverged_row_without_a_value(spoilable):
    settings = spoilable.config.settings["board"].evaluation.sample.model_dump() | {"max_nfe": 9}
    said = spoilable.run("sample", "board", "fm_ot", settings=settings)
    assert said.code == 0
    for metric in ("nfe", "nfe_max", "nfe_shared"):
        row = spoilable.row("sample", "board", "fm_ot", metric)
        assert (row["status"], row["value"]) == ("diverged", None)
        assert "dopri5 failed" in row["reason"]
    assert "30 of 30 samples" in spoilable.row("sample", "board", "fm_ot", "nfe")["reason"]
    assert spoilable.row("sample", "board", "fm_ot", "nfe")["nfe"] == 8


def test_samples_of_a_failed_solve_are_not_evaluated(spoilable):
    """A state on the way is not a sample of the model, so it must not count in a distance."""
    settings = spoilable.config.settings["board"].evaluation.sample.model_dump() | {"max_nfe": 9}
    spoilable.run("sample", "board", "fm_ot", settings=settings)
    assert spoilable.run("sample_quality", "board", "fm_ot").code == 0
    assert {r["status"] for r in spoilable.rows("sample_quality", "board", "fm_ot")} != {"ok"}


@pytest.mark.parametrize(("dataset", "method"), [("tall", "mine"), ("board", "oracle_ot")])
def test_the_nfe_of_each_sample(bench, dataset, method):
    table = read_table(bench.folder("sample", dataset, method) / "nfe.parquet")
    assert table.schema.equals(NFE)
    rows, row = table.to_pylist(), bench.row("sample", dataset, method, "nfe")
    assert [r["index"] for r in rows] == list(range(row["n"]))
    assert {(r["dataset"], r["method"], r["seed"]) for r in rows} == {(dataset, method, SEED)}
    spent = [r["nfe"] for r in rows]
    model, settings = bench.model(dataset, method), bench.config.settings[dataset].evaluation.sample
    with torch.no_grad():
        x0 = noise(bench.data(dataset), model, settings.n)
        ends = (model.objective.t_min, model.objective.t_max)
        counted = dopri5(model.field(), x0, *ends, rtol=settings.rtol, atol=settings.atol).nfe.tolist()
    assert sum(a != b for a, b in zip(spent, counted, strict=True)) <= 1  # a step may be accepted on either side of 1
    assert all(n % 6 == 2 for n in spent) and (method != "oracle_ot" or len(set(spent)) > 3)
    assert np.mean(spent) == row["value"] and max(spent) == bench.row("sample", dataset, method, "nfe_max")["value"]


def test_the_nfe_of_a_failed_solve_is_null(bench, tmp_path):
    """The limit of NFE is enough for some samples only."""
    folder = bench.folder("sample", "board", "oracle_ot")
    spent = read_table(folder / "nfe.parquet").column("nfe").to_pylist()
    enough = sorted(spent)[len(spent) // 2]
    settings = bench.spec("sample", "board", "oracle_ot")["settings"] | {"max_nfe": enough}
    assert evaluated(bench, "sample", "board", "oracle_ot", tmp_path, **settings).code == 0
    found = read_table(tmp_path / "nfe.parquet").column("nfe").to_pylist()
    assert found == [n if n <= enough else None for n in spent] and None in found
    assert read_table(bench.folder("sample", "board", "ddpm") / "nfe.parquet").num_rows == 0  # its training diverged
