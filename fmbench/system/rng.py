"""Named seeds: every random number of the benchmark is a function of (seed, name, index).

Two ways to draw:

* :func:`generator` gives a torch generator for a name, such as an iteration of a training;
* :func:`indexed_normal` and friends draw for *samples*: sample i gets the same numbers
  whichever batch it falls in, on every device.

torch's global generator is for what offers no other: initial weights, dropout, and what a network of one's own draws; it is
seeded for just that, in training for each iteration. A network that draws by ``random`` or numpy is not reproducible.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def named_seed(seed: int, name: str) -> int:
    """A 63-bit seed from a base seed and a name, independent between names."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, name: str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on ``device`` for the stream ``name`` of ``seed``."""
    g = torch.Generator(device=device)
    g.manual_seed(named_seed(seed, name))
    return g


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generator of the CPU and that of ``device``.

    ``torch.manual_seed`` sees to devices of every kind, and writes down the stack for those not initialised yet, which
    takes 0.1 to 0.3 ms: the whole step of a small network takes 4.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _indexed(
    seed: int, name: str, indices: Sequence[int], draw: Callable[[np.random.Generator], np.ndarray], shape: tuple
) -> Tensor:
    # Philox is counter-based: index i owns the block of counters (0, 0, i, 0) to (2^64, 2^64, i, 0),
    # so opening the stream of one sample costs microseconds and no two samples can overlap.
    key = named_seed(seed, name)
    out = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in enumerate(indices):
        bits = np.random.Philox(key=key, counter=[0, 0, int(index), 0])
        out[row] = draw(np.random.Generator(bits))
    return torch.from_numpy(out)


def indexed_normal(seed: int, name: str, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of shape ``(len(indices), *shape)``; row r depends on (seed, name, indices[r]) only."""
    return _indexed(seed, name, indices, lambda g: g.standard_normal(shape, dtype=np.float32), shape)


def indexed_uniform(seed: int, name: str, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Uniform noise on [0, 1), shaped and seeded as :func:`indexed_normal`."""
    return _indexed(seed, name, indices, lambda g: g.random(shape, dtype=np.float32), shape)


def indexed_rademacher(seed: int, name: str, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Signs -1 and +1 with equal probability, shaped and seeded as :func:`indexed_normal`."""
    return _indexed(seed, name, indices, lambda g: (g.integers(0, 2, shape, dtype=np.int8) * 2 - 1).astype(np.float32), shape)
