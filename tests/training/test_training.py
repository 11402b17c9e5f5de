import dataclasses
import functools
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from user_code import tall_images, two_points

from fmbench.config.hashing import settings_hash
from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet, read
from fmbench.data.sources import checkerboard
from fmbench.data.writer import write
from fmbench.errors import CheckpointError, LockedError
from fmbench.flow.objectives import Objective, build
from fmbench.networks.mlp import MLP
from fmbench.networks.unet import UNet
from fmbench.stages.common import Job, new_network, write_model
from fmbench.stages.models import load_model, load_snapshots
from fmbench.store.checkpoint import CheckpointFolder, load_weights, save_weights
from fmbench.system.distributed import ALONE, Group
from fmbench.system.progress import Console
from fmbench.training.batches import BatchSampler
from fmbench.training.loop import Outcome, train
from fmbench.training.schedule import FLOOR, learning_rate
from fmbench.training.snapshots import Snapshots

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(
    iterations=30, batch_size=16, learning_rate=1e-3, warmup_iterations=4, checkpoint_every=10, log_every=4, ema_decay=0.9
)


class Interrupted(Exception):
    """Stands for a kill: nothing in the package catches it."""


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> DataSet:
    folder = tmp_path_factory.mktemp("board")
    write(checkerboard(train=50, test=20), folder, {"dataset": "board"})
    return read(folder)


@pytest.fixture(scope="module")
def tall(tmp_path_factory) -> DataSet:
    folder = tmp_path_factory.mktemp("tall")
    write(tall_images(train=24, test=6), folder, {"dataset": "tall"})
    return read(folder)


def network(dataset: DataSet, dropout: float = 0.0, width: int = 16) -> nn.Module:
    torch.manual_seed(11)
    if dataset.is_images:
        return UNet(dataset.shape, channels=8, channels_multiple=(1, 2), depth=1, head_channels=8, dropout=dropout)
    return MLP(dataset.shape, width=width, depth=2)


class Spoiled:
    """An objective whose loss misbehaves at one iteration of one process."""

    def __init__(self, objective: Objective, at: int, first: int = 0, value: float | None = None) -> None:
        self.objective, self.at, self.value, self.step = objective, at, value, first

    def loss(self, network: nn.Module, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        step, self.step = self.step, self.step + 1
        loss = self.objective.loss(network, x0, x1, u)
        if step != self.at:
            return loss
        if self.value is None:
            raise Interrupted
        return loss * self.value


def run(
    dataset: DataSet,
    folder: Path,
    settings: TrainingSettings = SETTINGS,
    objective: Any = None,
    key: str = "key",
    dropout: float = 0.0,
    on_log: Any = None,
    on_checkpoint: Any = None,
    on_resume: Any = None,
    tell: Any = None,
    seed: int = 5,
    width: int = 16,
    given: nn.Module | None = None,
    group: Group = ALONE,
) -> tuple[Outcome, nn.Module]:
    net = network(dataset, dropout, width) if given is None else given
    objective = objective or build(METHODS["fm_ot"])
    with CheckpointFolder(folder) as checkpoints:
        outcome = train(
            objective,
            net,
            dataset,
            settings,
            seed,
            checkpoints,
            key,
            CPU,
            on_log or (lambda *_: None),
            on_checkpoint or (lambda: None),
            on_resume or (lambda step, curve: None),
            group=group,
            tell=tell or (lambda line: None),
        )
    return outcome, net


def weights(net: nn.Module) -> bytes:
    return b"".join(v.detach().contiguous().numpy().tobytes() for v in net.state_dict().values())


# The schedule


def test_warm_up_is_linear_from_the_floor_to_the_peak():
    for step in range(50):
        rate = learning_rate(step, 200, 1e-3, 50, "polynomial")
        assert rate == pytest.approx(1e-8 + (1e-3 - 1e-8) * step / 50, rel=1e-12)
    assert learning_rate(0, 200, 1e-3, 50, "polynomial") == FLOOR == 1e-8
    assert learning_rate(50, 200, 1e-3, 50, "polynomial") == 1e-3


@pytest.mark.parametrize(("iterations", "warmup"), [(200, 0), (200, 50), (2, 0), (3, 1)])
def test_polynomial_falls_linearly_to_the_floor_at_the_last_step(iterations, warmup):
    rates = [learning_rate(step, iterations, 1e-3, warmup, "polynomial") for step in range(warmup, iterations)]
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(1e-8, rel=1e-6)
    steps = np.diff(rates)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert steps[0] < 0


def test_constant_stays_at_the_peak_after_the_warm_up():
    assert [learning_rate(s, 10, 0.5, 2, "constant") for s in range(2, 10)] == [0.5] * 8
    assert learning_rate(1, 10, 0.5, 2, "constant") == pytest.approx(0.25)


def test_a_single_iteration_has_a_rate():
    assert learning_rate(0, 1, 1e-3, 0, "polynomial") == 1e-3


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="schedule must be 'constant' or 'polynomial', not 'cosine'"):
        learning_rate(0, 10, 1e-3, 0, "cosine")


# Batches


@pytest.mark.parametrize(("size", "batch"), [(12, 4), (10, 4), (7, 7), (5, 8), (3, 10), (1, 3)])
def test_every_epoch_has_every_sample_once(size, batch):
    sampler = BatchSampler(size, batch, seed=3)
    epochs = 6
    steps = -(-epochs * size // batch)
    batches = [sampler.indices(step) for step in range(steps)]
    assert all(b.shape == (batch,) and b.dtype == torch.int64 for b in batches)
    stream = torch.cat(batches)[: epochs * size].reshape(epochs, size)
    for epoch in stream:
        assert sorted(epoch.tolist()) == list(range(size))
    if size > 3:
        assert len({tuple(e.tolist()) for e in stream}) > 1  # another order in every epoch


def test_a_batch_is_a_function_of_seed_and_step():
    walked = BatchSampler(10, 4, seed=3)
    expected = [walked.indices(step).tolist() for step in range(20)]
    for step in (19, 0, 7, 3, 12, 2):  # in any order, by a new sampler or a used one
        assert BatchSampler(10, 4, seed=3).indices(step).tolist() == expected[step]
        assert walked.indices(step).tolist() == expected[step]
    assert [BatchSampler(10, 4, seed=4).indices(step).tolist() for step in range(20)] != expected


# Training


def irreducible_loss(points: Tensor) -> float:
    """What the best network loses with fm_ot on two equally likely points: the variance of x1 - x0 given x_t and t."""
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
    outcome, _ = run(read(tmp_path / "data"), tmp_path / "c", settings, width=64)
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
    outcome, _ = run(
        board, tmp_path, settings, Watched(build(METHODS["ddpm"]), at=-1), on_log=lambda *entry: logged.append(entry)
    )
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

    settings = TrainingSettings(iterations=12, batch_size=12, checkpoint_every=100)  # the 24 images come round six times
    run(dataset, tmp_path, settings, Watched(build(METHODS["fm_ot"]), at=-1))
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
    assert all(torch.equal(a, b) for a, b in zip(raw[0.0], raw[0.9], strict=True))  # the average does not touch the training
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
    _, other = run(board, tmp_path / "b", on_log=lambda *_: torch.rand(3))
    assert weights(one) == weights(other)


def test_clipping_bounds_the_step(board, tmp_path):
    """Adam does not care for the size of a gradient, but for its size beside earlier ones."""
    _, free = run(board, tmp_path / "a")
    _, clipped = run(board, tmp_path / "b", SETTINGS.model_copy(update={"clip_norm": 1e-3}))
    _, loose = run(board, tmp_path / "c", SETTINGS.model_copy(update={"clip_norm": 1e6}))
    assert weights(free) != weights(clipped)
    assert weights(free) == weights(loose)


# Resuming


@pytest.mark.parametrize("at", [0, 3, 9, 10, 11, 17, 20, 29])
def test_a_killed_training_goes_on_to_the_bit(board, tmp_path, at):
    """Checkpoints are at 10 and 20, log points at 4, 8, ...: kills fall before, between, on and after both."""
    whole, expected = run(board, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=Spoiled(build(METHODS["fm_ot"]), at))
    logged: list[tuple] = []
    resumed: list[tuple] = []
    outcome, net = run(
        board,
        tmp_path / "killed",
        on_log=lambda *entry: logged.append(entry),
        on_resume=lambda step, curve: resumed.extend(curve),
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
        run(board, tmp_path / "killed", **{callback: count})
    outcome, net = run(board, tmp_path / "killed")
    assert weights(net) == weights(expected)
    assert outcome.curve == whole.curve


def test_killed_again_and_again(board, tmp_path):
    whole, expected = run(board, tmp_path / "whole")
    for at in (5, 12, 13, 25, 28):
        with pytest.raises(Interrupted):
            run(board, tmp_path / "killed", objective=Spoiled(build(METHODS["fm_ot"]), at, first=at // 10 * 10))
    outcome, net = run(board, tmp_path / "killed")
    assert (weights(net), outcome.curve) == (weights(expected), whole.curve)


def test_images_and_dropout_resume_to_the_bit(tall, tmp_path):
    settings, ends = TrainingSettings(iterations=8, batch_size=5, checkpoint_every=3, log_every=2), set()
    for dropout in (0.0, 0.3):
        folder = tmp_path / str(dropout)
        whole, expected = run(tall, folder / "whole", settings, dropout=dropout)
        with pytest.raises(Interrupted):
            run(tall, folder / "killed", settings, Spoiled(build(METHODS["fm_ot"]), 5), dropout=dropout)
        outcome, net = run(tall, folder / "killed", settings, dropout=dropout)
        assert (weights(net), outcome.curve, outcome.resumed_from) == (weights(expected), whole.curve, 3)
        ends.add(weights(net))
    assert len(ends) == 2  # it is there in training


def test_a_finished_training_run_again_does_nothing(board, tmp_path):
    whole, expected = run(board, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    outcome, net = run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), at=0))  # one iteration would raise
    assert (weights(net), outcome.curve, outcome.step) == (weights(expected), whole.curve, 30)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_what_must_not_be_lost_is_flushed_before_each_checkpoint(board, tmp_path):
    found: list[int | None] = []

    def flush() -> None:
        latest = tmp_path / "checkpoint.pt"
        found.append(torch.load(latest, weights_only=True)["step"] if latest.exists() else None)

    run(board, tmp_path, on_checkpoint=flush)
    assert found == [None, 0, 10, 20]


def test_seconds_are_of_all_attempts_and_without_compiling(board, tmp_path, monkeypatch):
    """By a clock that goes on by a second with each loss, the one of compiling included."""
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


def test_processes_that_read_different_checkpoints_are_told(board, tmp_path):
    class Astray(Group):
        """With another process, which found a checkpoint of iteration 20."""

        def mean(self, values: Tensor) -> Tensor:
            return (values + 20) / 2

    with pytest.raises(CheckpointError, match=r"read different checkpoints in .*; it must be a folder that all of them see"):
        run(board, tmp_path, group=Astray())


# Snapshots


def snapshots(folder: Path, key: str = "key") -> Snapshots:
    return Snapshots(folder, key)


def flat(tensors: dict[str, Tensor]) -> bytes:
    return b"".join(value.numpy().tobytes() for value in tensors.values())


def test_a_snapshot_is_the_model_of_a_training_that_ends_there(board, tmp_path):
    """With a constant rate nothing in an iteration knows how many follow."""
    settings = SETTINGS.model_copy(update={"schedule": "constant", "snapshots": 4})
    outcome, net = run(board, tmp_path / "whole", settings)
    assert outcome.snapshots == settings.snapshot_steps() == [7, 15, 22, 30]
    for step, tensors in snapshots(tmp_path / "whole").load(outcome.snapshots):
        _, shorter = run(board, tmp_path / str(step), settings.model_copy(update={"iterations": step, "snapshots": 0}))
        assert list(tensors) == sorted(shorter.state_dict())
        assert all(torch.equal(tensors[name], value) for name, value in shorter.state_dict().items())
    assert all(torch.equal(tensors[name], value) for name, value in net.state_dict().items())  # the last is the model


def test_without_snapshots_there_are_none(board, tmp_path):
    outcome, _ = run(board, tmp_path, SETTINGS.model_copy(update={"snapshots": 0}))
    assert outcome.snapshots == [] and not list(tmp_path.glob("snapshot*"))


@pytest.mark.parametrize("at", [5, 6, 11, 12, 23, 29])
def test_snapshots_survive_a_kill(board, tmp_path, at):
    """They fall at 6, 12, ..., the checkpoints at 10 and 20."""
    whole = tmp_path / "whole"
    run(board, whole)
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=Spoiled(build(METHODS["fm_ot"]), at))
    outcome, _ = run(board, tmp_path / "killed")
    expected = {p.name: p.read_bytes() for p in whole.glob("snapshot-*")}
    assert {p.name: p.read_bytes() for p in (tmp_path / "killed").glob("snapshot-*")} == expected
    assert outcome.snapshots == [6, 12, 18, 24, 30] and len(expected) == 5


def test_what_a_kill_left_half_written_is_removed(board, tmp_path):
    leftover = tmp_path / ".snapshot-00000006.safetensors.x.safetensors"
    leftover.write_bytes(b"half")
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 25))
    assert not leftover.exists()
    leftover.write_bytes(b"half")
    outcome, _ = run(board, tmp_path)
    assert outcome.resumed_from == 20 and not leftover.exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another training", "one bit"])
def test_a_snapshot_that_is_lost_costs_no_training(board, tmp_path, damage):
    """It is left out, which is said, and the weights are those of an undisturbed training; the checkpoint's own one is looked
    at, too."""
    settings = SETTINGS.model_copy(update={"snapshots": 6})
    _, expected = run(board, tmp_path / "whole", settings)
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", settings, Spoiled(build(METHODS["fm_ot"]), 27))
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
            snapshots(tmp_path / "killed", "other").save(step, {"a": torch.zeros(1)})
    outcome, net = run(board, tmp_path / "killed", settings)
    assert outcome.resumed_from == 20 and outcome.snapshots == [5, 15, 25, 30]
    for step, complaint in zip((10, 20), outcome.complaints, strict=True):
        assert f"snapshot-{step:08d}.safetensors cannot be used" in complaint
    assert weights(net) == weights(expected)


def test_a_checkpoint_is_never_there_before_the_snapshot_of_its_iteration(board, tmp_path, monkeypatch):
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


class Noisy(nn.Module):
    """A network that draws for itself, by no layer that torch calls a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drawn = nn.Linear(3, 2), []

    def forward(self, t, x):
        self.drawn.append(float(torch.rand(())))
        return torch.nn.functional.dropout(self.layer(torch.cat([x, t[:, None]], 1)), 0.5, self.training)


def test_a_network_that_draws_for_itself_goes_on_to_the_same_bytes(board, tmp_path):
    torch.manual_seed(0)
    start = Noisy().state_dict()

    def noisy():
        net = Noisy()
        net.load_state_dict(start)
        return net

    torch.manual_seed(1)
    _, expected = run(board, tmp_path / "whole", given=noisy())
    torch.manual_seed(2)
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=Spoiled(build(METHODS["fm_ot"]), 25), given=noisy())
    outcome, net = run(board, tmp_path / "killed", given=noisy())
    assert outcome.resumed_from == 20 and weights(net) == weights(expected)
    assert len(set(expected.drawn)) == 30 and net.drawn == expected.drawn[20:]  # anew in each iteration


def test_a_diverged_training_has_the_snapshots_up_to_where_it_got(board, tmp_path):
    outcome, _ = run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 21, value=float("nan")))
    assert (outcome.step, outcome.snapshots) == (20, [6, 12, 18])
    assert all(torch.isfinite(t).all() for _, s in snapshots(tmp_path).load(outcome.snapshots) for t in s.values())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_snapshot_that_cannot_be_written_says_so(board, tmp_path, monkeypatch, error):
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fmbench.store.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*snapshot.*No space left.*Make room or fix the folder"):
        run(board, tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot write .*w\.safetensors: .*No space left"):
        save_weights(tmp_path / "w.safetensors", network(board), {})


# Precision, micro-batches and averages in the loop


def test_further_averages_are_those_of_trainings_of_their_own(board, tmp_path):
    outcome, _ = run(board, tmp_path / "a", SETTINGS.model_copy(update={"more_ema_decays": [0.5, 0.0]}))
    assert list(outcome.averages) == [0.5, 0.0]
    for decay, tensors in outcome.averages.items():
        _, alone = run(board, tmp_path / str(decay), SETTINGS.model_copy(update={"ema_decay": decay}))
        assert list(tensors) == list(alone.state_dict()) and flat(tensors) == weights(alone)


@pytest.mark.parametrize("kind", ["board", "tall"])
def test_micro_batches_train_as_the_batch_does(kind, request, tmp_path):
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
    """So loud that fp16's first steps overflow."""

    def loss(self, *arguments: Any) -> Tensor:
        return super().loss(*arguments) * 100


@pytest.mark.parametrize("at", [3, 17])
def test_an_fp16_training_goes_on_to_the_bit_with_its_loss_scale(board, tmp_path, at):
    settings = SETTINGS.model_copy(update={"precision": "fp16", "checkpoint_every": 2})
    objective = build(METHODS["fm_ot"])
    whole, expected = run(board, tmp_path / "whole", settings, Loud(objective, -1))
    assert whole.reason == "" and whole.skipped > 0
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", settings, Loud(objective, at))
    outcome, net = run(board, tmp_path / "killed", settings, Loud(objective, -1))
    assert outcome.resumed_from == at // 2 * 2
    assert (weights(net), outcome.curve, outcome.skipped) == (weights(expected), whole.curve, whole.skipped)


def test_an_fp16_loss_gone_bad_is_a_divergence_all_the_same(board, tmp_path):
    settings = SETTINGS.model_copy(update={"precision": "fp16"})
    outcome, _ = run(board, tmp_path, settings, Spoiled(build(METHODS["fm_ot"]), 17, value=float("nan")))
    assert "the loss became nan at iteration 17 " in outcome.reason and outcome.step == 10


def test_a_bf16_training_learns_the_same_to_its_rounding(board, tmp_path):
    (full, _), (low, _) = (run(board, tmp_path / p, SETTINGS.model_copy(update={"precision": p})) for p in ("fp32", "bf16"))
    losses = [np.array([loss for _, loss, _ in outcome.curve]) for outcome in (full, low)]
    assert 0 < np.abs(losses[1] / losses[0] - 1).max() < 0.02


def test_a_compiled_training_says_how_long_that_took(board, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, expected = run(board, tmp_path / "a")
    compiled, net = run(board, tmp_path / "b", SETTINGS.model_copy(update={"compile": True}))
    assert plain.compile_seconds is None and compiled.compile_seconds is not None and compiled.compile_seconds > 0
    assert (weights(net), compiled.curve) == (weights(expected), plain.curve)


@pytest.mark.parametrize("room", [0, 1])
def test_a_streamed_training_is_the_resident_one_and_resumes(tall, tmp_path, room):
    settings = TrainingSettings(iterations=8, batch_size=5, checkpoint_every=3, log_every=2, flips=True)
    _, expected = run(tall, tmp_path / "whole", settings)
    settings = settings.model_copy(update={"resident_mib": room})
    with pytest.raises(Interrupted):
        run(tall, tmp_path / "killed", settings, Spoiled(build(METHODS["fm_ot"]), 5))
    outcome, net = run(tall, tmp_path / "killed", settings)
    assert (weights(net), outcome.resumed_from) == (weights(expected), 3)


def test_what_reads_ahead_ends_with_its_training(board, tmp_path):
    with pytest.raises(Interrupted):
        run(board, tmp_path, SETTINGS.model_copy(update={"resident_mib": 0}), Spoiled(build(METHODS["fm_ot"]), 5))
    assert "fmbench-batches" not in {thread.name for thread in threading.enumerate()}


# Divergence


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("at", "last_good"), [(0, 0), (5, 0), (9, 0), (10, 10), (17, 10), (29, 20)])
def test_a_loss_gone_bad_ends_with_the_last_good_checkpoint(board, tmp_path, at, last_good, value):
    outcome, net = run(board, tmp_path / "bad", objective=Spoiled(build(METHODS["fm_ot"]), at, value=value))
    assert f"the loss became {value} at iteration {at} " in outcome.reason
    assert outcome.step == last_good
    assert all(step <= last_good for step, _, _ in outcome.curve)
    with pytest.raises(Interrupted):  # the same training, stopped just after that checkpoint
        run(board, tmp_path / "good", objective=Spoiled(build(METHODS["fm_ot"]), last_good))
    state = torch.load(tmp_path / "good" / "checkpoint.pt", weights_only=True)
    assert state["step"] == last_good
    assert all(torch.equal(p, a) for p, a in zip(net.parameters(), state["ema"]["averages"], strict=True))


def test_the_reason_names_the_learning_rate_of_the_iteration_that_went_bad(board, tmp_path):
    """Losses are looked at every log_every iterations only; by then the rate is another one."""
    outcome, _ = run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 0, value=float("nan")))
    assert f"(learning rate {learning_rate(0, 30, 1e-3, 4, 'polynomial'):.3g})" in outcome.reason


def test_a_learning_rate_beyond_reason(board, tmp_path):
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "warmup_iterations": 0})
    outcome, net = run(board, tmp_path, settings)
    assert "at iteration 1 " in outcome.reason
    assert outcome.step == 0
    assert weights(net) == weights(network(board))  # the initial weights


def test_weights_gone_bad_are_in_no_checkpoint(board, tmp_path):
    """The loss before them was good, and the next is not there yet."""

    class Steep(Spoiled):
        def loss(self, *args: Any) -> Tensor:
            last, loss = self.step == self.at, super().loss(*args)
            return loss + (loss * 0).sqrt() if last else loss  # an infinite derivative times 0

    outcome, net = run(board, tmp_path, objective=Steep(build(METHODS["fm_ot"]), 19, value=1.0))
    assert "a weight stopped being finite by iteration 20 " in outcome.reason and outcome.step == 10
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_diverged_training_diverges_again_after_a_kill(board, tmp_path):
    first, one = run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 17, value=float("nan")))
    again, other = run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 17, first=10, value=float("nan")))
    assert (again.reason, again.step, again.curve) == (first.reason, first.step, first.curve)
    assert weights(one) == weights(other)


# Checkpoints


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
def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(board, tmp_path, kept):
    whole, expected = run(board, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=Spoiled(build(METHODS["fm_ot"]), 25))
    newest = tmp_path / "killed" / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:kept])
    outcome, net = run(board, tmp_path / "killed")
    assert outcome.resumed_from == 10
    assert len(outcome.complaints) == 1 and "checkpoint.pt cannot be used" in outcome.complaints[0]
    assert (weights(net), outcome.curve) == (weights(expected), whole.curve)


def test_a_damaged_checkpoint_never_replaces_the_good_one_before_it(board, tmp_path):
    """Else a kill during the next save would lose both."""
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 25))
    good = (tmp_path / "checkpoint.previous.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(b"half of a")
    with pytest.raises(Interrupted):  # resumed from iteration 10, saved at 20, killed at 25
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 25, first=10))
    assert (tmp_path / "checkpoint.previous.pt").read_bytes() == good


def test_what_is_wrong_is_told_at_once(board, tmp_path):
    """A process that is killed later takes nothing of it along."""
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 25))
    (tmp_path / "checkpoint.pt").write_bytes(b"half of a")
    told: list[str] = []
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 13, first=10), tell=told.append)
    (line,) = told
    assert line.startswith(f"warning: {tmp_path / 'checkpoint.pt'} cannot be used (")
    assert line.endswith("; the training goes on from iteration 10")

    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"half of a")
    told.clear()
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 3), tell=told.append)
    assert len(told) == 2 and all(line.endswith("; the training goes on from iteration 0") for line in told)


def test_a_damaged_checkpoint_at_a_training_that_diverges(board, tmp_path):
    """It ends, and does not go on."""

    class Damaging(Spoiled):
        def loss(self, network: Any, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
            found = super().loss(network, x0, x1, u)
            if self.step > 25:
                (tmp_path / "checkpoint.pt").write_bytes(b"half of a")
                found = found * float("nan")
            return found

    told: list[str] = []
    outcome, _ = run(board, tmp_path, objective=Damaging(build(METHODS["fm_ot"]), 10_000), tell=told.append)
    (line,) = told
    assert outcome.reason and outcome.step == 10 and line.endswith("; the weights are those of iteration 10")


def test_another_number_of_threads_is_told(board, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 25))
    before, told = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "get_num_threads", lambda: before + 1)
    run(board, tmp_path, tell=told.append)
    assert told == [
        f"warning: it was on {before} threads and is on {before + 1} now: the same numbers to rounding only; "
        "the training goes on from iteration 20"
    ]


def test_a_resumed_training_does_not_keep_what_it_read(board, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 25))
    load, read = CheckpointFolder.load, []

    def watched(self: CheckpointFolder, key: str) -> Any:
        state, complaints = load(self, key)
        assert state is not None
        read.extend(weakref.ref(x) for x in [*state["network"].values(), *state["ema"]["averages"]])
        return state, complaints

    monkeypatch.setattr(CheckpointFolder, "load", watched)
    alive: list[int] = []
    run(board, tmp_path, on_log=lambda *_: alive.append(gc.collect() * 0 + sum(x() is not None for x in read)))
    assert read and alive and not any(alive)


def test_no_good_checkpoint_means_from_the_start(board, tmp_path):
    whole, expected = run(board, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(board, tmp_path / "killed", objective=Spoiled(build(METHODS["fm_ot"]), 25))
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


def test_a_checkpoint_that_cannot_be_written_says_so_at_once(board, tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint to .*No space left.*Make room or fix the folder"):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), at=0))


def test_a_failed_write_leaves_the_checkpoints_before(board, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        run(board, tmp_path, objective=Spoiled(build(METHODS["fm_ot"]), 25))
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")}

    def half(state: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", half)
    with CheckpointFolder(tmp_path) as folder, pytest.raises(CheckpointError, match="PytorchStreamWriter"):
        folder.save({"key": "key"})
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")} == before


# Weights


def test_weights_survive_the_file_and_know_their_network(board, tmp_path):
    net, other = network(board), MLP(board.shape, width=16, depth=2)
    save_weights(tmp_path / "w.safetensors", net, {"step": 1})
    load_weights(tmp_path / "w.safetensors", other)
    assert weights(net) == weights(other)
    with pytest.raises(CheckpointError, match="do not fit the network described beside them"):
        load_weights(tmp_path / "w.safetensors", MLP(board.shape, width=17, depth=2))


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, t, x):
        return self.second(self.first(torch.cat([x, t[:, None]], 1)))[:, :2]


def test_tied_weights_are_trained_and_kept(board, tmp_path):
    outcome, net = run(board, tmp_path, given=Tied())
    (_, kept), *_ = snapshots(tmp_path).load(outcome.snapshots[-1:])
    assert torch.equal(kept["first.weight"], kept["second.weight"]) and torch.equal(kept["first.weight"], net.first.weight)
    save_weights(tmp_path / "w.safetensors", net, {})
    other = Tied()
    load_weights(tmp_path / "w.safetensors", other)
    assert weights(other) == weights(net) and other.first.weight is other.second.weight


def test_weights_that_are_missing_or_truncated(board, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(CheckpointError, match=r"w\.safetensors are missing; rerun the training"):
        load_weights(path, network(board))
    save_weights(path, network(board), {})
    good = path.read_bytes()
    for kept in (0, 4, 100, -1):
        path.write_bytes(good[:kept])
        with pytest.raises(CheckpointError, match=r"w\.safetensors cannot be read .*; delete the file and rerun the training"):
            load_weights(path, network(board))


def test_a_model_and_its_snapshots_are_evaluated_without_dropout(tall, tmp_path):
    unet = {"kind": "unet", "channels": 8, "channels_multiple": [1, 2], "depth": 1, "head_channels": 8, "dropout": 0.5}
    spec = {"network": unet, "seed": 3, "dataset": "tall", "data": settings_hash(tall.manifest["spec"])}
    spec["method"] = dataclasses.asdict(METHODS["fm_ot"])
    net = new_network(spec, tall)
    with torch.no_grad():  # or the layers behind it would put out 0
        for p in net.parameters():
            p.add_(0.1)
    job = Job(spec, Console("train", "none"), CPU, "code")
    write_model(job, tall, tmp_path, net, 30, [], 0, "", snapshots=[(15, net.state_dict())])
    t, x = torch.rand(2), torch.rand(2, *tall.shape)
    snapshots = [model for _, model in load_snapshots(tmp_path, tall, CPU)]
    for model in (load_model(tmp_path, tall, CPU), *snapshots):
        assert torch.equal(model.velocity(t, x), model.velocity(t, x))
    assert len(snapshots) == 1 and not torch.equal(net.train()(t, x), net(t, x))


# The same start for every method


@pytest.mark.parametrize("kind", ["board", "tall"])
def test_the_initial_network_is_a_function_of_the_seed_alone(kind, request):
    dataset = request.getfixturevalue(kind)
    settings: dict[str, Any] = {"kind": "mlp", "width": 8, "depth": 2}
    if dataset.is_images:
        settings = {"kind": "unet", "channels": 8, "channels_multiple": [1, 2], "depth": 1, "head_channels": 8}
    specs = [{"network": settings, "seed": 3, "method": dataclasses.asdict(method)} for method in METHODS.values()]
    nets = []
    for spec in specs:
        torch.rand(7)  # whatever was drawn before
        nets.append(weights(new_network(spec, dataset)))
    assert len(set(nets)) == 1
    assert weights(new_network(specs[0] | {"seed": 4}, dataset)) != nets[0]


def test_making_a_network_leaves_the_global_generator_alone(board):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    new_network({"network": {"kind": "mlp", "width": 8, "depth": 2}, "seed": 3}, board)
    assert torch.equal(torch.get_rng_state(), before)
