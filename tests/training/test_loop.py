"""The training loop: what it learns, logs and averages, in every precision and cut into micro-batches."""

import functools
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trainings import SETTINGS, Interrupted, Spoiled, flat, fm_ot, network, run, weights
from user_code import two_points

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import read
from fmbench.data.writer import write
from fmbench.flow.objectives import build
from fmbench.training.run import Listener
from fmbench.training.schedule import learning_rate


def irreducible_loss(points: Tensor) -> float:
    """The least loss of fm_ot on two equally likely points: the variance of x1 - x0 given x_t and t."""
    g = torch.Generator().manual_seed(0)
    n, slope = 200_000, 1 - 1e-4
    t, x0 = torch.rand(n, 1, generator=g).double(), torch.randn(n, 2, generator=g).double()
    x1 = points[torch.randint(2, (n,), generator=g)].double()
    s = 1 - slope * t
    x_t = t * x1 + s * x0
    logits = -((x_t[:, None] - t[:, None] * points.double()) ** 2).sum(2) / (2 * s**2)
    mean_x1 = torch.softmax(logits, 1) @ points.double()
    best = mean_x1 - slope * (x_t - t * mean_x1) / s
    return float((best - (x1 - slope * x0)).square().mean())


def test_it_learns_nearly_all_there_is_to_learn(tmp_path):
    write(two_points(), tmp_path / "data", {"dataset": "two"})
    settings = TrainingSettings(iterations=600, batch_size=256, learning_rate=1e-2, checkpoint_every=300, log_every=20)
    outcome, _ = run(read(tmp_path / "data"), tmp_path / "c", settings, net=network(read(tmp_path / "data"), width=64))
    losses = [loss for _, loss, _ in outcome.curve]
    floor = irreducible_loss(torch.from_numpy(two_points().train[:2]))
    assert losses[0] > 2 * floor
    assert 0.97 * floor < np.mean(losses[-8:]) < 1.2 * floor


def test_the_curve_is_the_mean_loss_of_every_iteration(board, tmp_path):
    seen: list[float] = []

    class Watched(Spoiled):
        def loss(self, *args: Any) -> Tensor:
            loss = super().loss(*args)
            seen.append(float(loss.detach().mean()))
            return loss

    settings = SETTINGS.model_copy(update={"log_every": 8})
    logged: list[tuple[int, float, float]] = []
    listener = Listener(on_log=lambda *entry: logged.append(entry))
    outcome, _ = run(board, tmp_path, settings, Watched(build(METHODS["ddpm"])), listener=listener)
    assert [step for step, _, _ in outcome.curve] == [8, 16, 24, 30]
    assert logged == outcome.curve
    for (done, loss, rate), start in zip(outcome.curve, [0, 8, 16, 24], strict=True):
        assert loss == pytest.approx(np.mean(seen[start:done]), rel=1e-6)
        assert rate == learning_rate(done - 1, 30, 1e-3, 4, "polynomial")
    assert (outcome.step, outcome.reason, outcome.resumed_from, outcome.complaints) == (30, "", 0, [])


@pytest.mark.parametrize("kind", ["board", "tall"])
def test_every_iteration_draws_noise_times_and_dequantisation_anew(kind, request, tmp_path):
    dataset = request.getfixturevalue(kind)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []

    class Watched(Spoiled):
        def loss(self, network: nn.Module, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
            drawn.append((x0, x1, u))
            return super().loss(network, x0, x1, u)

    settings = TrainingSettings(iterations=12, batch_size=12, checkpoint_every=100)  # six epochs of the 24 images
    run(dataset, tmp_path, settings, Watched(build(METHODS["fm_ot"])))
    noise, times = torch.cat([x0.flatten() for x0, _, _ in drawn]), torch.cat([u for _, _, u in drawn])
    assert len(noise.unique()) > 0.999 * len(noise) and len(times.unique()) == len(times)
    error = 5 / len(noise) ** 0.5
    assert abs(noise.mean()) < error and abs(noise.std() - 1) < error
    assert times.min() >= 0 and times.max() < 1 and abs(times.mean() - 0.5) < 5 * 0.29 / len(times) ** 0.5
    if dataset.is_images:
        level = (torch.cat([x1 for _, x1, _ in drawn]).double() + 1) * dataset.levels / 2
        within = (level - level.floor()).flatten()
        assert abs(within.mean() - 0.5) < 5 * 0.29 / len(within) ** 0.5
        assert len(within.unique()) > 0.99 * len(within)


def test_the_network_is_left_with_the_averaged_weights(board, tmp_path):
    """With decay 0 the average is the last weights; with 0.9 it is not."""
    raw = {}
    for decay in (0.0, 0.9):
        _, net = run(board, tmp_path / str(decay), SETTINGS.model_copy(update={"ema_decay": decay}))
        state = torch.load(tmp_path / str(decay) / "checkpoint.pt", weights_only=True)
        raw[decay] = [state["network"][name] for name, _ in net.named_parameters()]
        averages = state["ema"]["averages"]
        assert all(torch.equal(p, a) for p, a in zip(net.parameters(), averages, strict=True))
        assert not net.training
    assert all(torch.equal(a, b) for a, b in zip(raw[0.0], raw[0.9], strict=True))  # averaging does not change the training
    assert all(torch.equal(a, b) for a, b in zip(raw[0.0], run(board, tmp_path / "0.0")[1].parameters(), strict=True))


def test_the_same_seed_gives_the_same_training_and_another_does_not(board, tmp_path):
    outcomes = {name: run(board, tmp_path / name, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))}
    assert weights(outcomes["a"][1]) == weights(outcomes["b"][1]) != weights(outcomes["c"][1])
    assert outcomes["a"][0].curve == outcomes["b"][0].curve


def test_how_often_it_logs_and_saves_does_not_change_what_it_learns(board, tmp_path):
    _, often = run(board, tmp_path / "a", SETTINGS.model_copy(update={"log_every": 1, "checkpoint_every": 3}))
    _, seldom = run(board, tmp_path / "b", SETTINGS.model_copy(update={"log_every": 100, "checkpoint_every": 100}))
    assert weights(often) == weights(seldom)


def test_the_global_generator_does_not_matter(board, tmp_path):
    torch.manual_seed(0)
    _, one = run(board, tmp_path / "a")
    torch.rand(100)
    _, other = run(board, tmp_path / "b", listener=Listener(on_log=lambda *_: torch.rand(3)))
    assert weights(one) == weights(other)


def test_clipping_bounds_the_step(board, tmp_path):
    """Adam ignores the size of gradients, but not how it changes from step to step."""
    _, free = run(board, tmp_path / "a")
    _, clipped = run(board, tmp_path / "b", SETTINGS.model_copy(update={"clip_norm": 1e-3}))
    _, loose = run(board, tmp_path / "c", SETTINGS.model_copy(update={"clip_norm": 1e6}))
    assert weights(free) != weights(clipped)
    assert weights(free) == weights(loose)


def test_further_averages_equal_those_of_separate_trainings(board, tmp_path):
    outcome, _ = run(board, tmp_path / "a", SETTINGS.model_copy(update={"more_ema_decays": [0.5, 0.0]}))
    assert list(outcome.averages) == [0.5, 0.0]
    for decay, tensors in outcome.averages.items():
        _, alone = run(board, tmp_path / str(decay), SETTINGS.model_copy(update={"ema_decay": decay}))
        assert list(tensors) == list(alone.state_dict()) and flat(tensors) == weights(alone)


@pytest.mark.parametrize("kind", ["board", "tall"])
def test_micro_batches_train_like_the_whole_batch(kind, request, tmp_path):
    dataset = request.getfixturevalue(kind)
    settings = SETTINGS.model_copy(update={"iterations": 12, "learning_rate": 1e-4})
    (whole, one), (cut, other) = (
        run(dataset, tmp_path / str(n), settings.model_copy(update={"accumulation": n})) for n in (1, 4)
    )
    for (_, a, _), (_, b, _) in zip(whole.curve, cut.curve, strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    start = nn.utils.parameters_to_vector(network(dataset).parameters())
    ends = [nn.utils.parameters_to_vector(net.parameters()) for net in (one, other)]
    assert (ends[1] - ends[0]).norm() < 1e-2 * (ends[0] - start).norm()


class Loud(Spoiled):
    """A loss so large that the first steps of fp16 overflow."""

    def loss(self, *arguments: Any) -> Tensor:
        return super().loss(*arguments) * 100


@pytest.mark.parametrize("at", [3, 17])
def test_an_fp16_training_resumes_to_the_bit_with_its_loss_scale(board, tmp_path, at):
    settings = SETTINGS.model_copy(update={"precision": "fp16", "checkpoint_every": 2})
    objective = build(METHODS["fm_ot"])
    whole, expected = run(board, tmp_path / "whole", settings, Loud(objective, -1))
    assert whole.reason == "" and whole.skipped > 0
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", settings, Loud(objective, at))
    outcome, net = run(board, tmp_path / "killed", settings, Loud(objective, -1))
    assert outcome.resumed_from == at // 2 * 2
    assert (weights(net), outcome.curve, outcome.skipped) == (weights(expected), whole.curve, whole.skipped)


def test_an_fp16_loss_that_is_not_finite_is_a_divergence(board, tmp_path):
    settings = SETTINGS.model_copy(update={"precision": "fp16"})
    outcome, _ = run(board, tmp_path, settings, fm_ot(17, value=float("nan")))
    assert "the loss became nan at iteration 17 " in outcome.reason and outcome.step == 10


def test_a_bf16_training_learns_the_same_up_to_rounding(board, tmp_path):
    (full, _), (low, _) = (run(board, tmp_path / p, SETTINGS.model_copy(update={"precision": p})) for p in ("fp32", "bf16"))
    losses = [np.array([loss for _, loss, _ in outcome.curve]) for outcome in (full, low)]
    assert 0 < np.abs(losses[1] / losses[0] - 1).max() < 0.02


def test_a_compiled_training_reports_the_seconds_of_compilation(board, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, expected = run(board, tmp_path / "a")
    compiled, net = run(board, tmp_path / "b", SETTINGS.model_copy(update={"compile": True}))
    assert plain.compile_seconds is None and compiled.compile_seconds is not None and compiled.compile_seconds > 0
    assert (weights(net), compiled.curve) == (weights(expected), plain.curve)


@pytest.mark.parametrize("room", [0, 1])
def test_a_streamed_training_equals_the_resident_one_and_resumes(tall, tmp_path, room):
    settings = TrainingSettings(iterations=8, batch_size=5, checkpoint_every=3, log_every=2, flips=True)
    _, expected = run(tall, tmp_path / "whole", settings)
    settings = settings.model_copy(update={"resident_mib": room})
    with pytest.raises(Interrupted):
        run(tall, tmp_path / "killed", settings, fm_ot(5))
    outcome, net = run(tall, tmp_path / "killed", settings)
    assert (weights(net), outcome.resumed_from) == (weights(expected), 3)


def test_the_reading_thread_ends_with_its_training(board, tmp_path):
    with pytest.raises(Interrupted):
        run(board, tmp_path, SETTINGS.model_copy(update={"resident_mib": 0}), fm_ot(5))
    assert "fmbench-batches" not in {thread.name for thread in threading.enumerate()}
