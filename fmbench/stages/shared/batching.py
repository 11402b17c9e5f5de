"""Samples in batches: their indices, and the noise they start from."""

from collections.abc import Iterator

import torch

from fmbench.system.rng import indexed_normal


def batches(n: int, size: int) -> Iterator[range]:
    """Index ranges of at most ``size`` that cover n samples."""
    for start in range(0, n, size):
        yield range(start, min(start + size, n))


def base_noise(seed: int, indices: range, shape: tuple[int, ...], std: float, device: torch.device) -> torch.Tensor:
    """The noise (len(indices), *shape) that these samples start from: the same for every method, solver and batch size."""
    noise = indexed_normal(seed, "sample", indices, shape).to(device) * std
    return noise.to(memory_format=torch.channels_last) if noise.ndim == 4 else noise
