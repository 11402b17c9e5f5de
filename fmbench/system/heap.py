"""Settings of the C library's heap, for work that frees and allocates the same large tensors at every step."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
MAPPED_FROM = 32 * 2**20
"""Size in bytes from which a block gets its own mapping, which returns it to the system as soon as it is freed. glibc raises its
own threshold to this value over time, and older versions accept no larger one. Larger blocks inside the heap would leave holes of
unlimited size between small ones."""
KEPT = 2**30
"""Bytes of freed memory at the end of the heap that the process keeps."""


def keep_freed_memory() -> bool:
    """Make glibc reuse freed memory instead of returning it to the system. Return whether it will. No result changes.

    By default glibc returns the end of its heap to the system as soon as some of it is free, here after each forward or
    backward pass. The next pass then asks for every page again, and the system fills each with zeros: up to a fifth of the
    processor time of a small network. With this setting the peak memory hardly changes. Between peaks the process may hold more,
    by at most ``KEPT`` plus the free space between blocks.

    Nothing is changed with another C library, or if the user has set malloc through the environment.
    """
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Setting either one stops glibc from adapting both, so both must be set.
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED_FROM) and mallopt(_TRIM_THRESHOLD, KEPT))
