"""Images that are smaller than the size of their data set: enlarged as all others are resized, or left out, as in SR3."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from fmbench.data.images import Item
from fmbench.data.opening import stored_size
from fmbench.errors import DataError

Smaller = Literal["enlarge", "drop"]
"""What happens to images whose short side is below the size."""
THREADS = 16
"""Files opened at a time, since a disk or a network is waited for."""


def large_enough(items: Iterable[Item], size: int | None, smaller: Smaller | None) -> list[bool] | None:
    """Whether each image is kept: all whose short side is at least ``size``. None if no image is left out for its size.

    Raises:
        DataError: smaller images are to be left out, but no size is given; or fewer than two are left; or one cannot be read.
    """
    if smaller != "drop":
        return None
    if size is None:
        raise DataError("the parameter smaller needs the parameter size: the side below which images are left out")
    with ThreadPoolExecutor(THREADS) as pool:
        kept = list(pool.map(lambda item: min(stored_size(item.name, item.content)) >= size, items))
    if sum(kept) < 2:
        raise DataError(
            f"{sum(kept)} of {len(kept)} images have a short side of at least {size} pixels, and two are needed; give a smaller "
            "size, or smaller: enlarge"
        )
    return kept


def left_out(name: str, kept: Sequence[bool] | None, size: int | None) -> tuple[str, ...]:
    """A sentence on the images of a split that were left out; empty if the size is no reason to."""
    if kept is None:
        return ()
    return (f"{name}: {len(kept) - sum(kept)} of {len(kept)} images have a short side below {size} pixels and were left out",)
