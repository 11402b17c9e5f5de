"""Memory is flat: training does not grow, and samples go to the disk as they come."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from user_code import command

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.flow.solvers.adaptive import AdaptiveSolution
from fmbench.stages import sample
from fmbench.stages.sample import standard_deviation
from fmbench.store.files import atomic_array
from fmbench.system.progress import Progress

STATUS = Path("/proc/self/status")
needs_proc = pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")


def anonymous() -> float:
    """MiB of this process that are no file's."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


# An array that grows on the disk


def test_an_array_filled_in_pieces_is_the_file_that_numpy_saves(tmp_path):
    values = np.random.default_rng(0).standard_normal((7, 2, 3), dtype=np.float32)
    with atomic_array(tmp_path / "a.npy", values.shape) as array:
        assert not (tmp_path / "a.npy").exists()
        for i in range(0, 7, 3):
            array[i : i + 3] = values[i : i + 3]
    np.save(tmp_path / "b.npy", values)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (array == values).all()  # and can still be read


def test_an_array_that_is_not_finished_is_not_there(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"old")

    def fail() -> None:
        with atomic_array(tmp_path / "a.npy", (4,)) as array:
            array[:] = 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"] and (tmp_path / "a.npy").read_bytes() == b"old"


def test_a_disk_without_room_for_an_array_is_found_before_the_first_piece(tmp_path, monkeypatch):
    def full(handle: int, start: int, size: int) -> None:
        assert (start, size) == (0, 128 + 4_000_000)  # numpy's header and the numbers
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"), atomic_array(tmp_path / "a.npy", (1_000_000,)):
        pytest.fail("there is no room")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("block", [1, 20, 10_000])
def test_standard_deviation_in_blocks(monkeypatch, block):
    monkeypatch.setattr(sample, "BLOCK", block)
    values = 3 + np.random.default_rng(0).standard_normal((100, 2, 3), dtype=np.float32)
    assert standard_deviation(values) == pytest.approx(values.astype(np.float64).std(), rel=1e-14)
    if block == 10_000:
        assert standard_deviation(values) == values.astype(np.float64).std()


# Stages


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


def trained(config: Config, dataset: str, folder: Path) -> None:
    said = command("prepare", "--spec", canonical(specs.prepare(config, dataset)), "--out", folder / "data")
    assert said.code == 0, said.err
    spec = canonical(specs.train(config, dataset, "fm_ot", 0))
    where = ["--data", folder / "data", "--out", folder / "model", "--checkpoints", folder / "c", "--tracking-uri", "off"]
    said = command("train", "--spec", spec, *where, "--progress", "lines")
    assert said.code == 0, said.err


def watched(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Fills up with the memory at every step of a progress bar."""
    seen: list[float] = []
    update = Progress.update

    def watching(self: Progress, *arguments: int, **values: float) -> None:
        seen.append(anonymous())
        update(self, *arguments, **values)

    monkeypatch.setattr(Progress, "update", watching)
    return seen


@needs_proc
def test_samples_are_written_as_they_come(tmp_path, monkeypatch):
    """All of them together take 220 MiB, as float64 twice that."""

    def unsolved(field: object, x: Tensor, *_: float, **__: object) -> AdaptiveSolution:
        return AdaptiveSolution(x, torch.zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.bool))

    def constant(seed: int, indices: range, shape: tuple[int, ...], *_: object) -> Tensor:
        return torch.tensor(indices).float().reshape(-1, 1, 1, 1).expand(-1, *shape).clone()

    config = parse(CONFIG)
    trained(config, "large", tmp_path)
    monkeypatch.setattr(sample, "dopri5", unsolved)  # solving it in earnest takes minutes
    monkeypatch.setattr(sample, "base_noise", constant)
    seen = watched(monkeypatch)
    spec = canonical(specs.evaluate("sample", config, "large", "fm_ot", 0))
    folders = ["--data", tmp_path / "data", "--model", tmp_path / "model", "--out", tmp_path / "s"]
    said = command("sample", "--spec", spec, *folders, "--progress", "none")
    assert said.code == 0, said.err
    samples = np.load(tmp_path / "s/samples.npy", mmap_mode="r")
    assert samples.nbytes > 200 * 2**20 and len(seen) == N // 500
    assert (samples[:, 1, 2, 3] == np.arange(N)).all()
    # A batch takes 9 MiB, and the heap some of them before it is used again; what came first was kept and is no growth.
    assert max(seen[12:]) - max(seen[4:12]) < 40, seen
    assert max(seen) - seen[0] < 150, seen


@needs_proc
def test_a_training_does_not_grow(tmp_path, monkeypatch):
    seen = watched(monkeypatch)
    trained(parse(CONFIG), "small", tmp_path)
    seen = seen[-30:]  # every ten iterations; what comes first is of the preparation
    # A graph kept at every step would be 0.5 MiB each, so 50 MiB over the last hundred.
    assert max(seen[20:]) - max(seen[5:15]) < 5, seen
