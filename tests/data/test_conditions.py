"""Conditions of prepared data: what is stored, what networks get, and what is refused."""

import numpy as np
import pytest
import torch
from data_sources import SPEC
from PIL import Image

from fmbench.data.conditions import Labels, LowResolution, make_condition
from fmbench.data.prepared import DataSet, read
from fmbench.data.raw import RawData
from fmbench.data.writer import write
from fmbench.errors import DataError

CPU = torch.device("cpu")
G = np.random.default_rng(3)
IMAGES, OTHERS = G.integers(0, 256, (23, 3, 8, 12), np.uint8), G.integers(0, 256, (7, 3, 8, 12), np.uint8)
LOW = {"low_resolution": {"factor": 4, "filter": "bicubic"}}


def raw(levels: int = 256, labels: bool = True) -> RawData:
    train, test = (np.arange(len(split)) % 3 + 5 if labels else None for split in (IMAGES, OTHERS))
    return RawData(
        *(np.minimum(split, levels - 1) for split in (IMAGES, OTHERS)),
        description="noise",
        levels=levels,
        train_labels=train,
        test_labels=test,
    )


def conditioned(folder, condition, **changes) -> DataSet:
    write(raw(**changes), folder, SPEC if condition is None else SPEC | {"condition": condition})
    return read(folder)


def test_low_resolution_images_are_those_of_pillow(tmp_path):
    dataset = conditioned(tmp_path, LOW)
    for split, images in (("train", IMAGES), ("test", OTHERS)):
        (low,) = dataset.stored_condition(split)
        assert low.shape == (len(images), 3, 2, 3) and low.dtype == np.uint8
        wanted = [[Image.fromarray(c).resize((3, 2), Image.Resampling.BICUBIC) for c in image] for image in images]
        np.testing.assert_array_equal(low, np.array([[np.asarray(c) for c in image] for image in wanted]))


def test_networks_get_the_upsampled_image_in_model_space(tmp_path):
    dataset = conditioned(tmp_path, LOW)
    (low,) = dataset.stored_condition("test")
    (found,) = dataset.conditions(range(7), CPU)
    for image, small in zip(found, low, strict=True):
        for channel, pixels in zip(image, small, strict=True):
            wanted = np.asarray(Image.fromarray(pixels).resize((12, 8), Image.Resampling.BICUBIC))
            torch.testing.assert_close(channel, torch.tensor((wanted + 0.5) / 128 - 1, dtype=torch.float32), rtol=0, atol=1e-7)


def test_few_levels_stay_within_their_range(tmp_path):
    """Bicubic overshoots; with 17 levels a pixel of 18 would not be one."""
    dataset = conditioned(tmp_path, LOW, levels=17)
    assert dataset.stored_condition("train")[0].max() <= 16
    assert dataset.conditions(range(7), CPU)[0].abs().max() < 1


def test_the_condition_of_a_sample_depends_neither_on_its_batch_nor_on_the_number_of_test_samples(tmp_path):
    for condition in (LOW, "label"):
        dataset = conditioned(tmp_path / str(condition), condition)
        (together,) = dataset.conditions(range(20), CPU)
        for i in (0, 6, 7, 15, 19):
            (alone,) = dataset.conditions([i], CPU)
            assert torch.equal(alone[0], together[i]) and torch.equal(alone[0], together[i % 7])


def test_labels_are_class_numbers_and_one_more_says_that_none_is_told(tmp_path):
    dataset = conditioned(tmp_path, "label")
    (labels,) = dataset.conditions(range(7), CPU)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and labels.dtype == torch.int64
    assert dataset.condition == Labels(3) and dataset.condition.arguments(dataset.shape) == {"condition_classes": 3}
    assert dataset.condition.dropped(labels == 1, labels)[0].tolist() == [0, 3, 2, 0, 3, 2, 0]


def test_without_a_condition_there_is_nothing(tmp_path):
    dataset = conditioned(tmp_path, None)
    assert dataset.conditions(range(3), CPU) == dataset.stored_condition("train") == dataset.condition.example(2, (3,), CPU) == ()
    assert dataset.condition.arguments(dataset.shape) == {} and dataset.condition.given == ""
    assert not list(tmp_path.glob("*low_resolution*"))


def test_another_condition_leaves_no_file_of_the_first(tmp_path):
    conditioned(tmp_path, LOW)
    before = (tmp_path / "train.npy").read_bytes()
    conditioned(tmp_path, "label")
    assert not list(tmp_path.glob("*low_resolution*")) and (tmp_path / "train.npy").read_bytes() == before


def test_a_damaged_low_resolution_image_is_noticed(tmp_path):
    dataset = conditioned(tmp_path, LOW)
    path = tmp_path / "test_low_resolution.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"test_low_resolution\.npy is damaged or was changed"):
        dataset.conditions([0], CPU)


def test_examples_have_the_shapes_of_conditions(tmp_path):
    for condition in (None, LOW, "label"):
        dataset = conditioned(tmp_path / str(condition), condition)
        examples, found = dataset.condition.example(5, dataset.shape, CPU), dataset.conditions(range(5), CPU)
        assert [(e.shape, e.dtype) for e in examples] == [(f.shape, f.dtype) for f in found]


@pytest.mark.parametrize(
    ("condition", "data", "message"),
    [
        ("label", raw(labels=False), "train: the condition is the label, but there are no labels; name them, or remove"),
        (
            {"low_resolution": {"factor": 3, "filter": "area"}},
            raw(),
            "train: images of 8 x 12 pixels .* factor 3; choose from 2, 4",
        ),
        ("label", RawData(np.eye(3), np.eye(3), "points"), "train: the condition is the label, but there are no labels"),
        (LOW, RawData(np.eye(3), np.eye(3), "points"), "low_resolution is for images, and these are points"),
    ],
)
def test_data_that_cannot_have_the_condition_are_refused(tmp_path, condition, data, message):
    with pytest.raises(DataError, match=message):
        write(data, tmp_path, SPEC | {"condition": condition})
    assert not (tmp_path / "manifest.json").exists()


def test_labels_of_points_are_a_condition_too(tmp_path):
    write(RawData(np.eye(3), np.eye(3), "points", train_labels=np.arange(3), test_labels=np.arange(3)), tmp_path, SPEC)
    assert make_condition("label", None, 3) == Labels(3)
    assert make_condition(LOW, 17, None) == LowResolution(4, "bicubic", 17)
