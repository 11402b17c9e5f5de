"""What each of several processes does for test_distributed.py, in one launch: torchrun starts this file.

``together.py FOLDER``: FOLDER has a prepared data set ``tall``. Each process writes ``{rank}.pt`` there. ``together.py FOLDER
resume``: only a training without interruption and one that is killed. The first process writes ``resumed.pt``. With ``cuda``
as the last argument the processes use a GPU each.
"""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import user_code
from torch import nn
from trainings import CPU, Interrupted, fm_ot, network

from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import read
from fmbench.stages.shared.job import Job
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.store.files import read_json
from fmbench.system.distributed import ALONE, Group, choose_device, join_group
from fmbench.system.progress import Console
from fmbench.system.rng import seed_global
from fmbench.training.loop import train
from fmbench.training.run import Outcome, TrainingRun

SETTINGS = TrainingSettings(
    iterations=12,
    batch_size=12,
    learning_rate=1e-4,
    schedule="constant",
    checkpoint_every=4,
    log_every=3,
    flips=True,
    more_ema_decays=[0.5],
    snapshots=3,
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "micro": {"accumulation": 3, "clip_norm": 0.5, "resident_mib": 0},
    "fp16": {"precision": "fp16", "accumulation": 2},
    "compiled": {"compile": True, "accumulation": 3},
}


STAGES = {
    "sample": ("digits", "model"),
    "sample_quality": ("digits", "sample-1", "features-1"),
    "features": ("digits",),
}
"""Stages whose work the processes share, and the folders they read."""


seeds: list[int] = []
"""The seeds that the last training gave to torch's global generator, iteration by iteration."""


def run(
    folder: Path, name: str, group: Group = ALONE, objective: Any = None, device: torch.device = CPU, **changes: Any
) -> tuple[Outcome, nn.Module]:
    """A training of ``folder/tall`` with its checkpoints in ``folder/name``. Compilation only traces, and generates no code."""
    seeds.clear()
    dataset, settings = read(folder / "tall"), SETTINGS.model_copy(update=changes)
    training = TrainingRun(objective or fm_ot(), network(dataset), dataset, settings, 5, "key", device, group)
    with (
        mock.patch.object(torch, "compile", partial(torch.compile, backend="aot_eager")),
        mock.patch("fmbench.training.loop.seed_global", lambda seed, device: (seeds.append(seed), seed_global(seed, device))),
    ):
        outcome = train(training, CheckpointFolder(folder / name))
    return outcome, training.network


def killed(folder: Path, name: str, group: Group, device: torch.device = CPU) -> tuple[Outcome, nn.Module]:
    """A training that is killed between two checkpoints and then resumed."""
    try:
        run(folder, name, group, fm_ot(6), device)
    except Interrupted:
        group.wait()
    return run(folder, name, group, device=device)


def resume(folder: Path, group: Group, device: torch.device) -> None:
    _, whole = run(folder, f"whole-{group.size}", group, device=device)
    outcome, net = killed(folder, f"killed-{group.size}", group, device)
    if group.main:
        torch.save((outcome.resumed_from, outcome.curve, whole.state_dict(), net.state_dict()), folder / "resumed.pt")


def main(folder: Path, group: Group) -> None:
    seen: dict[str, Any] = {"rank": group.rank, "size": group.size}
    part = group.part(10)
    seen["part"] = [part.start, part.stop]
    seen["mean"] = group.mean(torch.tensor([1.0, float(group.rank), float("nan") if group.rank else 2.0]))
    mine: list[int] = []
    seen["map"] = list(group.map(lambda i: (mine.append(i), i**2)[1], range(7)))  # type: ignore[func-returns-value]
    seen["mine"] = mine

    for name, changes in VARIANTS.items():
        outcome, net = run(folder, f"{name}-2", group, **changes)
        seen[name] = (outcome.curve, outcome.reason, outcome.snapshots, net.state_dict(), outcome.averages, list(seeds))

    outcome, net = killed(folder, "killed", group)
    seen["killed"] = (outcome.resumed_from, outcome.curve, net.state_dict())

    # Only the second process sees a loss that is NaN.
    spoiled = fm_ot(8, value=float("nan") if group.rank else 1.0)  # call 0 warms up, so call 8 is that of iteration 7
    outcome, net = run(folder, "diverged", group, spoiled)
    seen["diverged"] = (outcome.reason, outcome.step, net.state_dict())

    # Stages of a model that the test has made.
    for stage, folders in STAGES.items():
        spec = read_json(folder / f"{stage}.json")
        for attempt in range(2 if stage == "features" else 1):  # the second attempt finds the reference there
            job = Job(spec, Console(stage, "none"), CPU, "code", group=group)
            user_code.seen.clear()
            importlib.import_module(f"fmbench.stages.{stage}").run(job, *(folder / n for n in folders), folder / f"{stage}-2")
            seen[stage, attempt] = list(user_code.seen)

    torch.save(seen, folder / f"{group.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    device = torch.device(choose_device("cuda")) if "cuda" in sys.argv else CPU
    group, folder = join_group(device), Path(sys.argv[1])
    resume(folder, group, device) if "resume" in sys.argv else main(folder, group)
    group.close()
