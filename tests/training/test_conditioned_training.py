"""Training with a condition: batches, dropped labels, the start at the condition, regression, and resuming to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainings import CPU, SETTINGS, Interrupted, Spoiled, run, weights
from user_code import tall_images

from fmbench.config.methods import METHODS, Method, Part
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet, read
from fmbench.data.writer import write
from fmbench.flow.objectives import build
from fmbench.flow.regression import Regression, build_loss
from fmbench.flow.starts import ConditionStart
from fmbench.networks import build_network
from fmbench.system.distributed import Group
from fmbench.training.batches import Batches, Resident, Streamed

LOW = {"low_resolution": {"factor": 2, "filter": "bicubic"}}
SMALL = {"channels": 8, "channels_multiple": (1, 2), "depth": 1, "head_channels": 8}


@pytest.fixture(scope="module", params=[LOW, "label"], ids=["low", "label"])
def dataset(request, tmp_path_factory) -> DataSet:
    return prepared(tmp_path_factory.mktemp("data"), request.param)


@pytest.fixture(scope="module")
def low(tmp_path_factory) -> DataSet:
    return prepared(tmp_path_factory.mktemp("low"), LOW)


def prepared(folder: Path, condition: Any) -> DataSet:
    write(tall_images(train=24, test=6), folder, {"dataset": "tall", "condition": condition})
    return read(folder)


def network(dataset: DataSet, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(11)
    return build_network("unet", dataset.shape, SMALL | {"dropout": dropout}, dataset.condition.arguments(dataset.shape))


def batches(dataset: DataSet, *rest: Any, **changes: Any) -> Batches:
    return Batches(dataset, TrainingSettings(**{"batch_size": 10, "iterations": 12} | changes), 5, CPU, *rest)


def walk(made: Batches) -> list[tuple[Tensor, ...]]:
    try:
        return [made(step) for step in range(12)]
    finally:
        made.close()


def same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_a_batch_has_the_condition_of_its_own_samples(dataset):
    (stored,) = dataset.stored_condition("train")
    (all_of_them,) = dataset.condition.tensors(torch.from_numpy(stored.copy()))
    made = batches(dataset)
    for step in range(12):
        _, x1, _, condition = made(step)
        indices = made.source.sampler.indices(step)
        assert torch.equal(condition, all_of_them[indices])
        middle = dataset.to_model(torch.from_numpy(dataset.train[indices.numpy()].copy()), torch.tensor(0.5))
        assert (x1 - middle).abs().max() <= 1 / dataset.levels + 1e-6


def test_noise_times_and_data_are_those_without_a_condition(dataset, tall):
    assert same([batch[:3] for batch in walk(batches(dataset))], walk(batches(tall)))


@pytest.mark.parametrize("flips", [False, True])
def test_streaming_and_shares_give_the_same_batches_to_the_bit(dataset, flips):
    held, streamed = batches(dataset, flips=flips), batches(dataset, flips=flips, resident_mib=0)
    assert (type(held.source), type(streamed.source)) == (Resident, Streamed)
    expected = walk(held)
    assert same(walk(streamed), expected)
    parts = [walk(batches(dataset, Group(rank, 2), flips=flips)) for rank in range(2)]
    assert same([tuple(map(torch.cat, zip(*pair, strict=True))) for pair in zip(*parts, strict=True)], expected)


def test_a_mirrored_image_has_the_mirrored_condition(low):
    (stored,) = low.stored_condition("train")
    (straight,) = low.condition.tensors(torch.from_numpy(stored.copy()))
    turned = straight.flip(-1)
    seen = set()
    made = batches(low, flips=True)
    for step in range(12):
        _, x1, _, condition = made(step)
        indices = made.source.sampler.indices(step).numpy()
        image = low.to_model(torch.from_numpy(low.train[indices].copy()), torch.tensor(0.5))
        for k, i in enumerate(indices):
            mirrored = bool((x1[k] - image[k].flip(-1)).abs().max() < 1.1 / low.levels)
            assert torch.equal(condition[k], turned[i] if mirrored else straight[i])
            seen.add(mirrored)
    assert seen == {True, False}


def test_labels_are_left_out_at_the_rate_of_the_settings(tmp_path):
    labelled = prepared(tmp_path, "label")
    made, plain = batches(labelled, batch_size=2000, label_dropout=0.3), batches(labelled, batch_size=2000)
    dropped = []
    for step in range(5):
        *rest, labels = made(step)
        *same_rest, told = plain(step)
        assert all(torch.equal(a, b) for a, b in zip(rest, same_rest, strict=True))
        left_out = labels == 2
        assert torch.equal(labels[~left_out], told[~left_out])
        dropped.append(left_out.double())
    rate = float(torch.stack(dropped).mean())
    assert abs(rate - 0.3) < 4 * (0.3 * 0.7 / 10_000) ** 0.5
    assert not torch.equal(dropped[0], dropped[1])


def test_a_path_that_starts_at_the_condition_has_its_noise_around_it(low):
    plain, moved = walk(batches(low)), walk(batches(low, Group(), ConditionStart(0.25)))
    for (noise, x1, u, c), (x0, *rest) in zip(plain, moved, strict=True):
        assert torch.equal(x0, c + 0.25 * noise)
        assert all(torch.equal(a, b) for a, b in zip(rest, (x1, u, c), strict=True))


def test_the_loss_sees_the_condition(low):
    """FM-OT's loss of a network that returns its condition, by hand."""
    x0, x1, u, condition = batches(low)(3)
    objective = build(METHODS["fm_ot"])
    found = objective.loss(lambda t, x: condition, x0, x1, u)
    torch.testing.assert_close(found, (condition - (x1 - x0)).flatten(1).square().mean(1), rtol=1e-3, atol=1e-3)


def test_regression_is_the_squared_error_of_the_sample_from_the_condition_alone(low):
    x0, x1, u, condition = batches(low)(3)
    seen = []

    def predict(t: Tensor, x: Tensor) -> Tensor:
        seen.append((t, x))
        return condition

    loss = build_loss(METHODS["regression"])
    assert isinstance(loss, Regression)
    torch.testing.assert_close(loss.loss(predict, x0, x1, u), (condition - x1).flatten(1).square().mean(1))
    ((t, x),) = seen
    assert not t.any() and not x.any() and t.shape == u.shape and x.shape == x1.shape
    with pytest.raises(ValueError, match="the network's output must have shape"):
        loss.loss(lambda t, x: x[:, :1], x0, x1, u)


@pytest.mark.parametrize("method", ["fm_ot", "ddpm", "regression"])
def test_a_conditioned_training_resumes_to_the_bit(dataset, tmp_path, method):
    if method == "regression" and dataset.condition.given == "its label":
        return
    settings = SETTINGS.model_copy(update={"flips": True, "label_dropout": 0.4 * (dataset.condition.given == "its label")})
    objective, net = build_loss(METHODS[method]), lambda: network(dataset, dropout=0.2)
    whole, straight = run(dataset, tmp_path / "a", settings, objective, net())
    with pytest.raises(Interrupted):
        run(dataset, tmp_path / "b", settings, Spoiled(objective, at=17), net())
    resumed, again = run(dataset, tmp_path / "b", settings, objective, net())
    assert resumed.resumed_from == 10 and weights(again) == weights(straight)
    assert resumed.curve == whole.curve


def test_micro_batches_and_streaming_have_the_gradients_of_whole_batches(dataset, tmp_path):
    _, whole = run(dataset, tmp_path / "a", SETTINGS, build(METHODS["fm_ot"]), network(dataset))
    pieces = SETTINGS.model_copy(update={"accumulation": 4, "resident_mib": 0})
    _, cut = run(dataset, tmp_path / "b", pieces, build(METHODS["fm_ot"]), network(dataset))
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_network_learns_from_its_condition(low, tmp_path):
    """Regression on 24 images of two kinds reaches an error that no network without the image could have."""
    settings = TrainingSettings(iterations=250, batch_size=24, learning_rate=3e-3, ema_decay=0.9)
    outcome, _ = run(low, tmp_path, settings, Regression(), network(low))
    x = low.to_model(torch.from_numpy(low.train.copy()), torch.tensor(0.5))
    assert outcome.curve[-1][1] < 0.5 * float(x.var(0).mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": Part("ve")}, "whose noise has standard deviation .* cannot start at the condition; choose ot"),
        ({"prediction": Part("epsilon")}, "the prediction epsilon is about Gaussian noise"),
        ({"prediction": Part("score"), "path": Part("vp")}, "the prediction score is about Gaussian noise"),
        ({"source": Part("condition", {"std": -1.0})}, "std must be zero or more, not -1.0"),
        ({"source": Part("elsewhere")}, "unknown source 'elsewhere'; known: noise, condition"),
    ],
)
def test_a_start_at_the_condition_that_means_nothing_is_refused(changes, message):
    parts = {"path": Part("ot"), "prediction": Part("velocity"), "source": Part("condition")} | changes
    with pytest.raises(ValueError, match=message):
        build(Method("m", **parts))
