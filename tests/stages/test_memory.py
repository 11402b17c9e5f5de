"""Memory stays constant: in a training, and in sampling, which writes samples to disk as they are made."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from user_code import command

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.flow.solvers.solution import AdaptiveSolution
from fmbench.stages import sample
from fmbench.stages.sample import standard_deviation
from fmbench.stages.shared import models
from fmbench.system.progress import Progress

STATUS = Path("/proc/self/status")
needs_proc = pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")


def anonymous_mib() -> float:
    """Memory of this process that is not backed by a file, in MiB."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("block", [1, 20, 10_000])
def test_standard_deviation_in_blocks(monkeypatch, block):
    monkeypatch.setattr(sample, "BLOCK", block)
    values = 3 + np.random.default_rng(0).standard_normal((100, 2, 3), dtype=np.float32)
    assert standard_deviation(values) == pytest.approx(values.astype(np.float64).std(), rel=1e-14)
    if block == 10_000:
        assert standard_deviation(values) == values.astype(np.float64).std()


N, SIDE = 12_000, 40
CONFIG = {
    "datasets": ["large", "small"],
    "methods": ["fm_ot"],
    "seeds": [0],
    "settings": {
        "large": {
            "data": {"source": "user_code:tall_images", "parameters": {"train": 40, "test": 10, "height": SIDE, "width": SIDE}},
            "network": {"kind": "user_code:Scale"},
            "training": {"iterations": 1, "batch_size": 4},
            "evaluation": {"sample": {"n": N, "batch": 500, "shared_batch": 10, "rtol": 0.1, "atol": 0.1}},
        },
        "small": {
            "data": {"source": "user_code:tall_images", "parameters": {"train": 40, "test": 10, "height": 8, "width": 8}},
            "network": {"kind": "unet", "channels": 8, "channels_multiple": [1, 2], "depth": 1, "head_channels": 8},
            "training": {"iterations": 300, "batch_size": 8, "checkpoint_every": 50, "log_every": 10},
        },
    },
}


def prepare_and_train(config: Config, dataset: str, folder: Path) -> None:
    said = command("prepare", "--spec", canonical(specs.prepare(config, dataset)), "--out", folder / "data")
    assert said.code == 0, said.err
    spec = canonical(specs.train(config, dataset, "fm_ot", 0))
    where = ["--data", folder / "data", "--out", folder / "model", "--checkpoints", folder / "c", "--tracking-uri", "off"]
    said = command("train", "--spec", spec, *where, "--progress", "lines")
    assert said.code == 0, said.err


def watch_memory(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list that receives the memory, in MiB, at every step of a progress bar."""
    seen: list[float] = []
    update = Progress.update

    def watching(self: Progress, *arguments: int, **values: float) -> None:
        seen.append(anonymous_mib())
        update(self, *arguments, **values)

    monkeypatch.setattr(Progress, "update", watching)
    return seen


@needs_proc
def test_samples_are_written_to_disk_as_they_are_made(tmp_path, monkeypatch):
    """Together they take 220 MiB, and twice that as float64."""

    def unsolved(field: object, x: Tensor, *_: float, **__: object) -> AdaptiveSolution:
        return AdaptiveSolution(x, torch.zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.bool))

    def constant(seed: int, indices: range, shape: tuple[int, ...], *_: object) -> Tensor:
        return torch.tensor(indices).float().reshape(-1, 1, 1, 1).expand(-1, *shape).clone()

    config = parse(CONFIG)
    prepare_and_train(config, "large", tmp_path)
    known = models.model_of

    def quick(*arguments: Any) -> models.Model:
        return dataclasses.replace(known(*arguments), sampler=models.Sampler(unsolved))  # a real solve takes minutes

    monkeypatch.setattr(sample, "model_of", quick)
    monkeypatch.setattr(models, "base_noise", constant)
    seen = watch_memory(monkeypatch)
    spec = canonical(specs.evaluate("sample", config, "large", "fm_ot", 0))
    folders = ["--data", tmp_path / "data", "--model", tmp_path / "model", "--out", tmp_path / "s"]
    said = command("sample", "--spec", spec, *folders, "--progress", "none")
    assert said.code == 0, said.err
    samples = np.load(tmp_path / "s/samples.npy", mmap_mode="r")
    assert samples.nbytes > 200 * 2**20 and len(seen) == N // 500
    assert (samples[:, 1, 2, 3] == np.arange(N)).all()
    # A batch takes 9 MiB, and the heap holds some before it reuses memory. Early allocations are kept and are no growth.
    assert max(seen[12:]) - max(seen[4:12]) < 40, seen
    assert max(seen) - seen[0] < 150, seen


@needs_proc
def test_the_memory_of_a_training_does_not_grow(tmp_path, monkeypatch):
    seen = watch_memory(monkeypatch)
    prepare_and_train(parse(CONFIG), "small", tmp_path)
    seen = seen[-30:]  # every ten iterations; earlier values are from the preparation
    # Keeping the graph of every step would take 0.5 MiB each, 50 MiB over the last hundred.
    assert max(seen[20:]) - max(seen[5:15]) < 5, seen
