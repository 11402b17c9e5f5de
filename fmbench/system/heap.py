"""The C library's heap, set for work that frees and asks for the same large tensors at every step."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
MAPPED_FROM = 32 * 2**20
"""Bytes from which a block is mapped by itself, and so given back as soon as it is freed. It is what glibc raises its own
threshold to in time, and the most that older ones take; larger blocks among small ones would leave holes without bound."""
KEPT = 2**30
"""Bytes of freed memory at the heap's end that the process keeps."""


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for what is asked for next; whether it does. No number computed changes.

    By itself it gives the end of its heap back to the system as soon as some of it is free, here after each forward or
    backward pass, and every page of it is then asked for, and filled with zeros, again: up to a fifth of the processor's
    time of a small network. The largest amount of memory in use hardly changes; what a process holds at quieter times can be
    larger, by ``KEPT`` at most and what lies free between blocks.

    Left alone where the user has set malloc by the environment, and with another C library.
    """
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Either of them ends glibc's own raising of both, so it is both or neither.
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED_FROM) and mallopt(_TRIM_THRESHOLD, KEPT))
