"""Batches of ours against those of a torch DataLoader, in images per second of processor time, with random mirroring.

50,000 images of 3 x 32 x 32 in uint8, batches of 128. A DataLoader reads them one by one: once as tensors, and once as
CIFAR-10's examples do, torchvision's pictures by RandomHorizontalFlip, ToTensor and Normalize. It has no workers, so nothing is
spent on passing batches between processes. Ours: the training split held in memory, with a mirrored copy or without, or streamed
from its file by a thread. ``uint8`` is the batch as stored; ``float32`` is in [-1, 1], ours dequantised with noise, theirs not.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _peer import random_data
from _timing import arguments, in_turn, machine, show, write
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet
from fmbench.training.batches import Batches, Streamed

N, BATCH, BATCHES = 50_000, 128, 20
SHAPE = (3, 32, 32)
COLUMNS = ["ours", "theirs", "ours_per_cpu_s", "theirs_per_cpu_s", "ratio", "ratio_low", "ratio_high"]


class Tensors(Dataset):
    """Images as uint8 tensors, mirrored by a coin each."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.flip = images, transforms.RandomHorizontalFlip()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        flipped: Tensor = self.flip(self.images[index])
        return flipped


class Pictures(Dataset):
    """Images as torchvision's data sets give them, through the usual transforms."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        mean = (0.5, 0.5, 0.5)
        steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(mean, mean)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.transform(Image.fromarray(self.images[index]))
        return image


def endless(loader: DataLoader) -> Iterator[Tensor]:
    while True:
        yield from loader


def of_loader(images: Dataset) -> Callable[[], None]:
    batches = endless(DataLoader(images, BATCH, shuffle=True, drop_last=True))

    def work() -> None:
        for _ in range(BATCHES):
            next(batches)

    return work


def ours_of(dataset: DataSet, resident_mib: int, stored: bool) -> Callable[[], None]:
    settings = TrainingSettings(iterations=10**7, batch_size=BATCH, flips=True, resident_mib=resident_mib)
    batches = Batches(dataset, settings, 0, torch.device("cpu"))
    if (resident_mib == 1) != isinstance(batches.source, Streamed):
        raise RuntimeError("the data are not where this benchmark wants them")
    coins, step = torch.Generator().manual_seed(0), 0

    def work() -> None:
        nonlocal step
        for _ in range(BATCHES):
            x = batches.source.read(step, torch.rand(BATCH, generator=coins) < 0.5)
            if not stored:
                dataset.to_model(x, torch.rand(x.shape, generator=coins))
            step += 1

    return work


def main() -> None:
    options = arguments(__doc__)
    before, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder:
        dataset = random_data(SHAPE, Path(folder), N)
        images = torch.from_numpy(np.array(dataset.train))
        mib = images.nbytes // 2**20 + 1
        ours = {"resident, mirrored copy": 3 * mib, "resident, mirrored as it goes": mib, "streamed, mirrored as it goes": 1}
        tensors, pictures = Tensors(images), Pictures(images)
        for kind, theirs in (("uint8", tensors), ("uint8", pictures), ("float32", pictures)):
            for name, room in ours.items():
                timed: dict[str, Any] = in_turn(
                    ours_of(dataset, room, kind == "uint8"), of_loader(theirs), options.rounds, clock=time.process_time
                )
                row: dict[str, Any] = {"ours": f"{name}, {kind}", "theirs": f"DataLoader, {type(theirs).__name__.lower()}"}
                row |= {f"{who}_per_cpu_s": 1e3 * BATCH * BATCHES / timed[f"{who}_ms"] for who in ("ours", "theirs")}
                rows.append(row | timed)
        show(rows, COLUMNS)
    write(options.out, before, {"data": rows})


if __name__ == "__main__":
    main()
