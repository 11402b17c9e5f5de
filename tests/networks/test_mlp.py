"""The MLP."""

import pytest
import torch
from small_networks import count, draw
from torch import nn

from fmbench.networks.mlp import MLP


@pytest.mark.parametrize(("time_embedding", "times"), [("raw", 1), ("sinusoidal", 12)])
def test_mlp_parameter_count(time_embedding, times):
    network = MLP((3,), width=20, depth=4, time_embedding=time_embedding, time_dimension=12)
    assert count(network) == (3 + times + 1) * 20 + 3 * (20 + 1) * 20 + (20 + 1) * 3


def test_the_papers_mlp_is_five_layers_of_512():
    layers = [layer for layer in MLP((2,)).layers if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [512] * 5 + [2]


@pytest.mark.parametrize("time_embedding", ["raw", "sinusoidal"])
def test_mlp_by_hand(time_embedding):
    network = MLP((2,), width=6, depth=2, time_embedding=time_embedding, time_dimension=4, max_frequency=7.0).double()
    t, x = draw(0, 5).double(), draw(1, 5, 2).double()
    time = t[:, None]
    if time_embedding == "sinusoidal":
        assert network.embedding.frequencies[0] == 7
        angles = time * network.embedding.frequencies
        time = torch.cat([angles.cos(), angles.sin()], 1)
    h = torch.cat([x, time], 1)
    linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    for i, layer in enumerate(linear):
        h = h @ layer.weight.T + layer.bias
        h = h if i == 2 else h / (1 + torch.exp(-h))
    torch.testing.assert_close(network(t, x), h)


@pytest.mark.parametrize(
    ("shape", "parameters", "message"),
    [
        ((3, 8, 8), {}, "unet"),
        ((2,), {"width": 0}, "at least 1"),
        ((2,), {"depth": 0}, "at least 1"),
        ((2,), {"time_embedding": "fourier"}, "fourier"),
    ],
)
def test_impossible_mlps_are_refused(shape, parameters, message):
    with pytest.raises(ValueError, match=message):
        MLP(shape, **parameters)
