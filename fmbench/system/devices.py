"""GPUs: which one is a job's, how it comes to the same numbers each time, and how it rounds products."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

_CHOOSING = 10.0  # seconds to wait for others that choose
_taken: list[FileLock] = []  # held until the process ends, however it ends


def take_gpu() -> str:
    """The GPU of this process: of those it sees the first of the least taken, so that jobs started side by side spread over them.

    Each job holds a lock on a place at its GPU until it ends. Locks are one user's on one machine, in its folder for temporary
    files; jobs that have such a folder each do not see each other. Where there can be no locks it is the current GPU, the first.
    """
    count = torch.cuda.device_count()
    if count < 2:
        return "cuda"
    names = [str(getattr(torch.cuda.get_device_properties(i), "uuid", i)) for i in range(count)]  # whatever is made visible
    folder = Path(tempfile.gettempdir()) / f"fmbench-gpus-{os.getuid()}"
    try:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "choosing", timeout=_CHOOSING):
            held = [[path for path in folder.glob(f"{name}-*.lock") if _is_held(path)] for name in names]
            number = min(range(count), key=lambda i: len(held[i]))
            places = (folder / f"{names[number]}-{place}.lock" for place in itertools.count())
            lock = FileLock(next(path for path in places if path not in held[number]))
            lock.acquire(blocking=False)
            _taken.append(lock)
            return f"cuda:{number}"
    except (OSError, NotImplementedError):  # Timeout is an OSError; a file system may have no locks
        return "cuda"


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def reproducible(on: bool = True) -> None:
    """Have a GPU give the same numbers each time, where its libraries can; on a CPU everything here does by itself.

    Attention by cuDNN is left out with it, since that asks for no deterministic algorithm unless all others would raise. The
    backward passes of the other two fused ones do not either: over more than one block of keys a gradient may still differ in its
    last bits. That is read in torch's source, and has not been seen on a device.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on, warn_only=True)
    # Memory filled before use is for finding errors, and takes as long as writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.enable_cudnn_sdp(not on)


def round_products(to: str) -> None:
    """Have a GPU take products and convolutions of float32 numbers as they are (``ieee``), or rounded to 10 bits (``tf32``).

    By itself torch lets convolutions round. It is told in the older of its two ways as well as in the newer: its compiler still
    asks in the older, and an answer that differs from the newer is an error there.
    """
    _round_matrices(to == "tf32")
    _round_convolutions(to == "tf32")


def _round_matrices(rounded: bool) -> None:
    torch.set_float32_matmul_precision("high" if rounded else "highest")


def _round_convolutions(rounded: bool) -> None:
    torch.backends.cudnn.allow_tf32 = rounded
    kinds: list[Any] = [torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]
    for kind in kinds:
        kind.fp32_precision = "tf32" if rounded else "ieee"


@contextlib.contextmanager
def rounding(to: str) -> Iterator[None]:
    """:func:`round_products` within it; restored after."""
    matrices, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        round_products(to)
        yield
    finally:
        _round_matrices(matrices)
        _round_convolutions(convolutions)
