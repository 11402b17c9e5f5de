"""Warnings about data that plainly do not fit."""

import re

import numpy as np
import pytest
import yaml
from data_sources import SPEC, prepared

from fmbench.data.prepared import read
from fmbench.data.raw import RawData
from fmbench.data.sources import make
from fmbench.data.writer import write
from fmbench.stages import prepare
from fmbench.system.progress import Console

G = np.random.default_rng(0)
Z = G.standard_normal((2000, 2))


def said(tmp_path, train, test=None, **fields) -> list[str]:
    """The warnings of points or images."""
    write(RawData(train, train[:500] if test is None else test, "some", **fields), tmp_path / "out", SPEC)
    found: list[str] = read(tmp_path / "out").manifest["warnings"]
    return found


@pytest.mark.parametrize("source", ["checkerboard", "eight_gaussians", "two_moons", "spirals", "pinwheel", "rings", "digits"])
def test_built_in_data_fit(tmp_path, source):
    parameters = {"test": 300} if source == "digits" else {"train": 2000, "test": 300}
    write(make(source, parameters), tmp_path, SPEC)
    assert read(tmp_path).manifest["warnings"] == []


@pytest.mark.parametrize(
    ("factor", "offset", "remedies"),
    [
        ((1e3, 1e3), (1e5, 1e5), {"shift", "scale"}),
        ((1, 1), (9, 9), {"shift"}),
        ((0.01, 0.01), (0, 0), {"scale"}),
        ((1e-4, 1e4), (0, 0), {"scale"}),
        ((1, 1e4), (0, -1e6), {"shift", "scale"}),
    ],
)
def test_points_far_from_0_and_1_are_told_the_shift_and_scale_that_fit(tmp_path, factor, offset, remedies):
    points = np.array(offset) + np.array(factor) * Z
    (text,) = said(tmp_path, points)
    assert text.startswith("train: in the network's units, column ")
    told = dict(pair.split(": ") for pair in text.partition("Give ")[2].split(" and "))
    assert set(told) == remedies
    values = {name: yaml.safe_load(value) for name, value in told.items()}
    assert said(tmp_path, points, **values) == []


def test_points_just_inside_the_limits_fit(tmp_path):
    z = (Z - Z.mean(0)) / Z.std(0)
    for scale, offset in ((9.9, 0.0), (0.11, 0.0), (1.0, 2.9), (1.0, -2.9)):
        assert said(tmp_path, scale * z + offset, scale * z + offset) == []
    for scale, offset in ((10.1, 0.0), (0.09, 0.0), (1.0, 3.1), (1.0, -3.1)):
        assert len(said(tmp_path, scale * z + offset, scale * z + offset)) == 1


def test_a_column_that_is_constant(tmp_path):
    (text,) = said(tmp_path, np.stack([Z[:, 0], np.full(2000, 7.5)], 1))
    assert text.startswith("train: column 1 is 7.5 in every point. Its density is infinite")


def test_digits_that_the_file_has_lost(tmp_path):
    """float32 near 1e7 has steps of 1; whole numbers of float64 are what they are."""
    texts = said(tmp_path, (1e7 + 3 * Z).astype(np.float32), shift=1e7, scale=0.3)
    assert len(texts) == 1 and "column 0 has lost digits in the file: near 1e+07 its type has steps of 1.2," in texts[0]
    assert said(tmp_path, np.round(1e7 + 3 * Z), shift=1e7, scale=0.3) == []
    assert said(tmp_path, Z.astype(np.float16)) == []


def test_splits_in_different_units(tmp_path):
    (text,) = said(tmp_path, Z, 0.13 * Z[:100])
    assert text.startswith("test: column 0 has mean") and text.endswith(
        "(2 of 2 columns are so). Are both splits in the same units?"
    )
    assert any("same units" in text for text in said(tmp_path, Z, Z[:100] + 4))
    assert said(tmp_path, Z, Z[:100] * 1.5) == []


NOISE = G.integers(0, 256, (600, 3, 8, 8)).astype(np.uint8)
IMAGES = {
    "masks": (NOISE // 128, "the largest pixel is 1, of levels 0 to 255. If the pixels have 2 levels, give levels: 2"),
    "17 levels": (NOISE // 15, "the largest pixel is 17, of levels 0 to 255. If the pixels have 18 levels, give levels: 18"),
    "black and white": (NOISE // 128 * 255, r"only 2 of 256 levels occur \(0, 255\).*give levels: 2"),
    "flat": (130 + NOISE // 40, "only 7 of 256 levels occur"),
    "nearly black": (np.where(NOISE > 254, NOISE, NOISE // 64), "only 5 of 256"),
    "dim": (100 + NOISE // 7, r"in \[-1, 1\], which networks see, the pixels have mean -0.07\d+ and standard deviation 0.082"),
    "opaque": (np.concatenate([NOISE, np.full_like(NOISE[:, :1], 255)], 1), "channel 3 is 255 in every pixel of every image"),
    "grey": (NOISE[:, :1].repeat(3, 1), r"all 3 channels of every image are equal.*channels: 1"),
    "axes": (NOISE.repeat(4, 3).transpose(0, 2, 3, 1), r"8 channels of 32 x 3 pixels; are the axes .*layout: HWC"),
    "other axes": (NOISE.repeat(4, 3).transpose(0, 3, 1, 2), r"32 channels of 3 x 8 pixels; are the axes .*layout: CHW"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_images_that_do_not_fit(tmp_path, case):
    images, text = IMAGES[case]
    found = said(tmp_path, np.ascontiguousarray(images), levels=256)
    assert len(found) == 1, found
    assert re.match(f"train: .*{text}", found[0])


def test_images_of_all_levels_fit(tmp_path):
    assert said(tmp_path, NOISE, levels=256) == []


def test_masks_of_two_levels_fit(tmp_path):
    assert said(tmp_path, NOISE // 128, levels=2) == []


def test_only_one_split_is_in_other_levels(tmp_path):
    (text,) = said(tmp_path, NOISE, NOISE[:100] // 128, levels=256)
    assert text.startswith("test: the largest pixel is 1")


def test_warnings_are_said_and_kept(tmp_path):
    np.savez(tmp_path / "far.npz", train=1e5 + 1e3 * Z, test=1e5 + 1e3 * Z[:100])
    spec = SPEC | {"source": "array", "parameters": {"path": str(tmp_path / "far.npz")}}
    prepare.run(spec, tmp_path / "out", Console("prepare", "none", tmp_path / "log"))
    (kept,) = read(tmp_path / "out").manifest["warnings"]
    assert f"warning: {kept}" in (tmp_path / "log").read_text()
    assert prepared("array", tmp_path / "out", path=str(tmp_path / "far.npz"), shift=1e5, scale=1e-3).manifest["warnings"] == []
