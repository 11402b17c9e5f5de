"""Networks by name."""

import pytest
import torch
from small_networks import SMALL

from fmbench.networks import NETWORKS, build_network
from fmbench.networks.mlp import MLP
from fmbench.networks.unet import UNet


def test_build_network():
    assert isinstance(build_network("mlp", (2,), {"width": 4}), MLP)
    assert isinstance(build_network("unet", (1, 8, 8), SMALL), UNet)
    assert isinstance(build_network("fmbench.networks.mlp:MLP", (2,), {"width": 4}), MLP)


@pytest.mark.parametrize(
    ("kind", "shape", "parameters", "message"),
    [
        ("perceiver", (2,), {}, "mlp, unet, transformer"),
        ("mlp", (2,), {"channels": 3}, "channels"),
        ("mlp", (1, 8, 8), {}, "unet"),
        ("unet", (2,), {}, "mlp"),
    ],
)
def test_impossible_networks_are_refused(kind, shape, parameters, message):
    with pytest.raises(ValueError, match=message):
        build_network(kind, shape, parameters)


@pytest.mark.parametrize(("kind", "shape", "parameters"), [("mlp", (2,), {}), ("unet", (1, 8, 12), SMALL)])
def test_the_same_seed_builds_the_same_network(kind, shape, parameters):
    assert kind in NETWORKS
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_network(kind, shape, parameters).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
