"""What a coupling adds to a training step of the default benchmark's networks, in processor time, at several sizes of a batch.

Both sides are the whole iteration of the training loop, of our own code: "ours" without a coupling, "theirs" with one. A ratio of
1.15 therefore means 15 % more processor time. The time of the thread that makes batches ahead is included. On a machine with a
free core this thread runs beside the step, and the time that passes grows by less.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _timing import arguments, in_turn, machine, show, write

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.points import checkerboard
from fmbench.data.prepared import DataSet, read
from fmbench.data.sources import digits
from fmbench.data.writer import write as write_data
from fmbench.flow.couplings import INDEPENDENT, Coupling, MinibatchOT, Sinkhorn
from fmbench.flow.objectives import build
from fmbench.flow.starts import NOISE
from fmbench.networks.mlp import MLP
from fmbench.networks.unet import UNet
from fmbench.system.distributed import ALONE
from fmbench.training.batches import Batches
from fmbench.training.step import Step

COLUMNS = ["network", "coupling", "batch", "ours_ms", "theirs_ms", "ratio", "ratio_low", "ratio_high"]
CPU = torch.device("cpu")
STEPS = 10
"""In one call, more than are made ahead."""


def steps(dataset: DataSet, coupling: Coupling, batch: int) -> Callable[[], None]:
    settings = TrainingSettings(batch_size=batch, iterations=1_000_000)
    torch.manual_seed(0)
    if dataset.is_images:
        network: torch.nn.Module = UNet(dataset.shape, 16, (1, 2), 1, (), 32, resample_blocks=False, max_frequency=60.0)
    else:
        network = MLP(dataset.shape, width=192, depth=5)
    step = Step(build(METHODS["fm_ot"]), network, settings, CPU)
    batches, number = Batches(dataset, settings, 0, CPU, ALONE, NOISE, coupling), 0

    def several() -> None:
        nonlocal number
        for _ in range(STEPS):
            step(*batches(number))
            number += 1

    return several


def main() -> None:
    options, before = arguments(__doc__), machine()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, raw in (("MLP, checkerboard", checkerboard()), ("U-Net, digits", digits())):
            write_data(raw, Path(folder) / name, {"dataset": name})
            dataset = read(Path(folder) / name)
            for batch in (64, 128, 256, 512):
                for coupling in (MinibatchOT(), Sinkhorn()):
                    plain, coupled = (steps(dataset, c, batch) for c in (INDEPENDENT, coupling))
                    timed = in_turn(plain, coupled, options.rounds, clock=time.process_time)
                    timed |= {key: timed[key] / STEPS for key in ("ours_ms", "theirs_ms")}
                    rows.append({"network": name, "coupling": type(coupling).__name__, "batch": batch, **timed})
    show(rows, COLUMNS)
    write(options.out, before, {"coupling": rows})


if __name__ == "__main__":
    main()
