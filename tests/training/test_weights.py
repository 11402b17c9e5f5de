"""Weights: the initial ones, which are the same for every method, and those in the files of a model."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from trainings import CPU, network, run, weights

from fmbench.config.hashing import settings_hash
from fmbench.config.methods import METHODS
from fmbench.errors import CheckpointError
from fmbench.networks.mlp import MLP
from fmbench.stages.shared.initial_network import new_network
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.model_files import FinishedModel, write_model
from fmbench.stages.shared.models import load_model, load_snapshots
from fmbench.store.weights import load_weights, save_weights
from fmbench.system.progress import Console
from fmbench.training.snapshots import Snapshots


def test_weights_survive_the_file_and_know_their_network(board, tmp_path):
    net, other = network(board), MLP(board.shape, width=16, depth=2)
    save_weights(tmp_path / "w.safetensors", net, {"step": 1})
    load_weights(tmp_path / "w.safetensors", other)
    assert weights(net) == weights(other)
    with pytest.raises(CheckpointError, match="do not fit the network described beside them"):
        load_weights(tmp_path / "w.safetensors", MLP(board.shape, width=17, depth=2))


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, t, x):
        return self.second(self.first(torch.cat([x, t[:, None]], 1)))[:, :2]


def test_tied_weights_are_trained_and_kept(board, tmp_path):
    outcome, net = run(board, tmp_path, net=Tied())
    (_, kept), *_ = Snapshots(tmp_path, "key").load(outcome.snapshots[-1:])
    assert torch.equal(kept["first.weight"], kept["second.weight"]) and torch.equal(kept["first.weight"], net.first.weight)
    save_weights(tmp_path / "w.safetensors", net, {})
    other = Tied()
    load_weights(tmp_path / "w.safetensors", other)
    assert weights(other) == weights(net) and other.first.weight is other.second.weight


def test_missing_or_truncated_weights(board, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(CheckpointError, match=r"w\.safetensors are missing; rerun the training"):
        load_weights(path, network(board))
    save_weights(path, network(board), {})
    good = path.read_bytes()
    for kept in (0, 4, 100, -1):
        path.write_bytes(good[:kept])
        with pytest.raises(
            CheckpointError, match=r"the weights .*w\.safetensors cannot be used: .*checksum.*; delete it and run snakemake again"
        ):
            load_weights(path, network(board))


def test_a_model_and_its_snapshots_are_evaluated_without_dropout(tall, tmp_path):
    unet = {"kind": "unet", "channels": 8, "channels_multiple": [1, 2], "depth": 1, "head_channels": 8, "dropout": 0.5}
    spec = {"network": unet, "seed": 3, "dataset": "tall", "data": settings_hash(tall.manifest["spec"])}
    spec["method"] = dataclasses.asdict(METHODS["fm_ot"])
    net = new_network(spec, tall)
    with torch.no_grad():  # otherwise the later layers would return 0
        for p in net.parameters():
            p.add_(0.1)
    job = Job(spec, Console("train", "none"), CPU, "code")
    write_model(job, tall, tmp_path, FinishedModel(net, step=30, snapshots=[(15, net.state_dict())]))
    t, x = torch.rand(2), torch.rand(2, *tall.shape)
    snapshots = [model for _, model in load_snapshots(tmp_path, tall, CPU)]
    for model in (load_model(tmp_path, tall, CPU), *snapshots):
        assert torch.equal(model.velocity(t, x), model.velocity(t, x))
    assert len(snapshots) == 1 and not torch.equal(net.train()(t, x), net(t, x))


@pytest.mark.parametrize("kind", ["board", "tall"])
def test_the_initial_network_is_a_function_of_the_seed_alone(kind, request):
    dataset = request.getfixturevalue(kind)
    settings: dict[str, Any] = {"kind": "mlp", "width": 8, "depth": 2}
    if dataset.is_images:
        settings = {"kind": "unet", "channels": 8, "channels_multiple": [1, 2], "depth": 1, "head_channels": 8}
    # A network that learns jumps has a layer more.
    methods = [method for method in METHODS.values() if method.jumps is None]
    specs = [{"network": settings, "seed": 3, "method": dataclasses.asdict(method)} for method in methods]
    nets = []
    for spec in specs:
        torch.rand(7)  # numbers drawn before must not matter
        nets.append(weights(new_network(spec, dataset)))
    assert len(set(nets)) == 1
    assert weights(new_network(specs[0] | {"seed": 4}, dataset)) != nets[0]


def test_making_a_network_does_not_change_the_global_generator(board):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    new_network({"network": {"kind": "mlp", "width": 8, "depth": 2}, "seed": 3, "method": {}}, board)
    assert torch.equal(torch.get_rng_state(), before)
