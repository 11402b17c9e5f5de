"""Batches: the same numbers wherever the data is stored and however many processes share them."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import CPU
from user_code import tall_images

from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet, read
from fmbench.data.writer import write
from fmbench.errors import ConfigError
from fmbench.system.distributed import ALONE, Group
from fmbench.training.batches import Batches, BatchSampler, Resident, Streamed

STEPS = 12


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"batch_size": 10, "iterations": STEPS} | changes)


def walk(dataset: DataSet, first: int = 0, group: Group = ALONE, **changes: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    batches = Batches(dataset, settings(**changes), 5, CPU, group)
    try:
        return [batches(step) for step in range(first, STEPS)]
    finally:
        batches.close()


def same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


@pytest.fixture
def mirroring(monkeypatch) -> list[bool]:
    """For each resident split made so far, whether it holds a mirrored copy."""
    seen: list[bool] = []
    original = Resident.__init__

    def noting(self: Resident, *arguments: Any) -> None:
        original(self, *arguments)
        seen.append(self.mirrored)

    monkeypatch.setattr(Resident, "__init__", noting)
    return seen


# Where the data is stored


@pytest.mark.parametrize(("kind", "flips"), [("board", False), ("tall", False), ("tall", True)])
def test_streaming_gives_the_same_batches_to_the_bit(kind, flips, request):
    dataset = request.getfixturevalue(kind)
    held, streamed = (Batches(dataset, settings(flips=flips, resident_mib=room), 5, CPU) for room in (1, 0))
    assert (type(held.source), type(streamed.source)) == (Resident, Streamed)
    expected = [held(step) for step in range(STEPS)]
    assert same([streamed(step) for step in range(STEPS)], expected)
    streamed.close()
    # A resumed training starts in the middle.
    assert same(walk(dataset, first=7, flips=flips, resident_mib=0), expected[7:])


def test_a_mirrored_copy_gives_the_same_batches_as_mirroring_each_batch(tall, mirroring):
    expected = walk(tall, flips=True)
    batches = Batches(tall, settings(flips=True), 5, CPU)
    assert isinstance(batches.source, Resident)
    batches.source = Resident(tall, batches.source.sampler, batches.part, CPU, False)
    assert same([batches(step) for step in range(STEPS)], expected)
    walk(tall, flips=False)
    assert mirroring == [True, True, False, False]


def test_a_split_that_fits_only_once_has_no_mirrored_copy(tmp_path, mirroring):
    write(tall_images(train=2400, test=6, height=16, width=16), tmp_path, {"dataset": "large"})
    large = read(tmp_path)
    assert 1 < large.train.nbytes / 2**20 < 2
    walk(large, flips=True, resident_mib=2)
    walk(large, flips=True, resident_mib=4)
    assert mirroring == [False, True]


def test_a_stream_reads_ahead_and_ends(tall):
    def streams() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "fmbench-batches"]

    batches = Batches(tall, settings(resident_mib=0, iterations=1000), 5, CPU)
    assert not streams()
    batches(0)
    (thread,) = streams()
    assert isinstance(batches.source, Streamed)
    for _ in range(200):
        if batches.source.ahead.full():
            break
        thread.join(0.02)
    assert batches.source.ahead.full() and thread.is_alive()
    batches.close()
    assert not streams()
    whole = Batches(tall, settings(resident_mib=0), 5, CPU)
    for step in range(STEPS):
        whole(step)
    whole.close()
    assert not streams()


def test_a_stream_is_read_in_order(tall):
    batches = Batches(tall, settings(resident_mib=0), 5, CPU)
    batches(3)
    with pytest.raises(ValueError, match="a stream is read in order: iteration 4 is next, not 9"):
        batches(9)
    batches.close()


def test_an_error_in_the_reading_thread_is_raised_by_the_next_read(tall, monkeypatch):
    class Broken:
        shape, dtype, nbytes = tall.train.shape, tall.train.dtype, tall.train.nbytes

        def __len__(self) -> int:
            return len(tall.train)

        def __getitem__(self, indices: Any) -> Any:
            raise OSError(5, "Input/output error", "train.npy")

    monkeypatch.setattr(DataSet, "train", Broken())
    batches = Batches(read(tall.folder), settings(resident_mib=0), 5, CPU)
    with pytest.raises(OSError, match="Input/output error"):
        batches(0)
    batches.close()


# What is drawn


def drawn(dataset: DataSet, seed: int) -> Tensor:
    """Four rows of 2400 numbers each: coins, offsets within levels, noise, times."""
    batches, coins, rows = Batches(dataset, settings(flips=True, batch_size=200), seed, CPU), [], []
    batches.source.sampler.seed = 0  # so that the images are the same for every seed
    read = batches.source.read
    batches.source.read = lambda step, flips: (coins.append(flips), read(step, flips))[1]
    for step in range(STEPS):
        x0, x1, u = batches(step)
        level = (x1.double() + 1) * dataset.levels / 2
        rows.append(torch.stack([coins[-1].double(), (level - level.floor()).flatten()[:200], x0.flatten()[:200].double(), u]))
    return torch.cat(rows, 1)


def test_coins_offsets_noise_and_times_are_not_correlated(tall):
    """Each row is in the order of drawing, so two streams with the same seed would be correlated."""
    found = torch.corrcoef(drawn(tall, 5))
    assert (found - torch.eye(4)).abs().max() < 5 / (200 * STEPS) ** 0.5


def test_another_seed_gives_other_coins_offsets_noise_and_times(tall):
    one, other = drawn(tall, 5), drawn(tall, 6)
    assert torch.equal(drawn(tall, 5), one)
    assert (one != other).double().mean(1).min() > 0.4


# Flips


def test_flips_mirror_half_of_the_images_left_to_right_and_touch_nothing_else(tall):
    """The images are not square, so any other flip would show."""
    plain, flipped = (walk(tall, flips=flips, batch_size=200) for flips in (False, True))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[2], b[2]) for a, b in zip(plain, flipped, strict=True))
    coins = []
    for (_, x, _), (_, y, _) in zip(plain, flipped, strict=True):
        # Compare levels only: the offsets within levels are drawn per position and are not mirrored.
        levels, found = (((v + 1) * tall.levels / 2).floor() for v in (x, y))
        kept, turned = ((found == form).flatten(1).all(1) for form in (levels, levels.flip(-1)))
        assert (kept | turned).all() and not (kept & turned).any()
        coins.append(turned)
    n = len(torch.cat(coins))
    assert abs(torch.cat(coins).double().mean() - 0.5) < 5 * 0.5 / n**0.5
    assert len({tuple(c.tolist()) for c in coins}) == STEPS


def test_points_have_no_flips(board):
    with pytest.raises(ConfigError, match="only images can be flipped, and board has points; set flips to false"):
        walk(board, flips=True)


# Several processes


@pytest.mark.parametrize(("kind", "room"), [("board", 1), ("tall", 1), ("tall", 0)])
def test_the_parts_of_all_processes_are_the_batch_of_one(kind, room, request):
    dataset = request.getfixturevalue(kind)
    flips = dataset.is_images
    whole = walk(dataset, flips=flips, resident_mib=room)
    parts = [walk(dataset, group=Group(rank, 5), flips=flips, resident_mib=room) for rank in range(5)]
    joined = [tuple(torch.cat(pieces) for pieces in zip(*step, strict=True)) for step in zip(*parts, strict=True)]
    assert all(len(x1) == 2 for part in parts for _, x1, _ in part)
    assert same(joined, whole)


def test_a_batch_that_cannot_be_shared(board):
    with pytest.raises(ValueError, match="10 items cannot be shared evenly by 3 processes"):
        walk(board, group=Group(0, 3))


# Which samples


@pytest.mark.parametrize(("size", "batch"), [(12, 4), (10, 4), (7, 7), (5, 8), (3, 10), (1, 3)])
def test_every_epoch_has_every_sample_once(size, batch):
    sampler = BatchSampler(size, batch, seed=3)
    epochs = 6
    steps = -(-epochs * size // batch)
    batches = [sampler.indices(step) for step in range(steps)]
    assert all(b.shape == (batch,) and b.dtype == torch.int64 for b in batches)
    stream = torch.cat(batches)[: epochs * size].reshape(epochs, size)
    for epoch in stream:
        assert sorted(epoch.tolist()) == list(range(size))
    if size > 3:
        assert len({tuple(e.tolist()) for e in stream}) > 1  # another order in every epoch


def test_a_batch_is_a_function_of_seed_and_step():
    walked = BatchSampler(10, 4, seed=3)
    expected = [walked.indices(step).tolist() for step in range(20)]
    for step in (19, 0, 7, 3, 12, 2):  # in any order, with a new sampler or a used one
        assert BatchSampler(10, 4, seed=3).indices(step).tolist() == expected[step]
        assert walked.indices(step).tolist() == expected[step]
    assert [BatchSampler(10, 4, seed=4).indices(step).tolist() for step in range(20)] != expected
