"""Where a source's files are: in a given folder, in a customary place, or downloaded once into a cache.

The cache is ``$FMBENCH_DATA``, or the operating system's folder for caches. Files that a user puts there, in a folder with the
source's name, are found like downloaded ones, so a config needs no paths of one machine.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fmbench.errors import DataError
from fmbench.store.temporary import temporary_folder


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        name: its name in the cache.
        url: its official public address.
        hash: ``md5:...`` or ``sha256:...`` of the file.
    """

    name: str
    url: str
    hash: str


def cache(source: str) -> Path:
    """The folder of a source in the cache.

    Raises:
        DataError: there is no home folder, nor another place for the cache.
    """
    root = os.environ.get("FMBENCH_DATA")
    if not root:
        import pooch

        try:
            root = str(pooch.os_cache("fmbench"))
        except RuntimeError as error:  # a user without a home
            raise DataError(f"there is no folder to keep data in: {error}; set the variable FMBENCH_DATA to one") from None
    return Path(root) / source


def folder(path: str | None, places: Iterable[Path], names: Iterable[str], what: str, where_to_get: str) -> Path | None:
    """The folder that has any of the files ``names``: ``path`` if given, else the first such of ``places``, else None.

    Raises:
        DataError: ``path`` is given and has none of them.
    """
    names = tuple(names)
    for place in [Path(os.path.expanduser(path))] if path is not None else places:
        if any((place / name).exists() for name in names):
            return place
    if path is None:
        return None
    there = "it does not exist" if not Path(os.path.expanduser(path)).exists() else "none of them is there"
    raise DataError(f"{path}: expected {what} ({', '.join(names)}), but {there}. {where_to_get}")


def fetch(source: str, remotes: Iterable[Remote]) -> Path:
    """Download the files that the cache lacks or has with a wrong hash, and return the cache's folder.

    Raises:
        DataError: a download fails, or has a wrong hash.
    """
    import pooch

    place = cache(source)
    # A bar drawn into a log file would be noise.
    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=60)
    for file in remotes:
        final = place / file.name
        try:
            if final.is_file() and pooch.hashes.hash_matches(final, file.hash):
                continue
            # pooch writes beside the final file, and a killed process would leave a file there that nobody recognises.
            with temporary_folder(place, file.name) as folder:
                store = pooch.create(
                    path=folder, base_url="", registry={file.name: file.hash}, urls={file.name: file.url}, retry_if_failed=3
                )
                store.fetch(file.name, downloader=download)
                os.replace(folder / file.name, final)
        except (ValueError, OSError) as error:  # a wrong hash raises the first, a failed connection the second
            raise DataError(
                f"{final} could not be downloaded: {' '.join(str(error).split())}. "
                f"Expected {file.url} with {file.hash}. "
                f"Without a connection, get the file elsewhere and put it into {place}, or give its folder as the parameter path"
            ) from None
    return place
