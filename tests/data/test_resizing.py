"""Resizing: bit for bit Pillow's, and the closed forms of the filters."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fmbench.data.resizing import DIGITS, FILTERS, box, cubic, low_resolution, triangle, upsampled, weights

PILS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX}


def noise(*shape: int, seed: int = 0, levels: int = 256) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, levels, shape, dtype=np.uint8))


def by_pillow(image: Tensor, height: int, width: int, name: str) -> NDArray:
    """One image (C, H, W) of 1 or 3 channels."""
    pixels = image[0].numpy() if len(image) == 1 else image.movedim(0, -1).contiguous().numpy()
    out = np.asarray(Image.fromarray(pixels).resize((width, height), PILS[name]))
    return out[None] if out.ndim == 2 else out.transpose(2, 0, 1)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "factor"), [(8, 8, 2), (8, 8, 4), (28, 28, 4), (64, 256, 4), (15, 40, 5), (6, 18, 3)]
)
def test_equals_pillow_bit_for_bit(name, channels, height, width, factor):
    images = noise(3, channels, height, width)
    images[1] = 255 * (images[1] > 127).to(torch.uint8)  # black and white: the cubic kernel overshoots on both sides
    low, high = low_resolution(images, factor, name), upsampled(images, factor, name)
    for image, less, more in zip(images, low, high, strict=True):
        np.testing.assert_array_equal(less.numpy(), by_pillow(image, height // factor, width // factor, name))
        np.testing.assert_array_equal(more.numpy(), by_pillow(image, height * factor, width * factor, name))


def test_equals_pillow_at_every_small_size():
    image = noise(1, 1, 36, 36, seed=1)
    for name in FILTERS:
        for factor in range(2, 8):
            for size in range(1, 36 // factor + 1):
                large, small = image[..., : factor * size, : factor * size], image[..., :size, :size]
                low, high = low_resolution(large, factor, name), upsampled(small, factor, name)
                np.testing.assert_array_equal(low[0].numpy(), by_pillow(large[0], size, size, name))
                np.testing.assert_array_equal(high[0].numpy(), by_pillow(small[0], factor * size, factor * size, name))


def test_the_condition_of_sr3_equals_pillow():
    photograph = upsampled(noise(1, 3, 16, 16, seed=2), 16)
    low = low_resolution(photograph, 4)
    assert low.shape == (1, 3, 64, 64)
    np.testing.assert_array_equal(low[0].numpy(), by_pillow(photograph[0], 64, 64, "bicubic"))
    np.testing.assert_array_equal(upsampled(low, 4)[0].numpy(), by_pillow(low[0], 256, 256, "bicubic"))


def test_area_is_the_mean_of_blocks_rounded_after_each_axis():
    images = noise(4, 3, 12, 20)
    along = (images.double().reshape(4, 3, 12, 5, 4).mean(4) + 0.5).floor()
    both = (along.reshape(4, 3, 3, 4, 5).mean(3) + 0.5).floor()
    assert torch.equal(low_resolution(images, 4, "area"), both.to(torch.uint8))


def test_kernels_have_their_closed_forms():
    x = np.array([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0])
    np.testing.assert_array_equal(cubic(x), [0, -0.0625, 0, 0.5625, 1, 0.5625, 0, -0.0625, 0])
    np.testing.assert_array_equal(triangle(x), [0, 0, 0, 0.5, 1, 0.5, 0, 0, 0])
    np.testing.assert_array_equal(box(x), [0, 0, 0, 0, 1, 1, 0, 0, 0])
    grid = np.random.default_rng(0).random(100)
    for kernel in (cubic, triangle, box):  # a partition of unity, so a constant image stays constant
        total = sum(kernel(grid + k) for k in range(-3, 4))
        np.testing.assert_allclose(total, 1, rtol=1e-14)


@pytest.mark.parametrize("name", FILTERS)
def test_weights_are_whole_and_sum_to_one(name):
    for before, after in ((256, 64), (64, 256), (28, 7), (9, 13)):
        found = weights(before, after, name)
        assert torch.equal(found, found.round())
        assert float((found.sum(1) - 2**DIGITS).abs().max()) <= before  # half a unit a pixel
        assert torch.equal(found, found.flip(0, 1)) or name == "area"  # of an even kernel


def test_a_constant_stays_and_a_ramp_stays_a_ramp():
    flat = torch.full((1, 1, 16, 16), 77, dtype=torch.uint8)
    ramp = torch.arange(0, 128, 2, dtype=torch.uint8).expand(1, 1, 64, 64).contiguous()
    for name in FILTERS:
        assert (low_resolution(flat, 4, name) == 77).all() and (upsampled(flat, 4, name) == 77).all()
    # Away from the border: the middle of the new pixel i is 4 i + 3/2 in the old ones, where the ramp is 8 i + 3.
    low = low_resolution(ramp, 4)[0, 0, 5, 2:-2]
    assert torch.equal(low, (8 * torch.arange(2, 14) + 3).to(torch.uint8))


def test_images_of_few_levels_stay_in_their_levels():
    digits = noise(20, 1, 8, 8, levels=17)
    digits = 16 * (digits > 8).to(torch.uint8)
    found = upsampled(low_resolution(digits, 2, levels=17), 2, levels=17)
    assert int(found.max()) == 16
    assert int(upsampled(low_resolution(digits, 2), 2).max()) > 16  # the overshoot of the kernel


def test_a_batch_does_not_matter():
    images = noise(7, 3, 24, 24)
    each = torch.cat([low_resolution(image[None], 4) for image in images])
    assert torch.equal(low_resolution(images, 4), each)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: low_resolution(x, 3), "8 x 12 pixels cannot be reduced by the factor 3; choose from 2, 4"),
        (lambda x: low_resolution(x, 0), "factor 0"),
        (lambda x: low_resolution(x[..., :7, :], 2), "choose another size of the images"),
        (lambda x: low_resolution(x, 2, "lanczos"), "unknown filter 'lanczos'; known: bicubic, bilinear, area"),
        (lambda x: upsampled(x, 0), "factor 0"),
        (lambda x: upsampled(x.float(), 2), "must be uint8 of shape"),
        (lambda x: low_resolution(x[0], 2), "must be uint8 of shape"),
    ],
)
def test_impossible_sizes_are_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(noise(1, 1, 8, 12))
