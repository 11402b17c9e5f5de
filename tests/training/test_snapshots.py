"""Snapshots: averaged weights kept during training."""

from typing import Any

import pytest
import torch
from killed import killed_writer
from safetensors import SafetensorError
from trainings import SETTINGS, Interrupted, fm_ot, network, run, weights

from fmbench.errors import CheckpointError
from fmbench.store.weights import save_weights
from fmbench.training.snapshots import Snapshots


def test_a_snapshot_is_the_model_of_a_training_that_ends_there(board, tmp_path):
    """With a constant rate no iteration depends on how many follow."""
    settings = SETTINGS.model_copy(update={"schedule": "constant", "snapshots": 4})
    outcome, net = run(board, tmp_path / "whole", settings)
    assert outcome.snapshots == settings.snapshot_steps() == [7, 15, 22, 30]
    for step, tensors in Snapshots(tmp_path / "whole", "key").load(outcome.snapshots):
        _, shorter = run(board, tmp_path / str(step), settings.model_copy(update={"iterations": step, "snapshots": 0}))
        assert list(tensors) == sorted(shorter.state_dict())
        assert all(torch.equal(tensors[name], value) for name, value in shorter.state_dict().items())
    assert all(torch.equal(tensors[name], value) for name, value in net.state_dict().items())  # the last is the model


def test_without_snapshots_there_are_none(board, tmp_path):
    outcome, _ = run(board, tmp_path, SETTINGS.model_copy(update={"snapshots": 0}))
    assert outcome.snapshots == [] and not list(tmp_path.glob("snapshot*"))


@pytest.mark.parametrize("at", [5, 6, 11, 12, 23, 29])
def test_snapshots_survive_a_kill(board, tmp_path, at):
    """Snapshots are at 6, 12, ..., checkpoints at 10 and 20."""
    whole = tmp_path / "whole"
    run(board, whole)
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=fm_ot(at))
    outcome, _ = run(board, tmp_path / "killed")
    expected = {p.name: p.read_bytes() for p in whole.glob("snapshot-*")}
    assert {p.name: p.read_bytes() for p in (tmp_path / "killed").glob("snapshot-*")} == expected
    assert outcome.snapshots == [6, 12, 18, 24, 30] and len(expected) == 5


def test_half_written_snapshots_are_removed(board, tmp_path):
    left = killed_writer(tmp_path / "snapshot-00000006.safetensors")
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=fm_ot(25))
    assert not left.exists()
    left = killed_writer(tmp_path / "snapshot-00000007.safetensors")
    outcome, _ = run(board, tmp_path)
    assert outcome.resumed_from == 20 and not left.exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another training", "one bit"])
def test_a_lost_snapshot_costs_no_training(board, tmp_path, damage):
    """It is left out with a complaint, and the weights equal those of an undisturbed training. The snapshot of the
    checkpoint's own iteration is checked, too."""
    settings = SETTINGS.model_copy(update={"snapshots": 6})
    _, expected = run(board, tmp_path / "whole", settings)
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", settings, fm_ot(27))
    for step in (10, 20):
        path = tmp_path / "killed" / f"snapshot-{step:08d}.safetensors"
        if damage == "missing":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[:50])
        elif damage == "one bit":
            content = bytearray(path.read_bytes())
            content[-6] ^= 1
            path.write_bytes(content)
        else:
            Snapshots(tmp_path / "killed", "other").save(step, {"a": torch.zeros(1)})
    outcome, net = run(board, tmp_path / "killed", settings)
    assert outcome.resumed_from == 20 and outcome.snapshots == [5, 15, 25, 30]
    for step, complaint in zip((10, 20), outcome.complaints, strict=True):
        assert f"snapshot-{step:08d}.safetensors cannot be used" in complaint
    assert weights(net) == weights(expected)


def test_a_snapshot_is_written_before_the_checkpoint_of_its_iteration(board, tmp_path, monkeypatch):
    settings, save = SETTINGS.model_copy(update={"snapshots": 3}), Snapshots.save

    def killed(self: Snapshots, step: int, tensors: Any) -> None:
        if step == 20:
            raise Interrupted
        save(self, step, tensors)

    monkeypatch.setattr(Snapshots, "save", killed)
    with pytest.raises(Interrupted):
        run(board, tmp_path, settings)
    monkeypatch.undo()
    outcome, _ = run(board, tmp_path, settings)
    assert (outcome.resumed_from, outcome.snapshots, outcome.complaints) == (10, [10, 20, 30], [])


def test_a_diverged_training_has_its_snapshots_up_to_the_last_good_checkpoint(board, tmp_path):
    outcome, _ = run(board, tmp_path, objective=fm_ot(21, value=float("nan")))
    assert (outcome.step, outcome.snapshots) == (20, [6, 12, 18])
    assert all(torch.isfinite(t).all() for _, s in Snapshots(tmp_path, "key").load(outcome.snapshots) for t in s.values())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_snapshot_that_cannot_be_written_is_an_error(board, tmp_path, monkeypatch, error):
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fmbench.store.weights.save_file", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*snapshot.*No space left.*Make room or fix the folder"):
        run(board, tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot write .*w\.safetensors: .*No space left"):
        save_weights(tmp_path / "w.safetensors", network(board), {})
