"""The transformer: its parameters and operations by formula, its start, patches, positions and conditions."""

import math

import pytest
import torch
from torch import nn

from fmbench.errors import ConfigError
from fmbench.networks import build_network
from fmbench.networks.counting import count
from fmbench.networks.transformer import Block, Transformer, images, patches, sine_positions
from fmbench.stages.shared.initial_network import initial_network

SHAPE = (3, 8, 4)
SMALL = {"patch": 2, "width": 12, "depth": 3, "heads": 3}


def awake(seed: int = 0, **options) -> Transformer:
    """A small transformer without zeros among its weights."""
    torch.manual_seed(seed)
    network = Transformer(SHAPE, **(SMALL | options))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.double()


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("shape", "options", "condition"),
    [
        (SHAPE, SMALL, {}),
        ((1, 8, 8), {"patch": 4, "width": 64, "depth": 2, "heads": 4}, {"condition_classes": 10}),
        ((3, 64, 64), {"patch": 16, "width": 768, "depth": 12, "heads": 12}, {"condition_channels": 3}),
    ],
)
def test_the_number_of_parameters_and_operations(shape, options, condition):
    """A block has 18 w^2 + 15 w parameters. Of N tokens it takes 24 N w^2 + 4 N^2 w operations, and 12 w^2 for the modulation."""
    (c, height, width), p, w, depth = shape, options["patch"], options["width"], options["depth"]
    inputs, outputs = (c + condition.get("condition_channels", 0)) * p**2, c * p**2
    classes = condition.get("condition_classes")
    parameters = (inputs + 1) * w + 2 * (w**2 + w) + depth * (18 * w**2 + 15 * w) + 2 * (w**2 + w) + (w + 1) * outputs
    parameters += 0 if classes is None else (classes + 1) * w

    def example(n, shape, device):
        if classes is not None:
            return (torch.zeros(n, dtype=torch.int64, device=device),)
        return (torch.zeros(n, *shape, device=device),) if condition else ()

    cost = count(lambda: build_network("transformer", shape, options, condition), shape, example)
    assert cost.parameters == parameters
    n = height * width // p**2
    flops = 2 * n * w * (inputs + outputs) + 4 * w**2 + 4 * w**2
    assert cost.flops == flops + depth * (24 * n * w**2 + 4 * n**2 * w + 12 * w**2)


def test_dit_b_has_its_published_size():
    """DiT-B/2 has 130.5 M parameters, positions included. It predicts 8 channels from 4 and knows 1000 classes."""
    found = sum(p.numel() for p in Transformer((4, 32, 32), 2, 768, 12, 12, condition_classes=1000).parameters())
    of_variances, of_time, of_positions = 16 * 769, (256 - 768) * 768, 256 * 768
    assert found + of_variances + of_time + of_positions == pytest.approx(130.51e6, rel=1e-4)


def test_the_initial_network_outputs_zero_and_its_blocks_are_the_identity():
    network = initial_network({"kind": "transformer", **SMALL}, SHAPE, 0)
    assert isinstance(network, Transformer)
    t, x = torch.rand(5), normal(5, *SHAPE).float()
    assert network(t, x).shape == x.shape and not network(t, x).any()
    tokens, embedding = normal(5, 8, 12).float(), normal(5, 12).float()
    for block in network.blocks:
        torch.testing.assert_close(block(tokens, embedding), tokens, rtol=0, atol=0)
    assert not torch.equal(network.blocks[0].attention(tokens), torch.zeros_like(tokens))


def test_patches_are_squares_of_pixels_row_by_row():
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    found = patches(x, 2)
    assert found.shape == (2, 6, 12)
    torch.testing.assert_close(found[1, 4], x[1, :, 2:4, 2:4].flatten())  # second row, second column
    torch.testing.assert_close(images(found, 2, (3, 4, 6)), x)


def test_positions_are_distinct_and_differ_by_a_rotation():
    """A shift by a row turns each pair of sine and cosine by a fixed angle, so distances depend on differences alone."""
    found = sine_positions(5, 7, 16).double().reshape(5, 7, 16)
    torch.testing.assert_close(found[2, 3, :2], torch.tensor([math.sin(2), math.sin(2 / 10)]).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found[2, 3, 12:14], torch.tensor([math.cos(3), math.cos(3 / 10)]).double(), rtol=1e-5, atol=0)
    first, second = (found[1, 2] - found[0, 5]).norm(), (found[4, 3] - found[3, 6]).norm()
    torch.testing.assert_close(first, second, rtol=1e-5, atol=0)
    assert torch.cdist(found.flatten(0, 1), found.flatten(0, 1)).fill_diagonal_(9).min() > 0.1


def test_without_positions_a_permutation_of_the_patches_permutes_the_output():
    network = awake()
    t, x, order = torch.rand(2).double(), normal(2, *SHAPE), torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])

    def shuffled(z):
        return images(patches(z, 2)[:, order], 2, SHAPE)

    assert not torch.allclose(network(t, shuffled(x)), shuffled(network(t, x)), atol=1e-3)
    network.positions.zero_()
    torch.testing.assert_close(network(t, shuffled(x)), shuffled(network(t, x)))


def test_a_block_by_hand():
    torch.manual_seed(0)
    block, tokens, c = Block(4, 2).double(), normal(1, 3, 4), normal(1, 4, seed=2)
    mean, variance = tokens.mean(2, keepdim=True), tokens.var(2, keepdim=True, unbiased=False)
    shift, scale, gate, shift2, scale2, gate2 = block.modulation(c).reshape(6, 1, 1, 4)
    h = (tokens - mean) / (variance + 1e-6).sqrt() * (1 + scale) + shift
    q, k, v = block.qkv(h).reshape(3, 3, 2, 2).permute(1, 2, 0, 3)  # kind, head, token, channel
    mixed = (torch.softmax(q @ k.transpose(1, 2) / math.sqrt(2), 2) @ v).permute(1, 0, 2).reshape(1, 3, 4)
    tokens = tokens + gate * block.projection(mixed)
    mean, variance = tokens.mean(2, keepdim=True), tokens.var(2, keepdim=True, unbiased=False)
    h = (tokens - mean) / (variance + 1e-6).sqrt() * (1 + scale2) + shift2
    torch.testing.assert_close(block(normal(1, 3, 4), c), tokens + gate2 * block.mlp(h))


def test_every_parameter_takes_part_and_samples_do_not_see_each_other():
    network = awake(condition_classes=4)
    t, x, classes = torch.rand(3).double(), normal(3, *SHAPE), torch.tensor([4, 0, 2])
    out = network(t, x, classes)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    torch.testing.assert_close(network(t[1:2], x[1:2], classes[1:2]), out[1:2])
    assert not torch.allclose(network(t + 0.1, x, classes), out, atol=1e-3)


def test_conditions_change_the_output_and_no_initial_weight_of_the_rest():
    t, x = torch.rand(2).double(), normal(2, *SHAPE)
    told = awake(condition_classes=4)
    assert not torch.allclose(told(t, x, torch.tensor([0, 1])), told(t, x, torch.tensor([2, 1]))[:2], atol=1e-3)
    upsampled = awake(condition_channels=3)
    out = upsampled(t, x, normal(2, *SHAPE, seed=3))
    assert out.shape == x.shape and not torch.allclose(out, upsampled(t, x, normal(2, *SHAPE, seed=4)), atol=1e-3)
    settings = {"kind": "transformer", **SMALL}
    plain = initial_network(settings, SHAPE, 0).state_dict()
    torch.random.manual_seed(0)
    labelled = Transformer(SHAPE, **SMALL, condition_classes=4)
    torch.random.manual_seed(0)
    same = Transformer(SHAPE, **SMALL)
    assert set(plain) | {"label.weight"} == set(labelled.state_dict())
    assert all(torch.equal(value, labelled.state_dict()[name]) for name, value in same.state_dict().items())
    for network, condition, takes in (
        (told, None, "shape (2,), not of none"),
        (awake(), torch.tensor([0, 1]), "none, not of shape (2,)"),
        (upsampled, normal(2, 1, 8, 4), "shape (2, 3, 8, 4), not of shape (2, 1, 8, 4)"),
    ):
        with pytest.raises(ValueError, match="takes a condition of ") as error:
            network(t, x, condition)
        assert takes in str(error.value)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2,), {}, "works on images of shape"),
        ((1, 28, 20), {"patch": 8}, r"28 x 20 pixels do not divide into patches of 8; take patch 1 or 2 or 4$"),
        (SHAPE, {"width": 10, "heads": 5}, "divisible by 4 and by its heads, which 10 and 5 are not"),
        (SHAPE, {"width": 12, "heads": 5}, "which 12 and 5 are not"),
        (SHAPE, {"condition_channels": 1, "condition_classes": 2}, "not both"),
    ],
)
def test_impossible_transformers_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        Transformer(shape, **(SMALL | options))


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"takes images of shape \(3, 8, 4\), not \(3, 4, 8\)"):
        awake()(torch.rand(1), torch.zeros(1, 3, 4, 8))


def test_its_settings_name_no_key_of_another_network():
    from fmbench.config.reading import parse

    def config(**network):
        settings = {"digits": {"data": "digits", "network": {"kind": "transformer"} | network}}
        return parse({"datasets": ["digits"], "methods": ["fm_ot"], "settings": settings})

    assert config(patch=4).settings["digits"].network.model_dump() == {
        **{"kind": "transformer", "patch": 4, "width": 384, "depth": 12, "heads": 6, "max_frequency": 1000.0},
    }
    with pytest.raises(ConfigError, match=r"a network of kind transformer takes kind, patch, .*, but not channels"):
        config(channels=64)
