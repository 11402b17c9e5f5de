"""A training that is killed and resumed ends with the same bits."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainings import SETTINGS, Interrupted, Spoiled, fm_ot, network, run, weights

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.errors import CheckpointError
from fmbench.flow.objectives import build
from fmbench.networks.mlp import MLP
from fmbench.system.distributed import Group
from fmbench.training.run import Listener


@pytest.mark.parametrize("at", [0, 3, 9, 10, 11, 17, 20, 29])
def test_a_killed_training_resumes_to_the_bit(board, tmp_path, at):
    """Checkpoints are at 10 and 20, log points at 4, 8, ...: kills fall before, between, on and after both."""
    whole, expected = run(board, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=fm_ot(at))
    logged: list[tuple] = []
    resumed: list[tuple] = []
    outcome, net = run(
        board,
        tmp_path / "killed",
        listener=Listener(on_log=lambda *entry: logged.append(entry), on_resume=lambda step, curve: resumed.extend(curve)),
    )
    assert weights(net) == weights(expected)
    assert outcome.curve == whole.curve == resumed + logged
    assert all(step <= outcome.resumed_from for step, _, _ in resumed)
    assert outcome.resumed_from == at // 10 * 10
    assert outcome.complaints == []


@pytest.mark.parametrize("callback", ["on_log", "on_checkpoint"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_kill_in_a_callback(board, tmp_path, callback, nth):
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise Interrupted

    whole, expected = run(board, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", listener=Listener(**{callback: count}))
    outcome, net = run(board, tmp_path / "killed")
    assert weights(net) == weights(expected)
    assert outcome.curve == whole.curve


def test_a_training_killed_again_and_again(board, tmp_path):
    whole, expected = run(board, tmp_path / "whole")
    for at in (5, 12, 13, 25, 28):
        with pytest.raises(Interrupted):
            run(board, tmp_path / "killed", objective=fm_ot(at, first=at // 10 * 10))
    outcome, net = run(board, tmp_path / "killed")
    assert (weights(net), outcome.curve) == (weights(expected), whole.curve)


def test_a_network_that_learns_to_jump_resumes_to_the_bit(board, tmp_path):
    """Its two times follow from the batch's uniforms, so nothing more is kept."""
    objective = build(METHODS["mean_flow"])

    def spans() -> MLP:
        torch.manual_seed(11)
        return MLP((2,), width=16, depth=2, spans=True)

    before = spans().state_dict()
    whole, expected = run(board, tmp_path / "whole", objective=objective, net=spans())
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=Spoiled(objective, 17), net=spans())
    outcome, net = run(board, tmp_path / "killed", objective=objective, net=spans())
    assert (weights(net), outcome.curve, outcome.resumed_from) == (weights(expected), whole.curve, 10)
    assert not any(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # each has a gradient


def test_images_and_dropout_resume_to_the_bit(tall, tmp_path):
    settings, ends = TrainingSettings(iterations=8, batch_size=5, checkpoint_every=3, log_every=2), set()
    for dropout in (0.0, 0.3):
        folder = tmp_path / str(dropout)
        whole, expected = run(tall, folder / "whole", settings, net=network(tall, dropout))
        with pytest.raises(Interrupted):
            run(tall, folder / "killed", settings, fm_ot(5), network(tall, dropout))
        outcome, net = run(tall, folder / "killed", settings, net=network(tall, dropout))
        assert (weights(net), outcome.curve, outcome.resumed_from) == (weights(expected), whole.curve, 3)
        ends.add(weights(net))
    assert len(ends) == 2  # so dropout is active during training


def test_a_finished_training_run_again_does_nothing(board, tmp_path):
    whole, expected = run(board, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    outcome, net = run(board, tmp_path, objective=fm_ot(at=0))  # one iteration would raise
    assert (weights(net), outcome.curve, outcome.step) == (weights(expected), whole.curve, 30)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_the_log_is_flushed_before_each_checkpoint(board, tmp_path):
    found: list[int | None] = []

    def flush() -> None:
        latest = tmp_path / "checkpoint.pt"
        found.append(torch.load(latest, weights_only=True)["step"] if latest.exists() else None)

    run(board, tmp_path, listener=Listener(on_checkpoint=flush))
    assert found == [None, 0, 10, 20]


def test_seconds_add_up_over_attempts_without_compilation(board, tmp_path, monkeypatch):
    """The clock advances by a second with each loss, that of compilation included."""
    seconds = 0

    class Ticking(Spoiled):
        def loss(self, *args: Any) -> Tensor:
            nonlocal seconds
            seconds += 1
            return super().loss(*args)

    for module in ("loop", "step"):
        monkeypatch.setattr(f"fmbench.training.{module}.time", SimpleNamespace(monotonic=lambda: seconds))
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    settings = SETTINGS.model_copy(update={"compile": True})
    with pytest.raises(Interrupted):
        run(board, tmp_path, settings, Ticking(build(METHODS["fm_ot"]), 16))
    outcome, _ = run(board, tmp_path, settings, Ticking(build(METHODS["fm_ot"]), -1))
    assert (outcome.resumed_from, outcome.seconds, outcome.compile_seconds) == (10, 30, 1)


def test_processes_that_read_different_checkpoints_are_an_error(board, tmp_path):
    class Astray(Group):
        """A group whose other process found a checkpoint of iteration 20."""

        def mean(self, values: Tensor) -> Tensor:
            return (values + 20) / 2

    with pytest.raises(CheckpointError, match=r"read different checkpoints in .*; use a folder that all of them can see"):
        run(board, tmp_path, group=Astray())


class Noisy(nn.Module):
    """A network that draws random numbers outside of any dropout layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drawn = nn.Linear(3, 2), []

    def forward(self, t, x):
        self.drawn.append(float(torch.rand(())))
        return torch.nn.functional.dropout(self.layer(torch.cat([x, t[:, None]], 1)), 0.5, self.training)


def test_a_network_that_draws_random_numbers_resumes_to_the_bit(board, tmp_path):
    torch.manual_seed(0)
    start = Noisy().state_dict()

    def noisy():
        net = Noisy()
        net.load_state_dict(start)
        return net

    torch.manual_seed(1)
    _, expected = run(board, tmp_path / "whole", net=noisy())
    torch.manual_seed(2)
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=fm_ot(25), net=noisy())
    outcome, net = run(board, tmp_path / "killed", net=noisy())
    assert outcome.resumed_from == 20 and weights(net) == weights(expected)
    assert len(set(expected.drawn)) == 30 and net.drawn == expected.drawn[20:]  # a new number in each iteration
