"""The stage `trajectory`: states on the way from noise to data."""

from typing import Any

import numpy as np
import pytest
import torch
from pyarrow.parquet import read_table
from tiny_benchmark import evaluated, noise

from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.metrics.half_way import half_way
from fmbench.store.previews import TRAJECTORY
from fmbench.store.records import read_rows


@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("board", "near"), ("tall", "mine")])
def test_states_equal_solves_by_hand(bench, dataset, method):
    """From the noise of the samples along the flow to the samples."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.trajectory
    table = read_table(bench.folder("trajectory", dataset, method) / "trajectory.parquet")
    assert table.schema.equals(TRAJECTORY)
    found: dict[float, list[Any]] = {}
    for row in table.to_pylist():
        assert row["index"] == len(found.setdefault(row["t"], [])) and row["shape"] == list(data.shape)
        found[row["t"]].append(row["values"])
    assert list(found) == settings.times and {len(v) for v in found.values()} == {settings.n}
    objective = model.objective
    x0 = noise(data, model, settings.n)
    # One level of an image is 2 / 17 wide in model space, and a state at its border may fall to either side.
    close = {"atol": 1.01} if data.is_images else {"atol": 20 * settings.rtol, "rtol": 20 * settings.rtol}
    for t, states in found.items():
        expected = x0
        if t > objective.t_min:
            with torch.no_grad():
                grid = uniform_grid(objective.t_min, min(t, objective.t_max), 40 if data.is_images else 200)
                expected = integrate(model.field(), x0, grid, FIXED["rk4"])
        np.testing.assert_allclose(states, data.to_data(expected.numpy()).reshape(settings.n, -1), **close)
    if dataset == "board":
        np.testing.assert_array_equal(found[0.0], data.to_data(x0.numpy()))
    samples = data.to_data(np.load(bench.folder("sample", dataset, method) / "samples.npy")[: settings.n])
    apart = np.abs(np.array(found[1.0]) - samples.reshape(settings.n, -1))
    assert np.quantile(apart, 0.8) <= close["atol"]  # a coarse solve with stops is another coarse solve


def test_the_state_at_the_last_time_is_the_sample(bench, tmp_path):
    settings = bench.config.settings["board"].evaluation.trajectory.model_dump() | {"times": [1.0]}
    assert evaluated(bench, "trajectory", "board", "mine", tmp_path, **settings).code == 0
    states = [row["values"] for row in read_table(tmp_path / "trajectory.parquet").to_pylist()]
    samples = np.load(bench.folder("sample", "board", "mine") / "samples.npy")
    np.testing.assert_array_equal(states, bench.data("board").to_data(samples).astype(np.float32))


def test_the_rows_are_of_the_states_that_are_kept(bench):
    folder = bench.folder("trajectory", "board", "fm_ot")
    table = read_table(folder / "trajectory.parquet")
    times = sorted(set(table["t"].to_pylist()))
    kept = [[r["values"] for r in table.to_pylist() if r["t"] == t] for t in times]
    rows = {r["metric"]: r for r in read_rows([folder / "rows.parquet"]).to_pylist()}
    expected = half_way(times, kept)
    assert rows["half_way"]["value"] == pytest.approx(expected.t, rel=1e-5) and rows["half_way"]["unit"] == "t"
    assert rows["half_way_stderr"]["value"] == pytest.approx(expected.stderr, rel=1e-3)
    assert rows["half_way_spacing"]["value"] == 0.75 and {r["n"] for r in rows.values()} == {30}


def test_too_few_times_give_rows_with_a_reason(bench):
    rows = read_rows([bench.folder("trajectory", "tall", "mine") / "rows.parquet"]).to_pylist()
    assert [r["metric"] for r in rows] == ["half_way", "half_way_stderr", "half_way_spacing"]
    assert {r["status"] for r in rows} == {"skipped"}
    assert all("a half-way time needs 3 times and 20 samples" in r["reason"] for r in rows)
