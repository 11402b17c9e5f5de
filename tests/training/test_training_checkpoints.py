"""Checkpoints during training: locked, damaged, of another training, on a full disk."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import Interrupted, Spoiled, fm_ot, run, weights

from fmbench.config.methods import METHODS
from fmbench.errors import CheckpointError, LockedError
from fmbench.flow.objectives import build
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.training.run import Listener


def test_a_second_trainer_is_locked_out(tmp_path):
    with CheckpointFolder(tmp_path), pytest.raises(LockedError) as caught, CheckpointFolder(tmp_path):
        pass
    assert f"another process is training into {tmp_path} right now" in str(caught.value)
    with CheckpointFolder(tmp_path):  # free again
        pass


def test_a_trainer_in_another_process_is_locked_out_and_a_killed_one_is_not(tmp_path):
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            with pytest.raises(LockedError), CheckpointFolder(tmp_path):
                pass
        finally:
            other.kill()
    with CheckpointFolder(tmp_path):
        pass


@pytest.mark.parametrize("kept", [0, 20, 1000, -1])
def test_training_resumes_from_the_checkpoint_before_a_truncated_one(board, tmp_path, kept):
    whole, expected = run(board, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=fm_ot(25))
    newest = tmp_path / "killed" / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:kept])
    outcome, net = run(board, tmp_path / "killed")
    assert outcome.resumed_from == 10
    assert len(outcome.complaints) == 1 and "checkpoint.pt cannot be used" in outcome.complaints[0]
    assert (weights(net), outcome.curve) == (weights(expected), whole.curve)


def test_a_damaged_checkpoint_never_replaces_the_good_one_before_it(board, tmp_path):
    """Otherwise a kill during the next save would lose both."""
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(25))
    good = (tmp_path / "checkpoint.previous.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(b"half of a")
    with pytest.raises(Interrupted):  # resumed from iteration 10, saved at 20, killed at 25
        run(board, tmp_path, objective=fm_ot(25, first=10))
    assert (tmp_path / "checkpoint.previous.pt").read_bytes() == good


def test_complaints_are_reported_at_once(board, tmp_path):
    """No message is lost with a process that is killed later."""
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(25))
    (tmp_path / "checkpoint.pt").write_bytes(b"half of a")
    told: list[str] = []
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(13, first=10), listener=Listener(tell=told.append))
    (line,) = told
    assert line.startswith(f"warning: {tmp_path / 'checkpoint.pt'} cannot be used (")
    assert line.endswith("; the training goes on from iteration 10")

    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"half of a")
    told.clear()
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(3), listener=Listener(tell=told.append))
    assert len(told) == 2 and all(line.endswith("; the training goes on from iteration 0") for line in told)


def test_a_damaged_checkpoint_at_a_training_that_diverges(board, tmp_path):
    """The training ends; it does not continue from an earlier iteration."""

    class Damaging(Spoiled):
        def loss(self, network: Any, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
            found = super().loss(network, x0, x1, u)
            if self.step > 25:
                (tmp_path / "checkpoint.pt").write_bytes(b"half of a")
                found = found * float("nan")
            return found

    told: list[str] = []
    outcome, _ = run(board, tmp_path, objective=Damaging(build(METHODS["fm_ot"]), 10_000), listener=Listener(tell=told.append))
    (line,) = told
    assert outcome.reason and outcome.step == 10 and line.endswith("; the weights are those of iteration 10")


def test_another_number_of_threads_is_reported(board, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(25))
    before, told = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "get_num_threads", lambda: before + 1)
    run(board, tmp_path, listener=Listener(tell=told.append))
    assert told == [
        f"warning: it ran on {before} threads and now runs on {before + 1}, so its numbers are the same up to rounding only; "
        "the training goes on from iteration 20"
    ]


def test_a_resumed_training_frees_the_checkpoint_it_read(board, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(25))
    load, read = CheckpointFolder.load, []

    def watched(self: CheckpointFolder, key: str) -> Any:
        state, complaints = load(self, key)
        assert state is not None
        read.extend(weakref.ref(x) for x in [*state["network"].values(), *state["ema"]["averages"]])
        return state, complaints

    monkeypatch.setattr(CheckpointFolder, "load", watched)
    alive: list[int] = []
    run(board, tmp_path, listener=Listener(on_log=lambda *_: alive.append(gc.collect() * 0 + sum(x() is not None for x in read))))
    assert read and alive and not any(alive)


def test_a_training_without_a_good_checkpoint_starts_again(board, tmp_path):
    whole, expected = run(board, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=fm_ot(25))
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / "killed" / name).write_bytes(b"x")
    outcome, net = run(board, tmp_path / "killed")
    assert (outcome.resumed_from, len(outcome.complaints)) == (0, 2)
    assert (weights(net), outcome.curve) == (weights(expected), whole.curve)


def test_a_checkpoint_of_another_training_is_refused(board, tmp_path):
    run(board, tmp_path / "a", key="one")
    _, expected = run(board, tmp_path / "b", key="two", seed=6)
    outcome, net = run(board, tmp_path / "a", key="two", seed=6)
    assert outcome.resumed_from == 0
    assert all("it belongs to the training one, not two" in c for c in outcome.complaints) and outcome.complaints
    assert weights(net) == weights(expected)


def test_a_checkpoint_holds_no_classes(board, tmp_path):
    run(board, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state) == {
        "key",
        "step",
        "network",
        "optimiser",
        "ema",
        "more_emas",
        "scaler",
        "losses",
        "curve",
        "seconds",
        "threads",
    }
    assert state["ema"]["updates"] == state["step"] == 30


def test_a_checkpoint_that_cannot_be_written_is_an_error_at_once(board, tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint to .*No space left.*Make room or fix the folder"):
        run(board, tmp_path, objective=fm_ot(at=0))


def test_a_failed_write_leaves_the_checkpoints_before(board, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(25))
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")}

    def half(state: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", half)
    with CheckpointFolder(tmp_path) as folder, pytest.raises(CheckpointError, match="PytorchStreamWriter"):
        folder.save({"key": "key"})
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")} == before
