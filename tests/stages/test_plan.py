"""``fmbench plan``: parameters and operations of trainings, what it refuses, and what it leaves out."""

import json

import pytest
import torch
from plans import ROOT, plan_of, plan_of_preset, points_config
from torch import nn
from user_code import command

from fmbench.config.reading import parse
from fmbench.errors import ConfigError
from fmbench.stages.plan.estimate import run
from fmbench.stages.plan.text import text

TABLE3 = {"cifar10": 153.09, "imagenet32": 209.98}
"""Millions of parameters of the ADM network with the paper's settings, by an independent count."""


def test_an_mlp_by_hand():
    found = plan_of(points_config())
    (training,) = found["trainings"]
    assert found["parameters"] == 3 * 10 + 10 + 10 * 2 + 2
    assert found["forward_gflop"] == pytest.approx(2 * (3 * 10 + 10 * 2) / 1e9)
    assert found["models"] == 3 and training["samples_seen"] == training["iterations"] * training["batch_size"]
    assert found["train_pflop"] == pytest.approx(3 * found["train_gflop"] * training["samples_seen"] / 1e6)
    # Kept for the backward pass: the input with its time (3) and the hidden layer before and after its SiLU (10 + 10).
    assert training["activation_mib"] * 2**20 == pytest.approx(4 * (3 + 10 + 10))
    # Weights, gradients, two moments and the average; the training split is held, too.
    assert training["state_gib"] * 2**30 == pytest.approx(4 * 5 * found["parameters"] + 4 * 2 * 200_000)
    (more,) = plan_of(points_config(training={"more_ema_decays": [0.5, 0.9]}))["trainings"]
    assert (more["state_gib"] - training["state_gib"]) * 2**30 == pytest.approx(4 * 2 * found["parameters"])


@pytest.mark.parametrize("preset", sorted(TABLE3))
def test_the_papers_networks_have_their_published_size(preset):
    assert plan_of_preset(preset)["parameters"] / 1e6 == pytest.approx(TABLE3[preset], abs=0.01)


def test_methods_with_equal_training_settings_are_planned_together():
    """In either order: the peak is that of the larger training, and the hours are those of both."""
    big = {"name": "big", "use": "fm_ot", "training": {"batch_size": 8192, "iterations": 9000, "precision": "bf16"}}
    one, other = plan_of(points_config(["ddpm", big])), plan_of(points_config([big, "ddpm"]))
    assert [t["methods"] for t in one["trainings"]] == [["ddpm"], ["big"]]
    assert [t["methods"] for t in other["trainings"]] == [["big"], ["ddpm"]]
    assert one["trainings"] == other["trainings"][::-1]
    assert one["batch_gib"] == other["batch_gib"] == one["trainings"][1]["batch_gib"]
    assert one["gpu_hours"] == other["gpu_hours"] and one["models"] == 6
    alike = {"name": "alike", "use": "fm_ot"}
    (both,) = plan_of(points_config(["ddpm", alike]))["trainings"]
    assert both["methods"] == ["ddpm", "alike"] and both["models"] == 6


def test_oracles_cost_no_training():
    assert plan_of(points_config(["fm_ot", "oracle_vp"]))["models"] == 3
    with pytest.raises(ConfigError, match="trains nothing"):
        plan_of(points_config(["oracle_vp"]))


class ReadsNumbers(nn.Module):
    """A network that reads a number from a tensor, and names a device for a new one."""

    def __init__(self, shape):
        super().__init__()
        self.map = nn.Linear(2, 2)

    def forward(self, t, x):
        if float(x.abs().max()) > 1e6:
            raise ValueError("far away")
        return self.map(x) + torch.arange(2, device="cpu")


def test_a_network_that_reads_numbers_is_counted_on_the_cpu():
    found = plan_of(points_config(network={"kind": f"{__name__}:ReadsNumbers"}))
    assert found["parameters"] == 6 and found["forward_gflop"] == pytest.approx(2 * 4 / 1e9)


class WrongInput(nn.Module):
    """A network for samples of three numbers."""

    def __init__(self, shape):
        super().__init__()
        self.map = nn.Linear(3, 2)

    def forward(self, t, x):
        return self.map(x)


def test_a_network_that_cannot_be_run_is_an_error():
    with pytest.raises(ConfigError, match=r"the network of board cannot be run on a sample of shape \(2,\)"):
        plan_of(points_config(network={"kind": f"{__name__}:WrongInput"}))


def test_an_unknown_gpu_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="unknown GPU abacus; known: h100"):
        run(points_config(), ["abacus"], tmp_path, 0, 1)


def test_a_data_set_of_unknown_shape_does_not_stop_the_others(tmp_path):
    values = points_config().model_dump(exclude={"methods"}) | {"methods": ["fm_ot"], "datasets": ["mine", "board"]}
    values["settings"]["mine"] = values["settings"]["board"] | {"data": {"source": "array", "parameters": {"path": "x.npy"}}}
    found = run(parse(values), ["h100"], tmp_path, 0, 1)
    assert [p["dataset"] for p in found["datasets"]] == ["board"] and found["unknown"] == ["mine"]
    assert "mine: the shape" in text(found)


def test_the_command_prints_and_writes_the_same(tmp_path):
    threads = torch.get_num_threads()
    out = tmp_path / "plan.json"
    said = command("plan", "--configfile", ROOT / "config.yaml", "--probe", "0", "--out", out)
    torch.set_num_threads(threads)
    written = json.loads(out.read_text())
    assert said.code == 0 and [p["dataset"] for p in written["datasets"]] == ["checkerboard", "digits"]
    assert f"{written['datasets'][1]['parameters']:,} parameters" in said.out
