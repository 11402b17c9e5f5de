"""Random streams: every random number of the benchmark is a function of (seed, name, index).

There are two ways to draw:

* :func:`generator` returns a torch generator for a name, such as an iteration of a training;
* :func:`indexed_normal` and the other indexed functions draw for *samples*: sample i gets the same numbers in every batch and on
  every device.

torch's global generator serves only what accepts no other: initial weights, dropout, and draws inside a plug-in network. It is
seeded just before that, in training at each iteration. A network that draws with ``random`` or numpy is not reproducible.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def named_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed from a base seed and a name. Seeds of different names are independent."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, name: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator on ``device`` for the stream ``name`` of ``seed``."""
    g = torch.Generator(device=device)
    g.manual_seed(named_seed(seed, name))
    return g


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device``.

    ``torch.manual_seed`` would seed devices of every kind. For those that are not initialised it records the call stack, which
    takes 0.1 to 0.3 ms; a whole training step of a small network takes 4 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _indexed(
    seed: int, name: str, indices: Sequence[int], draw: Callable[[np.random.Generator], np.ndarray], shape: tuple
) -> Tensor:
    # Philox is counter-based: index i owns the block of counters (0, 0, i, 0) to (2^64, 2^64, i, 0).
    # The stream of one sample therefore starts within microseconds, and the streams of two samples cannot overlap.
    key = named_seed(seed, name)
    out = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in enumerate(indices):
        bits = np.random.Philox(key=key, counter=[0, 0, int(index), 0])
        out[row] = draw(np.random.Generator(bits))
    return torch.from_numpy(out)


def indexed_normal(seed: int, name: str, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return float32 standard normal noise (len(indices), *shape). Row r depends only on (seed, name, indices[r])."""
    return _indexed(seed, name, indices, lambda g: g.standard_normal(shape, dtype=np.float32), shape)


def indexed_uniform(seed: int, name: str, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return uniform noise on [0, 1), with the shape and seeds of :func:`indexed_normal`."""
    return _indexed(seed, name, indices, lambda g: g.random(shape, dtype=np.float32), shape)


def indexed_rademacher(seed: int, name: str, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return signs -1 and +1 with equal probability, with the shape and seeds of :func:`indexed_normal`."""
    return _indexed(seed, name, indices, lambda g: (g.integers(0, 2, shape, dtype=np.int8) * 2 - 1).astype(np.float32), shape)
