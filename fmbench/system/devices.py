"""GPUs: how a job chooses one, how it gets the same numbers each time, and how the GPU rounds products."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

Rounding = Literal["ieee", "tf32"]

_CHOOSING_TIMEOUT = 10.0  # seconds to wait while other jobs choose their GPU
_taken: list[FileLock] = []  # locks that this process holds until it ends, however it ends


def take_gpu() -> str:
    """Return the GPU for this process: the visible GPU with the fewest jobs, and the first of several such GPUs.

    Jobs that are started at the same time therefore spread over the GPUs. Each job holds a lock for its GPU until it ends. The
    locks are files in the folder for temporary files, one folder per user and machine; jobs with different such folders do not
    see each other. Without locks the result is ``cuda``, the current GPU, which is the first one.
    """
    count = torch.cuda.device_count()
    if count < 2:
        return "cuda"
    # A GPU's UUID stays the same when CUDA_VISIBLE_DEVICES changes its number.
    names = [str(getattr(torch.cuda.get_device_properties(i), "uuid", i)) for i in range(count)]
    folder = Path(tempfile.gettempdir()) / f"fmbench-gpus-{os.getuid()}"
    try:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "choosing", timeout=_CHOOSING_TIMEOUT):
            held = [[path for path in folder.glob(f"{name}-*.lock") if _is_held(path)] for name in names]
            number = min(range(count), key=lambda i: len(held[i]))
            places = (folder / f"{names[number]}-{place}.lock" for place in itertools.count())
            lock = FileLock(next(path for path in places if path not in held[number]))
            lock.acquire(blocking=False)
            _taken.append(lock)
            return f"cuda:{number}"
    except (OSError, NotImplementedError):  # Timeout is an OSError; some file systems have no locks
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
    """Make a GPU give the same numbers each time, where its libraries can. A CPU always does.

    This also switches off attention by cuDNN, which uses a deterministic algorithm only where torch is set to raise an error
    without one; here torch only warns. The backward passes of the other two fused attentions do not use one either: with more
    than one block of keys, the last bits of a gradient may still differ. This follows from torch's source and has not been
    observed on a device.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on, warn_only=True)
    # Filling memory before its use helps to find errors, but takes as long as writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.enable_cudnn_sdp(not on)


def round_products(to: Rounding) -> None:
    """Set how a GPU multiplies and convolves float32 numbers: in full precision (``ieee``) or rounded to 10 bits (``tf32``).

    By default torch lets convolutions round. The setting is made in both of torch's interfaces, the old and the new: its compiler
    still reads the old one, and raises an error if the two differ.
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
def rounding(to: Rounding) -> Iterator[None]:
    """Apply :func:`round_products` inside the ``with`` block, and restore the setting after it."""
    matrices, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        round_products(to)
        yield
    finally:
        _round_matrices(matrices)
        _round_convolutions(convolutions)
