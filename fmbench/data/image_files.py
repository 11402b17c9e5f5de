"""The image files below a folder, and a count of the files that are left out.

A suffix of a format in :data:`SUFFIXES` makes a file an image. A file with another suffix, or with none, is an image if its
content is. All other files are counted by suffix, so that nothing is left out without a word.
"""

import collections
import functools
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmbench.data.tree import walk
from fmbench.errors import DataError, first_few

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "QOI": (".qoi",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "PSD": (".psd",),
    "DDS": (".dds",),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "ICNS": (".icns",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "MSP": (".msp",),
    "IM": (".im",),
    "FLI": (".fli", ".flc"),
    "BLP": (".blp",),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "PIXAR": (".pxr",),
    "PCD": (".pcd",),
}
"""The formats of Pillow that hold pictures of 8 bits a channel, and their suffixes.

Left out are formats that run another program (EPS), that only some systems decode (WMF), that hold measurements (FITS, SPIDER,
MCIDAS), and that Pillow only names (BUFR, GRIB, HDF5, MPEG). A list of our own, since Pillow's depends on what is imported.
"""
OF_IMAGES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
LEFTOVERS = frozenset({".bak", ".old", ".orig", ".tmp", ".part", ".partial", ".crdownload", ".download", ".incomplete", ".swp"})
"""Suffixes of copies that editors make and of unfinished downloads. They are left out whatever they hold."""

Found = tuple[str, str]
"""A file's path below its folder, with / between names, and its size and time of change, which tell whether it was replaced."""
Left = collections.Counter[str]
"""How many files of each kind were left out; a kind is a suffix, or words such as ``hidden``."""


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats of :data:`SUFFIXES` that the installed Pillow opens."""
    from PIL import Image

    Image.init()
    return tuple(name for name in SUFFIXES if name in Image.OPEN)


@functools.cache
def _recognisers() -> dict[str, Any]:
    """For each format that a file's first bytes show, Pillow's function of these bytes."""
    from PIL import Image

    return {name: Image.OPEN[name][1] for name in formats() if Image.OPEN[name][1] is not None}


def is_image(path: str) -> bool:
    """Whether a file's content is an image, whatever its name.

    Raises:
        OSError: the file cannot be read.
    """
    from PIL import Image

    with open(path, "rb", buffering=0) as stream:
        start = stream.read(16)
    likely = [name for name, accepts in _recognisers().items() if _accepted(accepts, start)]
    if not likely:
        return False
    try:
        with Image.open(path, formats=likely):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _accepted(accepts: Callable[[bytes], Any], start: bytes) -> bool:
    try:
        return bool(accepts(start))
    except (struct.error, IndexError):  # fewer bytes than the format's mark
        return False


@dataclass
class Listing:
    """The image files below a folder.

    Attributes:
        root: the folder.
        files: the images, in no order.
        left: the files that were left out, counted for each first folder of their paths; "" is the folder itself.
        filled: the folders directly in ``root`` that have an image somewhere below.
    """

    root: Path
    files: list[Found] = field(default_factory=list)
    left: dict[str, Left] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)

    def describe(self, first: str | None = None) -> str:
        """How many files were left out, by kind, of a first folder or of all; empty if none was."""
        of = [self.left.get(first, Left())] if first is not None else list(self.left.values())
        counts: Left = sum(of, Left())
        return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items(), key=lambda c: (-c[1], c[0])))

    def notes(self, split: str) -> tuple[str, ...]:
        """A sentence on the files that were left out of a split, if any were."""
        found = self.describe()
        if not found:
            return ()
        n = sum(count for left in self.left.values() for count in left.values())
        return (f"{split}: {n} {'file was' if n == 1 else 'files were'} left out, as no images: {found}",)

    def check_classes(self, remedy: str) -> None:
        """Check that each folder directly in the root, which is a class, has an image.

        Raises:
            DataError: some have none.
        """
        empty = sorted(name for name in self.left if name and name not in self.filled)
        if empty:
            shown = first_few([f"{name} ({self.describe(name) or 'no files'})" for name in empty], between="; ")
            raise DataError(
                f"{self.root}: {len(empty)} of the {len(self.filled | set(empty))} class folders have no image that fmbench "
                f"reads: {shown}. Convert their images, for example to PNG, or remove the folders; {remedy}"
            )


def scan(root: Path) -> Listing:
    """All image files below a folder, and what else is there.

    Raises:
        DataError: the folder does not exist or cannot be read, or a link is broken or leads to a folder that is listed already.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of images, found {'a file' if root.exists() else 'nothing'}")
    found = Listing(root, left={"": Left()})
    for name, entry, what in walk(root):
        first = name.split("/", 1)[0] if "/" in name else ""
        if what == "folder":
            found.left.setdefault(name.split("/", 1)[0], Left())
            continue
        try:
            kind = "hidden" if what == "hidden" else _kind(entry)
            if kind:
                found.left[first][kind] += 1
                continue
            about = entry.stat()
        except OSError as error:
            broken = ", a broken link" if entry.is_symlink() and not os.path.exists(entry.path) else ""
            raise DataError(f"{entry.path}{broken}: it cannot be read: {error.strerror or error}; replace or remove it") from None
        found.files.append((name, f"{about.st_size}:{about.st_mtime_ns}"))
        if first:
            found.filled.add(first)
    return found


def _kind(entry: "os.DirEntry[str]") -> str:
    """What a file is if it is no image: its suffix, or words; empty for an image.

    Raises:
        OSError: the file cannot be read, or is a broken link.
    """
    suffix = os.path.splitext(entry.name)[1].lower()
    if not entry.is_file():
        if entry.is_symlink() and (not suffix or suffix in OF_IMAGES):
            entry.stat()  # raises the error of a broken link
        return "broken link" if entry.is_symlink() else "no regular file"
    if entry.name.endswith("~") or suffix in LEFTOVERS:
        return suffix or "~"
    if suffix in OF_IMAGES or is_image(entry.path):
        return ""
    return suffix or "without a suffix"
