"""Batches and trainings with a coupling: the same pairs wherever the data are, for any number of processes, and after a kill."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from trainings import CPU, SETTINGS, Interrupted, Spoiled, network, run, weights
from user_code import tall_images

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet, read
from fmbench.data.writer import write
from fmbench.flow.couplings import INDEPENDENT, Coupling, MinibatchOT, Sinkhorn, squared_distances
from fmbench.flow.objectives import build
from fmbench.flow.starts import NOISE
from fmbench.system.distributed import ALONE, Group
from fmbench.training.batches import Batches, Resident, Streamed

STEPS = 12
BOTH = pytest.mark.parametrize("coupling", [MinibatchOT(), Sinkhorn(0.02)], ids=lambda c: type(c).__name__)


def batches(dataset: DataSet, coupling: Coupling, group: Group = ALONE, **changes: Any) -> Batches:
    settings = TrainingSettings(**{"batch_size": 10, "iterations": STEPS} | changes)
    return Batches(dataset, settings, 5, CPU, group, NOISE, coupling)


def walk(dataset: DataSet, coupling: Coupling, group: Group = ALONE, first: int = 0, **changes: Any) -> list[tuple[Tensor, ...]]:
    made = batches(dataset, coupling, group, **changes)
    try:
        return [made(step) for step in range(first, STEPS)]
    finally:
        made.close()


def same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def labelled(folder: Path) -> DataSet:
    write(tall_images(train=24, test=6), folder, {"dataset": "tall", "condition": "label"})
    return read(folder)


@pytest.mark.parametrize("kind", ["board", "tall"])
def test_only_the_noise_of_a_batch_changes_and_it_pairs_at_least_cost(kind, request):
    dataset = request.getfixturevalue(kind)
    for (z, *rest), (x0, *coupled) in zip(walk(dataset, INDEPENDENT), walk(dataset, MinibatchOT()), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(rest, coupled, strict=True))
        expected = linear_sum_assignment(squared_distances(rest[0], z).numpy())[1]
        assert torch.equal(x0, z[expected])


@BOTH
@pytest.mark.parametrize(("kind", "flips"), [("board", False), ("tall", True)])
def test_streaming_resuming_and_shares_give_the_same_pairs_to_the_bit(kind, flips, coupling, request):
    dataset = request.getfixturevalue(kind)
    made = [batches(dataset, coupling, flips=flips, resident_mib=room) for room in (1, 0)]
    assert [type(of.source) for of in made] == [Resident, Streamed]
    expected = walk(dataset, coupling, flips=flips)
    assert same(walk(dataset, coupling, flips=flips, resident_mib=0), expected)
    assert same(walk(dataset, coupling, first=7, flips=flips), expected[7:])
    assert same(walk(dataset, coupling, first=7, flips=flips, resident_mib=0), expected[7:])
    for size in (2, 5):
        parts = [walk(dataset, coupling, Group(rank, size), flips=flips) for rank in range(size)]
        assert all(len(x1) == 10 // size for part in parts for _, x1, _ in part)
        assert same([tuple(map(torch.cat, zip(*step, strict=True))) for step in zip(*parts, strict=True)], expected)


def test_draws_of_a_plan_are_others_in_every_iteration_and_seed(board):
    settings = TrainingSettings(batch_size=10, iterations=STEPS)
    chosen = []
    for seed in (5, 6):
        made = Batches(board, settings, seed, CPU, ALONE, NOISE, Sinkhorn(1e3))  # nearly uniform draws
        plain = Batches(board, settings, seed, CPU)
        for step in range(STEPS):
            x0, z = made(step)[0], plain(step)[0]
            chosen.append(tuple((x0[:, None] == z).all(2).int().argmax(1).tolist()))
        made.close()
    assert len(set(chosen)) == 2 * STEPS and sum(len(set(rows)) < 10 for rows in chosen) > STEPS


@BOTH
def test_noise_stays_within_its_class_also_where_labels_are_left_out(coupling, tmp_path):
    dataset = labelled(tmp_path)
    told = walk(dataset, coupling, batch_size=24)
    dropped = walk(dataset, coupling, batch_size=24, label_dropout=0.5)
    moved = 0
    for (z, *_), (x0, *rest, labels), (y0, *others, seen) in zip(
        walk(dataset, INDEPENDENT, batch_size=24), told, dropped, strict=True
    ):
        assert torch.equal(x0, y0) and all(torch.equal(a, b) for a, b in zip(rest, others, strict=True))
        assert (seen == 2).any() and (seen != 2).any()
        came_from = (x0.flatten(1)[:, None] == z.flatten(1)).all(2).int().argmax(1)
        assert torch.equal(labels[came_from], labels)
        moved += int((came_from != torch.arange(24)).sum())
    assert moved > 100


def test_a_low_resolution_image_has_no_partner_to_exchange_noise_with(tmp_path):
    low = {"low_resolution": {"factor": 2, "filter": "bicubic"}}
    write(tall_images(train=24, test=6), tmp_path, {"dataset": "tall", "condition": low})
    made = batches(read(tmp_path), MinibatchOT())
    with pytest.raises(ValueError, match="exchanges noise between samples with the same condition"):
        made(0)
    made.close()


def test_the_threads_end(tall):
    made = batches(tall, MinibatchOT(), resident_mib=0, iterations=1000)
    made(0)
    assert sum(t.name == "fmbench-batches" for t in threading.enumerate()) == 2
    made.close()
    assert not any(t.name == "fmbench-batches" for t in threading.enumerate())


def test_batches_are_asked_for_in_order(board):
    made = batches(board, MinibatchOT())
    made(3)
    with pytest.raises(ValueError, match="iteration 4 is next, not 9"):
        made(9)
    made.close()


@BOTH
@pytest.mark.parametrize("kind", ["board", "tall"])
def test_a_coupled_training_resumes_to_the_bit(kind, coupling, request, tmp_path):
    dataset = request.getfixturevalue(kind)
    settings = SETTINGS.model_copy(update={"flips": dataset.is_images})
    objective = build(METHODS["fm_ot"])
    whole, straight = run(dataset, tmp_path / "a", settings, objective, coupling=coupling)
    with pytest.raises(Interrupted):
        run(dataset, tmp_path / "b", settings, Spoiled(objective, at=17), coupling=coupling)
    resumed, again = run(dataset, tmp_path / "b", settings, objective, network(dataset), coupling=coupling)
    assert resumed.resumed_from == 10 and weights(again) == weights(straight) and resumed.curve == whole.curve
    _, independent = run(dataset, tmp_path / "c", settings, objective)
    assert weights(independent) != weights(straight)
