"""Encoded images as viewers show them: orientation, transparency, frames, depth."""

import io
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from data_sources import picture, prepared, saved
from PIL import Image

from fmbench.data import opening
from fmbench.data.images import Item, Recipe, decode, image_size
from fmbench.errors import DataError

F = np.array([[10, 10, 10, 200], [10, 60, 60, 120], [10, 60, 160, 160], [10, 90, 30, 220], [240, 90, 30, 130]], np.uint8)
"""Five rows of four, without any symmetry."""
TURNS = {
    1: F,
    2: F[:, ::-1],
    3: F[::-1, ::-1],
    4: F[::-1],
    5: F.T,
    6: F.T[:, ::-1],
    7: F.T[::-1, ::-1],
    8: F.T[::-1],
}
"""The upright picture for each of EXIF's orientations: 6 is a quarter turn clockwise, 5 and 7 are mirrored (EXIF 2.32, 4.6.4)."""


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(content: bytes, channels: int = 3) -> np.ndarray:
    """Height, width and decoding agree; (H, W, C)."""
    item = Item("a", None, content)
    height, width = image_size(item)
    return decode(item, Recipe(height, width, channels, None)).transpose(1, 2, 0)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_every_orientation_is_upright(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = Image.fromarray(F.repeat(16, 0).repeat(16, 1))  # blocks, which lossy formats keep
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 98}, "AVIF": {"quality": 98}}[form]
    content = encoded(big.convert("RGB") if form in ("WEBP", "AVIF") else big, form, exif=exif, **options)
    found = pixels(content, 1)[8::16, 8::16, 0].astype(int)
    assert found.shape == TURNS[orientation].shape
    assert np.abs(found - TURNS[orientation]).max() <= (4 if form in ("JPEG", "AVIF") else 1)


def test_an_orientation_outside_of_1_to_8_or_in_damaged_metadata_is_ignored():
    for value in (0, 9, 77):
        exif = Image.Exif()
        exif[0x0112] = value
        assert np.array_equal(pixels(encoded(Image.fromarray(F), "PNG", exif=exif), 1)[..., 0], F)
    for damage in (b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0" + bytes(40), b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x99" * 30):
        assert np.array_equal(pixels(encoded(Image.fromarray(F), "PNG", exif=damage), 1)[..., 0], F)


def test_folders_of_turned_photographs_have_one_size(tmp_path):
    """A camera held upright stores 4 x 5 pixels and orientation 6; without the turn, sizes differ."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(6):
        turned = i % 2 == 1
        upright = np.roll(F, i, 1)
        stored = upright[:, ::-1].T if turned else upright
        options = {"exif": exif} if turned else {}
        saved(Image.fromarray(np.ascontiguousarray(stored)), tmp_path / "all" / ("ab"[i % 2]) / f"{i}.png", **options)
    found = prepared("folder", tmp_path / "out", path=str(tmp_path / "all"), test_share=0.5, channels=1)
    assert found.shape == (1, 5, 4)
    wanted = sorted(np.roll(F, i, 1).tobytes() for i in range(6))
    assert sorted(x.tobytes() for x in (*found.train, *found.test)) == wanted
    assert "EXIF orientation applied, transparency on white, first frame" in found.manifest["preprocessing"]


ALPHA = np.array([[0, 255, 128, 51]] * 5, np.uint8)


def on_white(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return values * (alpha / 255) + 255 * (1 - alpha / 255)


@pytest.mark.parametrize(("mode", "channels"), itertools.product(["LA", "RGBA"], [1, 3]))
def test_transparent_pixels_show_white_and_not_their_hidden_colour(mode, channels):
    grey = Image.fromarray(F)
    image = Image.merge("LA", (grey, Image.fromarray(ALPHA)))
    if mode == "RGBA":
        image = Image.merge("RGBA", (grey, grey, grey, Image.fromarray(ALPHA)))
    found = pixels(encoded(image, "PNG"), channels)
    assert np.abs(found - on_white(F, ALPHA)[..., None]).max() <= 1
    assert (found[:, 0] == 255).all() and np.array_equal(found[:, 1, 0], F[:, 1])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_one_colour_that_a_png_declares_transparent_is_white(mode):
    values = np.where(F > 100, 255, 0).astype(np.uint8)
    image = Image.fromarray(values).convert(mode)
    transparent = {"1": 0, "L": 0, "P": image.getpixel((0, 0)), "RGB": (0, 0, 0)}[mode]
    content = encoded(image, "PNG", transparency=transparent)
    assert (pixels(content) == 255).all() and (pixels(content, 1) == 255).all()


def test_a_palette_with_transparency_is_white_there(tmp_path):
    image = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(5, 4) % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    found = pixels(encoded(image, "PNG", transparency=bytes([255, 0, 128])))
    index = np.arange(20).reshape(5, 4) % 3
    assert (found[index == 0] == [255, 0, 0]).all() and (found[index == 1] == 255).all()
    assert np.abs(found[index == 2].astype(int) - [127, 127, 255]).max() <= 1
    gif = pixels(encoded(image, "GIF", transparency=1))
    assert (gif[index == 0] == [255, 0, 0]).all() and (gif[index == 1] == 255).all() and (gif[index == 2] == [0, 0, 255]).all()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_or_pages_the_first_counts(form):
    frames = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (40, 90, 200)]
    lossless = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "AVIF" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **lossless)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    assert np.abs(pixels(content).astype(int) - 40).max() <= 2


def test_a_colour_profile_is_not_applied():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(pixels(encoded(picture(), "PNG", icc_profile=profile)), np.asarray(picture()))


def deep_avif(depth: int) -> bytes:
    """A real AVIF whose header says ``depth`` bits."""
    content = encoded(picture(), "AVIF", quality=90)
    at = content.index(b"av1C") + 6
    return content[:at] + bytes([content[at] & 0x9F | {8: 0, 10: 0x40, 12: 0x60}[depth]]) + content[at + 1 :]


def deep_jp2(depth: int, form: str) -> bytes:
    """A real JPEG 2000 whose header says ``depth`` bits for its last channel."""
    content = encoded(picture(), "JPEG2000", no_jp2=form == "j2k")
    at = content.index(b"\xff\x4f\xff\x51") + 42 + 6
    return content[:at] + bytes([depth - 1]) + content[at + 1 :]


@pytest.mark.parametrize("form", ["j2k", "jp2"])
def test_jpeg_2000_with_more_than_8_bits_is_refused(form):
    assert np.abs(pixels(deep_jp2(8, form)).astype(int) - np.asarray(picture())).max() <= 2
    for depth in (10, 12, 16):
        with pytest.raises(DataError, match=f"expected 8 bits a channel, found {depth}"):
            pixels(deep_jp2(depth, form))


def test_the_depth_of_an_avif_is_read_from_its_header():
    """PIL writes none of more than 8 bits, and opens none whose header contradicts its stream."""
    assert np.abs(pixels(deep_avif(8)).astype(int) - np.asarray(picture())).mean() < 6
    for depth in (8, 10, 12):
        assert opening._bits(SimpleNamespace(format="AVIF"), "a", deep_avif(depth)) == depth


def test_a_format_whose_depth_is_unknown_is_refused():
    with pytest.raises(DataError, match="cannot tell how many bits a channel this ICO file has; convert it to PNG"):
        pixels(encoded(picture(16, 16), "ICO"))


def test_deep_sgi_files_are_refused():
    content = encoded(picture(), "SGI")
    assert np.array_equal(pixels(content), np.asarray(picture()))
    with pytest.raises(DataError, match="expected 8 bits a channel, found 16"):
        pixels(content[:3] + b"\x02" + content[4:])
