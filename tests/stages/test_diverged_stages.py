"""A training that diverges, or whose plug-in raises an exception, is rows with a status and a reason in every stage."""

import re
import sys
from pathlib import Path

import pytest
import torch
from pyarrow.parquet import read_table
from tiny_benchmark import STAGES, VALUES, Bench

from fmbench.config.reading import parse
from fmbench.stages.shared.initial_network import new_network
from fmbench.store.files import read_json
from fmbench.store.previews import FEW_STEP_PREVIEWS, TRAJECTORY


@pytest.mark.parametrize("dataset", ["board", "tall"])
def test_a_diverged_training_is_skipped_rows_in_all_later_stages(bench, dataset):
    config = read_json(bench.folder("train", dataset, "ddpm") / "config.json")
    assert re.match(r"the loss became (nan|inf) at iteration 1 \(learning rate", config["reason"])
    assert config["step"] == 0
    for metric in ("final_loss", "iterations"):
        row = bench.row("train", dataset, "ddpm", metric)
        assert (row["status"], row["reason"], row["value"]) == ("diverged", config["reason"], None)
    for stage in STAGES:
        rows = bench.rows(stage, dataset, "ddpm")
        for row in rows:
            assert row["status"] == "skipped" and row["value"] is None and row["reason"]
    assert config["reason"] in bench.row("likelihood", dataset, "ddpm", "nll")["reason"]


def test_a_diverged_training_keeps_its_last_good_weights(bench):
    """Here the weights of iteration 0: the initial network, which is the same for every method."""
    initial = new_network(bench.spec("train", "board", "fm_ot"), bench.data("board")).state_dict()
    kept = bench.network("board", "ddpm").state_dict()
    assert all(torch.equal(initial[name], kept[name]) for name in initial)


RAISING = """
import torch
calls = 0

def weight(t, path, prediction):
    global calls
    calls += len(t) == 64
    if len(t) == 64 and calls > 30:
        raise {error}
    return torch.ones_like(t, dtype=torch.float64)
"""


def raising(bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch, error: str) -> Bench:
    """The benchmark with a weighting that raises an exception in the 31st iteration."""
    module = f"raising_{re.sub('[^a-z]', '_', error.lower())}"
    (folder / f"{module}.py").write_text(RAISING.format(error=error))
    monkeypatch.syspath_prepend(folder)
    odd = {"name": "odd", "path": "ot", "prediction": "velocity", "weighting": f"{module}:weight"}
    bench.config = parse(VALUES | {"datasets": ["board"], "methods": [odd]})
    return bench


def test_a_plug_in_that_raises_in_training_is_a_diverged_training(spoilable, tmp_path, monkeypatch):
    own = raising(spoilable, tmp_path, monkeypatch, "KeyError('a|b_')")
    said = own.run("train", "board", "odd")
    assert said.code == 0 and said.err.count("Traceback (most recent call last)") == 1 and "DIVERGED: raising" in said.err
    config = read_json(own.folder("train", "board", "odd") / "config.json")
    assert re.match(
        r"raising_\w+\.py, line 9, raised KeyError: 'a\|b_', so the loss became nan at iteration 30 ", config["reason"]
    )
    assert config["step"] == 25
    row = own.row("train", "board", "odd", "final_loss")
    assert (row["status"], row["reason"]) == ("diverged", config["reason"])
    assert own.run("likelihood", "board", "odd").code == 0
    assert own.row("likelihood", "board", "odd", "nll")["reason"] == f"training diverged: {config['reason']}"


@pytest.mark.parametrize(
    "error",
    ["OSError(5, 'no answer')", "MemoryError", "RuntimeError('cannot allocate')", "torch.OutOfMemoryError", "KeyboardInterrupt"],
)
def test_errors_of_the_machine_stay_errors(spoilable, tmp_path, monkeypatch, error):
    own = raising(spoilable, tmp_path, monkeypatch, error)
    with pytest.raises((MemoryError, RuntimeError, SystemExit)):
        sys.exit(own.run("train", "board", "odd").code)
    assert not (own.folder("train", "board", "odd") / "config.json").exists()


def test_an_error_of_fmbench_with_a_plug_in_method_stays_an_error(spoilable, tmp_path, monkeypatch):
    own = raising(spoilable, tmp_path, monkeypatch, "Exception")
    monkeypatch.setattr("fmbench.flow.objectives.Objective.loss", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        own.run("train", "board", "odd")


def test_a_diverged_training_has_no_few_step_samples_and_no_trajectory(bench):
    rows = bench.rows("few_step", "board", "ddpm")
    assert len(rows) == 4 * 3 + 2 and {r["status"] for r in rows} == {"skipped"}
    for folder, file, schema in (("few_step", "previews", FEW_STEP_PREVIEWS), ("trajectory", "trajectory", TRAJECTORY)):
        table = read_table(bench.folder(folder, "board", "ddpm") / f"{file}.parquet")
        assert table.num_rows == 0 and table.schema.equals(schema)
    assert {r["status"] for r in bench.rows("trajectory", "board", "ddpm")} == {"skipped"}
