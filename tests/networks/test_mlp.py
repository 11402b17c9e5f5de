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


def test_a_class_is_as_good_as_further_inputs():
    """The embedding of a class, added to the first layer, is a layer on one input a class that is 1 or 0."""
    network = MLP((2,), width=6, depth=2, condition_classes=3).double()
    t, x, labels = draw(0, 5).double(), draw(1, 5, 2).double(), torch.tensor([0, 3, 1, 1, 2])
    wide = MLP((2 + 4,), width=6, depth=2).double()
    first, *_ = (layer for layer in network.layers if isinstance(layer, nn.Linear))
    values = {n: v for n, v in network.state_dict().items() if n != "label.weight"}
    columns = torch.cat([first.weight[:, :2], network.label.weight.T, first.weight[:, 2:]], 1)
    last = {n: torch.cat([values[n], torch.zeros(4, *values[n].shape[1:])]) for n in ("layers.4.weight", "layers.4.bias")}
    wide.load_state_dict(values | {"layers.0.weight": columns} | last)
    inputs = torch.cat([x, nn.functional.one_hot(labels, 4).double()], 1)
    torch.testing.assert_close(wide(t, inputs)[:, :2], network(t, x, labels))


@pytest.mark.parametrize(("classes", "labels"), [(3, None), (3, (5, 1)), (0, (5,))])
def test_a_class_the_mlp_was_not_built_for_is_refused(classes, labels):
    network = MLP((2,), width=6, depth=2, condition_classes=classes)
    values = None if labels is None else torch.zeros(labels, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"this network takes a condition of (shape \(5,\)|none), not of "):
        network(torch.rand(5), torch.zeros(5, 2), values)


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
