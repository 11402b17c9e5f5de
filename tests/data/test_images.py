"""Image files to arrays."""

import io
import struct
import zlib

import numpy as np
import pytest
from data_sources import picture, saved
from PIL import Image

from fmbench.data.images import Item, Recipe, decode, decoded
from fmbench.errors import DataError

G = np.random.default_rng(0)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "RGB"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = picture(mode=mode)
    path = saved(image, tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    found = decode(Item(str(path)), Recipe(30, 20, 3, None))
    assert found.shape == (3, 30, 20) and found.dtype == np.uint8
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(image.convert("RGB")))
    if mode in ("L", "1", "LA"):
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_every_kind_are_the_picture(tmp_path, mode):
    """CMYK JPEGs are stored inverted; read wrongly they are negatives."""
    path = saved(picture(mode=mode), tmp_path / "a.JPEG", quality=95)
    found = decode(Item(str(path)), Recipe(30, 20, 3, None)).astype(int)
    expected = np.asarray(picture(mode=mode).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(found - expected).mean() < 4


def test_luma_of_a_colour_image(tmp_path):
    path = saved(picture(), tmp_path / "a.png")
    assert np.array_equal(decode(Item(str(path)), Recipe(30, 20, 1, None))[0], np.asarray(picture().convert("L")))


def test_area_resizing_averages_the_centred_square():
    """From 26 x 16 to 4 x 4: rows 5 to 20, each pixel the mean of 4 x 4."""
    values = G.integers(0, 256, (26, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    found = decode(Item("a", None, stream.getvalue()), Recipe(4, 4, 3, "area"))
    means = values[5:21].reshape(4, 4, 4, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(found - means).max() <= 1.01  # rows and columns are rounded one after the other


def test_antialiased_resizing_leaves_no_stripes():
    """Stripes finer than the new pixels must become grey, not other stripes."""
    values = np.zeros((64, 64, 3), np.uint8)
    values[:, ::3] = 255
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    for resize in ("area", "antialias"):
        found = decode(Item("a", None, stream.getvalue()), Recipe(8, 8, 3, resize))
        assert np.abs(found[..., 1:-1].astype(int) - 85).max() < 24  # nearest pixels would be 0 or 255


def test_images_that_cannot_be_used(tmp_path):
    good = saved(picture(200, 200), tmp_path / "good.jpg").read_bytes()
    for name, data in (("half.jpg", good[: len(good) // 2]), ("empty.jpg", b""), ("text.jpg", b"no image")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name} cannot be read as an image"):
            decode(Item(str(tmp_path / name)), Recipe(8, 8))
    deep = saved(Image.fromarray(np.full((5, 5), 40_000, np.uint16)), tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep.png: expected 8 bits a channel, found PIL's mode I;16"):
        decode(Item(str(deep)), Recipe(5, 5))


def deep_png(colour: int, channels: int) -> bytes:
    """4 x 4 pixels of 16 bits a channel, which PIL does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(4 * (1 + 4 * 2 * channels))))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    """4 x 4 pixels of RGB, uncompressed: a header, ten entries, the three depths and the pixels."""
    entries = {256: (4, 1), 257: (4, 1), 258: (134, 3), 259: (1, 1), 262: (2, 1), 273: (140, 1), 277: (3, 1), 278: (4, 1),
               279: (96, 1), 284: (1, 1)}  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, 3, count, value) for tag, (value, count) in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + struct.pack("<3H", 16, 16, 16) + bytes(96)


@pytest.mark.parametrize(
    "data",
    [deep_png(2, 3), deep_png(4, 2), deep_png(6, 4), deep_tiff(), b"P6 4 4 65535\n" + bytes(96), b"P6 4 4 300\n" + bytes(96)],
    ids=["RGB", "LA", "RGBA", "TIFF", "PPM", "9 bits"],
)
def test_images_with_more_than_8_bits_are_refused(data):
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode in ("RGB", "RGBA")  # as those of 8 bits
    with pytest.raises(DataError, match=r"a: expected 8 bits a channel, found (16|9); convert it first"):
        decode(Item("a", None, data), Recipe(4, 4))
    assert decode(Item("a", None, b"P6 4 4 15\n" + bytes(48)), Recipe(4, 4)).shape == (3, 4, 4)


def test_processes_return_the_same_images_in_the_same_order(tmp_path):
    items = [Item(str(saved(picture(seed=i), tmp_path / f"{i}.png")), i) for i in range(23)]
    alone = list(decoded(items, Recipe(8, 8), 1, 3))
    together = list(decoded(items, Recipe(8, 8), 2, 3))
    assert [len(p) for p, _ in together] == [3] * 7 + [2]
    for (a, la), (b, lb) in zip(alone, together, strict=True):
        assert np.array_equal(a, b) and np.array_equal(la, lb)
    (tmp_path / "7.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"7\.png cannot be read"):
        list(decoded(items, Recipe(8, 8), 2, 3))
