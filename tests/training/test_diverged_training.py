"""A training whose loss or weights stop being finite ends with its last good checkpoint."""

from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import SETTINGS, Interrupted, Spoiled, fm_ot, network, run, weights

from fmbench.config.methods import METHODS
from fmbench.flow.objectives import build
from fmbench.training.schedule import learning_rate


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("at", "last_good"), [(0, 0), (5, 0), (9, 0), (10, 10), (17, 10), (29, 20)])
def test_a_loss_that_is_not_finite_ends_with_the_last_good_checkpoint(board, tmp_path, at, last_good, value):
    outcome, net = run(board, tmp_path / "bad", objective=fm_ot(at, value=value))
    assert f"the loss became {value} at iteration {at} " in outcome.reason
    assert outcome.step == last_good
    assert all(step <= last_good for step, _, _ in outcome.curve)
    with pytest.raises(Interrupted):  # the same training, stopped just after that checkpoint
        run(board, tmp_path / "good", objective=fm_ot(last_good))
    state = torch.load(tmp_path / "good" / "checkpoint.pt", weights_only=True)
    assert state["step"] == last_good
    assert all(torch.equal(p, a) for p, a in zip(net.parameters(), state["ema"]["averages"], strict=True))


def test_the_reason_names_the_learning_rate_of_the_bad_iteration(board, tmp_path):
    """Losses are read only every log_every iterations. By then the learning rate has changed."""
    outcome, _ = run(board, tmp_path, objective=fm_ot(0, value=float("nan")))
    assert f"(learning rate {learning_rate(0, 30, 1e-3, 4, 'polynomial'):.3g})" in outcome.reason


def test_a_learning_rate_that_is_far_too_large(board, tmp_path):
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "warmup_iterations": 0})
    outcome, net = run(board, tmp_path, settings)
    assert "at iteration 1 " in outcome.reason
    assert outcome.step == 0
    assert weights(net) == weights(network(board))  # the initial weights


def test_weights_that_are_not_finite_are_in_no_checkpoint(board, tmp_path):
    """The last loss was finite, and the next one is not computed yet."""

    class Steep(Spoiled):
        def loss(self, *args: Any) -> Tensor:
            last, loss = self.step == self.at, super().loss(*args)
            return loss + (loss * 0).sqrt() if last else loss  # an infinite derivative times 0

    outcome, net = run(board, tmp_path, objective=Steep(build(METHODS["fm_ot"]), 19, value=1.0))
    assert "a weight stopped being finite by iteration 20 " in outcome.reason and outcome.step == 10
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_diverged_training_diverges_again_after_a_kill(board, tmp_path):
    first, one = run(board, tmp_path, objective=fm_ot(17, value=float("nan")))
    again, other = run(board, tmp_path, objective=fm_ot(17, first=10, value=float("nan")))
    assert (again.reason, again.step, again.curve) == (first.reason, first.step, first.curve)
    assert weights(one) == weights(other)
