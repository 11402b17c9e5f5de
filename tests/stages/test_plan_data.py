"""What ``fmbench plan`` counts for the jobs of a data set: its preparation, its features, and the baselines of Table 2."""

from pathlib import Path

import pytest
from plans import digits_config, points_config

from fmbench.config.reading import parse
from fmbench.networks.counting import Cost, count
from fmbench.stages.features import STD_VALUES
from fmbench.stages.plan import workload
from fmbench.stages.plan.hardware import LEAST_STEP
from fmbench.stages.plan.jobs import DECODING, WRITTEN, needs, preparation_seconds
from fmbench.stages.plan.memory import (
    DECODER_BYTES,
    FEATURE_BYTES,
    RAW_COPIES,
    comparison_bytes,
    evaluator_bytes,
    features_bytes,
    preparation_bytes,
)
from fmbench.stages.plan.operations import NEIGHBOUR_PASSES, classifier_training_flops, comparison_flops, neighbour_flops
from fmbench.stages.plan.probe import SLOW_FLOPS
from fmbench.stages.plan.workload import UNKNOWN_FEATURES, Workload, read_workload

NOWHERE = Path("nowhere")
TRAIN, TEST = 1437, 360
FLOPS = 2 * 64 * (9 * 16 + 9 * 16 * 32) + 2 * (32 * 16 * 64 + 64 * 10)
"""Of the classifier on one digit: two convolutions of 3 x 3 pixels, and two layers after a pool of 4 x 4."""
WEIGHTS = 4 * (9 * 16 + 16 + 9 * 16 * 32 + 32 + 512 * 64 + 64 + 64 * 10 + 10)


def digits(features=None, device="cpu", **evaluation) -> Workload:
    config = digits_config(evaluation={"features": features or {}} | evaluation)
    return read_workload(config.model_copy(update={"device": device}), "digits", NOWHERE)


def test_equal_networks_are_counted_once(monkeypatch):
    """Whichever config names them. Another network or another shape is counted on its own."""
    counted = []
    monkeypatch.setattr(workload, "count", lambda build, shape, example: counted.append(shape) or count(build, shape, example))
    workload._counted.cache_clear()
    configs = [digits_config(training={"batch_size": size}) for size in (8, 16)]
    costs = [workload.network_cost(config, "digits", (1, 8, 8)) for config in configs]
    assert len(counted) == 1 and costs[0] == costs[1]
    workload.network_cost(points_config(), "board", (2,))
    workload.network_cost(digits_config(), "digits", (1, 16, 16))
    assert counted == [(1, 8, 8), (2,), (1, 16, 16)]


def test_the_classifier_by_hand():
    cost = digits().extractors["classifier"]
    assert cost is not None and (cost.features, cost.flops, cost.weights, cost.batch) == (64, FLOPS, WEIGHTS, 512)
    # The convolution of 32 channels, and its SiLU.
    assert cost.peak == 2 * 4 * 32 * 64
    # Each SiLU and each layer keep their input.
    assert cost.kept >= 4 * (64 + 2 * 16 * 64 + 2 * 32 * 64 + 512 + 2 * 64)


def test_the_training_of_the_classifier_is_a_part_of_the_features():
    work = digits({"epochs": 7})
    assert classifier_training_flops(work) == 3 * FLOPS * 7 * TRAIN
    assert classifier_training_flops(digits({"extractor": "user_code:colours"})) == 0


@pytest.mark.parametrize(("epochs", "batch"), [(40, 64), (80, 32)])
def test_the_seconds_of_the_features(epochs, batch):
    features = {"epochs": epochs, "batch_size": batch, "reference_n": 1000}
    work = digits(features)
    seconds = needs(work.config, NOWHERE)["datasets"]["digits"]["features"]["seconds"]
    images = FLOPS * (1000 + TEST)
    neighbours = 2 * NEIGHBOUR_PASSES * TEST * 1000 * 64
    assert neighbour_flops(work, TEST) == neighbours
    assert seconds == round((3 * FLOPS * epochs * TRAIN + images + neighbours) / SLOW_FLOPS) > 0
    on_gpu = needs(digits(features, "cuda").config, NOWHERE)["datasets"]["digits"]["features"]["seconds"]
    assert on_gpu == round(LEAST_STEP * epochs * TRAIN / batch)  # a GPU waits for the launch of kernels


def test_the_bytes_of_a_comparison():
    for features, numbers in (({}, 64), ({"extractor": "user_code:colours"}, UNKNOWN_FEATURES)):
        work = digits(features)
        network = WEIGHTS + 100 * 2 * 4 * 32 * 64 if numbers == 64 else 0
        assert evaluator_bytes(work, 100) == network + FEATURE_BYTES * (100 + TRAIN + TEST) * numbers
    board = read_workload(points_config(), "board", NOWHERE)
    assert evaluator_bytes(board, 100) == FEATURE_BYTES * (100 + 50_000 + 4_000) * 2


def test_the_bytes_of_the_features_are_those_of_the_largest_part():
    assert features_bytes(digits()) == evaluator_bytes(digits(), TEST)
    large = digits({"batch_size": 1000})
    cost = large.extractors["classifier"]
    assert cost is not None and features_bytes(large) == 4 * WEIGHTS + 1000 * cost.kept
    photographs = features_bytes(of_source("imagenet", (3, 128, 128), (10_000, 100), {"size": 128}))
    assert photographs >= 3 * 8 * (STD_VALUES // (3 * 128 * 128)) * 3 * 128 * 128


def of_source(source, shape, sizes, parameters=None) -> Workload:
    """A data set of another source, with a network without cost."""
    images = {"data": {"source": source, "parameters": parameters or {}}, "network": {"kind": "unet", "channels": 32}}
    config = parse({"datasets": ["images"], "methods": ["fm_ot"], "settings": {"images": images}})
    return Workload(config, "images", shape, sizes, Cost(0, 0, 0, 0, 0, 0, 0))


def test_a_preparation_by_its_source():
    points = read_workload(points_config(), "board", NOWHERE)
    assert preparation_bytes(points) == RAW_COPIES * 204_000 * 8 and preparation_seconds(points) == 204_000 * 8 / WRITTEN
    whole = of_source("cifar10", (3, 32, 32), (50_000, 10_000))
    assert preparation_bytes(whole) == RAW_COPIES * 60_000 * 3072 and preparation_seconds(whole) == 60_000 * 3072 / WRITTEN
    release = {"variant": "antialiased"}
    assert preparation_bytes(of_source("imagenet_downsampled", (3, 32, 32), (1_281_167, 50_000), release)) == 0
    decoded = of_source("imagenet", (3, 64, 64), (1_281_167, 50_000))
    assert preparation_bytes(decoded) == 16 * DECODER_BYTES and preparation_seconds(decoded) == 1_331_167 * DECODING / 16


def test_the_baselines_compare_test_images_and_interpolated_ones():
    n = 300
    evaluation = {"sample": {"n": n}, "super_resolution": {"window": 7}}
    config = digits_config(evaluation=evaluation, condition={"low_resolution": {"factor": 2}})
    work = read_workload(config.model_copy(update={"device": "cpu"}), "digits", NOWHERE)
    found = needs(work.config, NOWHERE)["datasets"]["digits"]["baselines"]
    flops = 4 * n * FLOPS + n * comparison_flops((1, 8, 8)) + 3 * neighbour_flops(work, n)
    assert found["seconds"] == round(flops / SLOW_FLOPS)
    size = evaluator_bytes(work, n) + comparison_bytes(work.evaluation.super_resolution.batch, (1, 8, 8))
    assert found["memory_mib"] == round(3000 + 1.5 * size / 2**20)
    assert "baselines" not in needs(digits().config, NOWHERE)["datasets"]["digits"]
