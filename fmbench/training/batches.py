"""The batch of each training iteration: data, noise, times and conditions, all functions of (seed, iteration).

A batch is the same wherever the data is stored, whatever the number of processes, and after any kill.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet, resident
from fmbench.errors import ConfigError
from fmbench.flow.couplings import INDEPENDENT, Coupling, coupled
from fmbench.flow.starts import NOISE, Start
from fmbench.system.distributed import ALONE, Group
from fmbench.system.rng import generator, named_seed
from fmbench.training.ahead import Ahead, Batch, OnItsOwnStream


class BatchSampler:
    """Which samples are in the batch of iteration i, as a function of (seed, i).

    Each epoch has one random order, and batches are consecutive pieces of it. Orders are drawn on the CPU and kept on ``device``:
    copying indices at each step would leave a GPU idle.
    """

    def __init__(self, size: int, batch: int, seed: int, device: torch.device | None = None) -> None:
        self.size, self.batch, self.seed, self.device = size, batch, seed, device or torch.device("cpu")
        self._orders: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """Indices of iteration ``step``, int64 of shape (batch,). A batch may begin in one epoch and end in the next."""
        first, last = step * self.batch, (step + 1) * self.batch
        pieces, position = [], first
        while position < last:
            epoch, offset = divmod(position, self.size)
            piece = self._order(epoch)[offset : offset + last - position]
            pieces.append(piece)
            position += len(piece)
        return torch.cat(pieces)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) > 1:
                self._orders.pop(min(self._orders))
            order = torch.randperm(self.size, generator=generator(self.seed, f"train/epoch/{epoch}"))
            self._orders[epoch] = order.to(self.device)
        return self._orders[epoch]


def arrays_of(dataset: DataSet) -> list[NDArray[Any]]:
    """What a training reads of each training sample: the sample itself, and what its condition is made from."""
    return [dataset.train, *dataset.stored_condition("train")]


class Resident:
    """A training split held on the device, in the types of its files.

    Args:
        part: this process's share of each batch.
        mirrored: hold a mirrored copy of the images, too.
    """

    def __init__(self, dataset: DataSet, sampler: BatchSampler, part: slice, device: torch.device, mirrored: bool) -> None:
        self.data, self.size, self.mirrored = [resident(a, device) for a in arrays_of(dataset)], len(dataset.train), mirrored
        if mirrored:
            self.data = [torch.cat([a, _mirrored(a)]) for a in self.data]
        self.sampler, self.part = sampler, part

    def read(self, step: int, coins: Tensor | None) -> list[Tensor]:
        """This process's part of the batch of iteration ``step``, from each array. Images whose coin is true are mirrored."""
        indices = self.sampler.indices(step)[self.part]
        if coins is not None and self.mirrored:
            indices = indices + coins * self.size
        # index_select copies whole samples and a[indices] copies number by number: 7 times slower on images of bytes.
        parts = [a.index_select(0, indices) for a in self.data]
        return parts if coins is None or self.mirrored else [_mirror(a, coins) for a in parts]

    def close(self) -> None:
        """Do nothing: no thread reads."""


class Streamed:
    """A training split that a thread reads from its file during training, a few batches ahead. For a GPU, into pinned memory."""

    def __init__(self, dataset: DataSet, sampler: BatchSampler, part: slice, device: torch.device, iterations: int) -> None:
        self.arrays = arrays_of(dataset)
        self.sampler, self.part, self.device = sampler, part, device
        self.ahead = Ahead(self._read, iterations)

    def read(self, step: int, coins: Tensor | None) -> list[Tensor]:
        """The same as :meth:`Resident.read`, but iterations must be read one after the other.

        Raises:
            DataError, OSError: the file cannot be read.
            ValueError: the iteration is not the next one.
        """
        parts = [a.to(self.device, non_blocking=True) for a in self.ahead.take(step)]
        return parts if coins is None else [_mirror(a, coins) for a in parts]

    def _read(self, step: int) -> list[Tensor]:
        indices = self.sampler.indices(step)[self.part].numpy()
        return [self._rows(array, indices) for array in self.arrays]

    def _rows(self, array: NDArray[Any], indices: NDArray[np.int64]) -> Tensor:
        # Read in the order of the file, which is faster from a disk, and write in the order of the batch.
        order = np.argsort(indices)
        kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        rows = torch.empty(len(indices), *array.shape[1:], dtype=kind, pin_memory=self.device.type == "cuda")
        rows.numpy()[order] = array[indices[order]]
        return rows

    def close(self) -> None:
        """End the thread."""
        self.ahead.close()


def _mirrored(array: Tensor) -> Tensor:
    """Images mirrored; labels as they are."""
    return array.flip(-1) if array.ndim == 4 else array


def _mirror(array: Tensor, coins: Tensor) -> Tensor:
    rows = torch.arange(len(array), device=array.device) + coins * len(array)
    return torch.cat([array, _mirrored(array)]).index_select(0, rows)  # copies whole samples, as above


class Batches:
    """``batches(i)`` is (x0, x1, u, *condition) of iteration i on the device.

    These are the start of the path and data (B, *) in model space, uniforms (B,) for times, and the condition of the data if they
    have one. Each process draws the numbers of the whole batch and keeps its part of them.

    With a coupling, each process also reads the data of the whole batch and pairs it, which gives every number of processes the
    same pairs. A thread does this a few batches ahead, so iterations must be asked for one after the other.

    Raises:
        ConfigError: the settings ask for flips of points.
    """

    def __init__(
        self,
        dataset: DataSet,
        settings: TrainingSettings,
        seed: int,
        device: torch.device,
        group: Group = ALONE,
        start: Start = NOISE,
        coupling: Coupling = INDEPENDENT,
    ) -> None:
        if settings.flips and not dataset.is_images:
            raise ConfigError(f"only images can be flipped, and {dataset.manifest['dataset']} has points; set flips to false")
        self.dataset, self.settings, self.seed, self.device = dataset, settings, seed, device
        self.start, self.coupling = start, coupling
        self.part = group.part(settings.batch_size)
        self._made = self.part if coupling == INDEPENDENT else slice(0, settings.batch_size)
        self._draws, self._coins = torch.Generator(device), torch.Generator(device)
        room, size = settings.resident_mib * 2**20, sum(array.nbytes for array in arrays_of(dataset))
        held = size <= room
        sampler = BatchSampler(len(dataset.train), settings.batch_size, seed, device if held else None)
        self.source: Resident | Streamed
        if held:
            mirrored = settings.flips and 2 * size <= room
            self.source = Resident(dataset, sampler, self._made, device, mirrored)
        else:
            self.source = Streamed(dataset, sampler, self._made, device, settings.iterations)
        self._ahead = None if coupling == INDEPENDENT else Ahead(OnItsOwnStream(self._make, device), settings.iterations)

    def __call__(self, step: int) -> Batch:
        if self._ahead is None:
            return self._make(step)
        return tuple(x[self.part] for x in self._ahead.take(step).here())

    def _make(self, step: int) -> Batch:
        """The batch of iteration ``step``: this process's part of it, or all of it if it is coupled."""
        batch = (self.settings.batch_size,)
        x, *stored = self.source.read(step, self._toss("flips", step, 0.5) if self.settings.flips else None)
        known = condition = self.dataset.condition.tensors(*stored)
        if self.settings.label_dropout:
            where = self._toss("labels", step, self.settings.label_dropout)
            condition = self.dataset.condition.dropped(where, *condition)
        draws, device = self._draws, self.device
        draws.manual_seed(named_seed(self.seed, f"train/noise/{step}"))
        shape = (*batch, *x.shape[1:])
        if self.dataset.is_images:
            offsets = torch.rand(shape, generator=draws, device=device)[self._made]
        else:
            offsets = torch.zeros((), device=device)
        x1 = self.dataset.to_model(x, offsets)
        noise = torch.randn(shape, generator=draws, device=device)[self._made]
        if self.coupling != INDEPENDENT:
            u = torch.rand(batch, generator=generator(self.seed, f"train/coupling/{step}"), dtype=torch.float64)
            noise = coupled(self.coupling, noise, x1, u, self.dataset.condition.groups(*known))
        x0 = self.start.place(noise, *condition)
        return x0, x1, torch.rand(batch, generator=draws, device=device)[self._made], *condition

    def _toss(self, name: str, step: int, probability: float) -> Tensor:
        """Coins (B,) that are true with this probability, for this process's part of the batch of an iteration."""
        self._coins.manual_seed(named_seed(self.seed, f"train/{name}/{step}"))
        coins = torch.rand((self.settings.batch_size,), generator=self._coins, device=self.device)
        return (coins < probability)[self._made]

    def example(self) -> tuple[Tensor, ...]:
        """Numbers with the shapes of this process's part of a batch."""
        n = self.part.stop - self.part.start
        x = torch.ones(n, *self.dataset.shape, device=self.device)
        example = self.dataset.condition.example(n, self.dataset.shape, self.device)
        return x.clone(), x, torch.full((n,), 0.5, device=self.device), *example

    def close(self) -> None:
        """End the threads, if there are any."""
        if self._ahead is not None:
            self._ahead.close()
        self.source.close()
