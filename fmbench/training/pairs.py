"""The batches of a training on given pairs of noise and samples (reflow), as functions of (seed, iteration)."""

import torch
from torch import Tensor

from fmbench.config.training_settings import TrainingSettings
from fmbench.system.distributed import ALONE, Group
from fmbench.system.rng import named_seed
from fmbench.training.ahead import Batch
from fmbench.training.batches import BatchSampler


class PairBatches:
    """``batches(i)`` is (x0, x1, u) of iteration i: pairs in the order of their epochs, and uniforms for times.

    Pairs are held on the device. They are in model space, so nothing is dequantised or flipped.

    Args:
        x0, x1: noise and samples in model space, shape (N, *) each.
    """

    def __init__(
        self, x0: Tensor, x1: Tensor, settings: TrainingSettings, seed: int, device: torch.device, group: Group = ALONE
    ) -> None:
        self.x0, self.x1, self.settings, self.seed, self.device = x0.to(device), x1.to(device), settings, seed, device
        self.part = group.part(settings.batch_size)
        self.sampler = BatchSampler(len(x0), settings.batch_size, seed, device)
        self._draws = torch.Generator(device)

    def __call__(self, step: int) -> Batch:
        rows = self.sampler.indices(step)[self.part]
        self._draws.manual_seed(named_seed(self.seed, f"train/noise/{step}"))
        u = torch.rand((self.settings.batch_size,), generator=self._draws, device=self.device)
        return self.x0.index_select(0, rows), self.x1.index_select(0, rows), u[self.part]

    def example(self) -> Batch:
        """Numbers with the shapes of this process's part of a batch."""
        n = self.part.stop - self.part.start
        x = torch.ones(n, *self.x0.shape[1:], device=self.device)
        return x.clone(), x, torch.full((n,), 0.5, device=self.device)

    def close(self) -> None:
        """Do nothing: no thread reads."""
