"""The figures of the page: pictures that lie in the results folder, each inside the page with its caption."""

import base64
import io
import warnings
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from PIL import Image

from fmbench.errors import DataError
from fmbench.report.page.markup import to_html
from fmbench.store.stale import stale_files

END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
PICTURE = 32 << 20
"""The largest picture in bytes. The largest of the default run has 0.8 MB."""


def title(figure: str) -> str:
    """Return the heading of a figure: "Fig. 4, few step" for ``fig04_few_step``, "NFE distribution" for ``nfe_distribution``."""
    words = figure.split("_")
    if words[0].startswith("fig"):
        return ", ".join(filter(None, [f"Fig. {int(words[0][3:])}", " ".join(words[1:])]))
    first = words[0].upper() if words[0] == "nfe" else words[0].capitalize()
    return " ".join([first, *words[1:]])


def read_picture(path: Path) -> bytes:
    """Return the bytes of a PNG file, after a check that it is whole.

    Raises:
        DataError: it is not a PNG, a checksum in it does not match, or it is too large.
    """
    remedy = "run snakemake or `fmbench render`, which draw it again"
    if path.stat().st_size > PICTURE:
        raise DataError(f"{path} has more than {PICTURE >> 20} MiB; {remedy}")
    content = path.read_bytes()
    try:
        if not content.endswith(END_OF_PNG):
            raise ValueError("its end is missing")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.open(io.BytesIO(content), formats=["PNG"]).verify()  # the checksum of every piece
            Image.open(io.BytesIO(content), formats=["PNG"]).load()  # the pixels, and that none is missing
    except Exception as error:  # Pillow raises SyntaxError, OSError, ValueError, struct.error and others for a damaged file
        raise DataError(f"{path} is not a whole PNG picture ({error}); {remedy}") from None
    return content


def _picture(path: Path, caption: str) -> str:
    data = base64.b64encode(read_picture(path)).decode()
    # The first sentence of the caption is the text for screen readers.
    said = " ".join(caption.split()).partition(". ")[0].replace("`", "").rstrip(".")
    image = f'<img alt="{escape(said or title(path.stem))}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}\n<figcaption>{to_html(caption)}</figcaption></figure>\n"


def pictures_in(results: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the pictures of those figures that lie in a results folder and are not stale, by the figure's name."""
    stale, found = stale_files(results), {}
    for name in names:
        path = results / "figures" / f"{name}.png"
        if not path.is_file():
            path = results / f"{name}.png"  # a reference run keeps its figures beside the tables
        if path.is_file() and path.name not in stale:
            found[name] = path
    return found


def figures(pictures: Mapping[str, Path], names: Iterable[str], captions: Path | None) -> str:
    """Return the sections of those figures that have a picture."""
    html = ""
    for name in names:
        if name in pictures:
            text = captions / f"{name}.rst" if captions is not None else None
            caption = text.read_text(encoding="utf-8") if text is not None and text.is_file() else ""
            shown = f"<h3>{escape(title(name))}</h3>\n{_picture(pictures[name], caption)}"
            html += f'<section class="figure" id="{escape(name)}">\n{shown}</section>\n'
    return html
