"""MSE, PSNR, SSIM, Y and consistency of images: closed forms, invariances, and the numbers of scikit-image and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.color import rgb2ycbcr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from fmbench.metrics.consistency import consistency
from fmbench.metrics.luma import luma
from fmbench.metrics.psnr import mse, psnr
from fmbench.metrics.ssim import gaussian_window, ssim


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).standard_normal(shape)


def pair(seed: int = 0, shape: tuple[int, ...] = (3, 3, 24, 31)) -> tuple[Tensor, Tensor]:
    """Smooth images and noisy ones, uint8, not square."""
    g = generator(seed)
    coarse = torch.rand(shape[0], shape[1], 5, 6, generator=g)
    x = torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")
    y = (x + 0.1 * torch.randn(shape, generator=g)).clamp(0, 1)
    return (255 * x).round().to(torch.uint8), (255 * y).round().to(torch.uint8)


def numpy_image(x: Tensor) -> NDArray:
    return x.movedim(0, -1).numpy()


def test_a_constant_error_has_closed_forms():
    x = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    y = torch.stack([x[0] + 10, x[1] + 20])
    assert mse(x, y).tolist() == [100, 400]
    assert psnr(x, y).tolist() == pytest.approx([10 * math.log10(65025 / 100), 10 * math.log10(65025 / 400)])
    c1 = (0.01 * 255) ** 2
    luminance = [(2 * 100 * b + c1) / (100**2 + b**2 + c1) for b in (110, 120)]
    assert ssim(x, y).tolist() == pytest.approx(luminance, rel=1e-9)  # without variance only the means are compared


def test_equal_images():
    x, _ = pair()
    assert mse(x, x).tolist() == [0, 0, 0] and psnr(x, x).tolist() == 3 * [math.inf]
    assert ssim(x, x).tolist() == pytest.approx(3 * [1.0], abs=1e-12)


def test_the_negative_of_a_pattern_has_negative_similarity():
    """Alternating pixels, +a and -a: a local mean of +-g a, so a variance of a^2 (1 - g^2) and a covariance of minus that."""
    pattern = 50.0 * (1 - 2.0 * (torch.arange(12)[:, None] + torch.arange(15)).remainder(2))[None, None]
    signs = 1 - 2.0 * torch.arange(7).remainder(2).double()
    square = float((gaussian_window(7) * signs).sum() ** 4) * 2500  # of the local mean: a factor g of each axis
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (c1 - 2 * square) * (c2 - 2 * (2500 - square)) / ((c1 + 2 * square) * (c2 + 2 * (2500 - square)))
    assert ssim(pattern, -pattern, 255.0, size=7).item() == pytest.approx(expected, rel=1e-9)


def test_uint8_does_not_overflow():
    """10 - 20 in uint8 would be 246."""
    x, y = torch.full((1, 1, 12, 12), 10, dtype=torch.uint8), torch.full((1, 1, 12, 12), 20, dtype=torch.uint8)
    assert mse(x, y) == mse(y, x) == 100


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_scikit_image(seed):
    x, y = pair(seed)
    for i in range(len(x)):
        a, b = numpy_image(x[i]), numpy_image(y[i])
        assert float(mse(x, y)[i]) == pytest.approx(mean_squared_error(a, b), rel=1e-12)
        assert float(psnr(x, y)[i]) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), rel=1e-12)
        paper = structural_similarity(
            a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ssim(x, y)[i]) == pytest.approx(paper, abs=1e-9)


def test_psnr_equals_that_of_torchmetrics():
    x, y = (z.double() / 255 for z in pair(2))
    theirs = torchmetrics_psnr(x, y, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(x, y, 1.0), theirs)


def test_equivalent_ranges_give_equal_values():
    """uint8, [0, 1] and [-1, 1]; for SSIM black must be 0."""
    x, y = pair(3)
    unit, signed = [z.double() / 255 for z in (x, y)], [z.double() / 127.5 - 1 for z in (x, y)]
    torch.testing.assert_close(ssim(*unit, 1.0), ssim(x, y), rtol=1e-9, atol=0)
    for a, b, span in ((*unit, 1.0), (*signed, 2.0)):
        torch.testing.assert_close(psnr(a, b, span), psnr(x, y), rtol=1e-12, atol=0)
        torch.testing.assert_close(mse(a, b), mse(x, y) * (span / 255) ** 2, rtol=1e-12, atol=0)
    assert not torch.allclose(ssim(*signed, 2.0), ssim(x, y), atol=1e-3)
    assert (psnr(x, y, 17.0) < psnr(x, y)).all()  # digits have 17 levels


def test_float32_images_are_compared_in_float64():
    x, y = pair(4)
    single = ssim(x.float() / 255, y.float() / 255, 1.0)
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, ssim(x, y), rtol=1e-6, atol=0)


def test_batches_do_not_matter():
    x, y = pair(5, (7, 1, 13, 11))
    torch.testing.assert_close(ssim(x, y, batch=3), ssim(x, y), rtol=1e-12, atol=0)
    each = torch.cat([ssim(a[None], b[None]) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(each, ssim(x, y), rtol=1e-12, atol=0)


def test_luma_equals_scikit_image_and_its_ends():
    x, _ = pair(6)
    for image, found in zip(x, luma(x), strict=True):
        np.testing.assert_allclose(found[0].numpy(), rgb2ycbcr(numpy_image(image))[..., 0], rtol=1e-12)
    ends = luma(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 1, 1))
    assert ends.flatten().tolist() == pytest.approx([16, 235])
    grey = x[:, :1].expand_as(x).contiguous()
    # Grey images have 219 / 255 of the error on Y, so a PSNR that is higher by 1.32 dB.
    difference = psnr(luma(grey), luma(grey.flip(0)), 255.0) - psnr(grey, grey.flip(0))
    assert difference[::2].tolist() == pytest.approx(2 * [20 * math.log10(255 / 219)])
    with pytest.raises(ValueError, match="RGB images"):
        luma(x[:, :1])


def test_consistency_is_the_mse_in_units_of_the_range():
    low = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert consistency(low + 51, low).tolist() == pytest.approx(2 * [0.04])
    assert consistency(low + 4, low, levels=17).tolist() == pytest.approx(2 * [1 / 16])
    assert consistency(low, low).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16), {}, "give the data_range of float images"),
        (torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 15), {"data_range": 1.0}, "one shape"),
        (torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), {"data_range": 1.0}, "one shape"),
        (torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16), {"data_range": 1.0}, "one shape"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.uint8), {"data_range": 1.0}, "both be uint8"),
        (torch.zeros(1, 1, 16, 16).int(), torch.zeros(1, 1, 16, 16).int(), {"data_range": 1.0}, "both be uint8"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), {"data_range": 0.0}, "positive and finite"),
        (
            torch.zeros(1, 1, 16, 10),
            torch.zeros(1, 1, 16, 10),
            {"data_range": 1.0},
            "a window of 11 does not fit into images of 16 x 10",
        ),
    ],
)
def test_impossible_images_and_options_are_an_error(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        ssim(x, y, **options)
