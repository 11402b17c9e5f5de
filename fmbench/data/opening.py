"""An encoded image as viewers show it: turned as its metadata say, its first frame, its transparent parts on white."""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmbench.data.image_files import formats
from fmbench.data.tree import stand_in, stand_in_at
from fmbench.errors import DataError

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""PIL's modes with 8 bits a channel."""
EIGHT_BITS = ("BMP", "DIB", "GIF", "JPEG", "MPO", "MSP", "PCX", "PSD", "QOI", "SUN", "TGA", "WEBP", "XBM")
"""PIL's formats of which it reads no more than 8 bits a channel, since there are no more or since it refuses the others."""
ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""


def shown(name: str, content: bytes | None, mode: str) -> Any:
    """A PIL image in the ``mode`` RGB or L, as viewers show the file: EXIF's orientation applied, transparency on white.

    Of a file with several frames or pages it is the first. A colour profile is not applied.

    Args:
        name: of the file, or a name for messages if there is ``content``, the encoded bytes.

    Raises:
        DataError: the image is truncated, not an image, or has more than 8 bits a channel.
    """
    with _opened(name, content) as image:
        if image.mode not in MODES:
            raise DataError(f"{name}: expected 8 bits a channel, found PIL's mode {image.mode}; convert it first")
        if (bits := _bits(image, name, content)) > 8:
            raise DataError(f"{name}: expected 8 bits a channel, found {bits}; convert it first")
        image.load()
        return _upright(_opaque(image, mode), image)


def stored_size(name: str, content: bytes | None) -> tuple[int, int]:
    """Width and height of an encoded image as it is stored, without decoding it.

    Raises:
        DataError: it is not an image.
    """
    with _opened(name, content) as image:
        return int(image.width), int(image.height)


@contextlib.contextmanager
def _opened(name: str, content: bytes | None) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(name if content is None else io.BytesIO(content), formats=formats()) as image:
            yield image
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        why = (stand_in_at(name) if content is None else stand_in(content)) or error
        raise DataError(f"{name} cannot be read as an image: {why}; replace or remove it") from None


def _opaque(image: Any, mode: str) -> Any:
    """The image in a mode without transparency; where it was transparent, white shows through."""
    from PIL import Image

    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert(mode)


def _upright(picture: Any, source: Any) -> Any:
    """The picture, turned and mirrored as the metadata of its source say. PIL itself has turned TIFF files."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = source.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata can raise anything, and viewers ignore them
        return picture
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _bits(image: Any, name: str, content: bytes | None) -> int:
    """Bits per channel of an opened PIL image.

    PIL reads 16-bit colours as modes RGB and RGBA too, and silently drops the lower 8 bits.

    Raises:
        DataError: the format does not say it in a way that is known here.
    """
    if image.format in EIGHT_BITS:
        return 8
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (0,))))  # BitsPerSample
    if image.format == "PPM":
        largest = image.tile[0][3][-1] if isinstance(image.tile[0][3], tuple) else 0
        return int(largest).bit_length() if isinstance(largest, int) else 0
    data = Path(name).read_bytes() if content is None else content
    if image.format == "PNG":
        return data[24]  # in the header, which is the first chunk
    if image.format == "SGI":
        return 8 * data[3]  # bytes a channel
    if image.format == "JPEG2000" and (start := data.find(b"\xff\x4f\xff\x51")) >= 0:
        (count,) = struct.unpack_from(">H", data, start + 40)
        return max((data[start + 42 + 3 * i] & 0x7F) + 1 for i in range(count))
    if image.format == "AVIF" and (parts := data.split(b"av1C")[1:]):
        return max({0x40: 10, 0x60: 12}.get(part[2] & 0x60, 8) for part in parts if len(part) > 2)
    raise DataError(f"{name}: fmbench cannot tell how many bits a channel this {image.format} file has; convert it to PNG first")
