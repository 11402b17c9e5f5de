"""Training on given pairs: pairs stay together, every epoch has each once, shares and resuming to the bit."""

from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import CPU, SETTINGS, Interrupted, fm_ot, run, weights

from fmbench.config.training_settings import TrainingSettings
from fmbench.system.distributed import ALONE, Group
from fmbench.training.batches import Batches
from fmbench.training.pairs import PairBatches

STEPS = 9


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """x1 = 3 x0 + 1, so a pair that came apart would show."""
    x0 = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    return x0, 3 * x0 + 1


def walk(pairs: tuple[Tensor, Tensor], group: Group = ALONE, seed: int = 5, **changes: Any) -> list[tuple[Tensor, ...]]:
    batches = PairBatches(*pairs, TrainingSettings(batch_size=10, iterations=STEPS), seed, CPU, group)
    return [batches(step) for step in range(STEPS)]


def test_pairs_stay_together_and_every_epoch_has_each_once(pairs):
    found = walk(pairs)
    for x0, x1, u in found:
        assert torch.equal(x1, 3 * x0 + 1) and x0.shape == (10, 2) and u.shape == (10,)
    for epoch in range(3):
        seen = torch.cat([x0 for x0, _, _ in found[3 * epoch : 3 * epoch + 3]])
        assert sorted(seen[:, 0].tolist()) == sorted(pairs[0][:, 0].tolist())


def test_batches_are_a_function_of_seed_and_iteration_and_are_shared_between_processes(pairs):
    expected = walk(pairs)
    parts = [walk(pairs, Group(rank, 5)) for rank in range(5)]
    joined = [tuple(map(torch.cat, zip(*step, strict=True))) for step in zip(*parts, strict=True)]
    assert all(torch.equal(a, b) for x, y in zip(joined, expected, strict=True) for a, b in zip(x, y, strict=True))
    other = walk(pairs, seed=6)
    assert not torch.equal(other[0][0], expected[0][0]) and not torch.equal(other[0][2], expected[0][2])
    example = PairBatches(*pairs, TrainingSettings(batch_size=10), 5, CPU, Group(1, 5)).example()
    assert [x.shape for x in example] == [x.shape for x in parts[0][0]]


def test_times_are_uniform(pairs):
    batches = PairBatches(*pairs, TrainingSettings(batch_size=5000), 5, CPU)
    u = torch.cat([batches(step)[2] for step in range(4)]).double()
    assert abs(u.mean() - 0.5) < 5 / (12 * len(u)) ** 0.5 and u.min() >= 0 and u.max() < 1


def test_a_training_on_pairs_resumes_to_the_bit_and_reads_no_data(board, pairs, tmp_path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr(Batches, "__call__", refuse)
    whole, straight = run(board, tmp_path / "a", SETTINGS, pairs=pairs)
    with pytest.raises(Interrupted):
        run(board, tmp_path / "b", SETTINGS, fm_ot(17), pairs=pairs)
    resumed, again = run(board, tmp_path / "b", SETTINGS, pairs=pairs)
    assert resumed.resumed_from == 10 and weights(again) == weights(straight) and resumed.curve == whole.curve
