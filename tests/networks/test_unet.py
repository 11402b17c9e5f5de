"""The U-Net: shapes, parameters, conditions."""

import csv
from pathlib import Path

import pytest
import torch
from small_networks import SMALL, count, draw, shaken
from torch import nn

from fmbench import report
from fmbench.networks.unet import UNet


@pytest.mark.parametrize("resample_blocks", [True, False])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 12), (2, 12, 4)])
def test_unet_starts_at_zero_and_keeps_the_shape(shape, resample_blocks):
    network = UNet(shape, **SMALL, resample_blocks=resample_blocks)
    t, x = torch.rand(2), draw(0, 2, *shape)
    out = network(t, x)
    assert out.shape == x.shape
    assert (out == 0).all()
    assert shaken(network)(t, x).std() > 0.01


def test_unet_depends_on_its_time_and_not_on_its_batch():
    network = shaken(UNet((1, 8, 12), **SMALL)).double()
    x, t = draw(0, 3, 1, 8, 12).double(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    out = network(t, x)
    for i in range(3):
        torch.testing.assert_close(network(t[i : i + 1], x[i : i + 1])[0], out[i])
    same = network(t, x[:1].expand(3, 1, 8, 12))
    assert (same[0] - same[1]).abs().max() > 1e-3
    assert (same[1] - same[2]).abs().max() > 1e-3


@pytest.mark.parametrize("resample_blocks", [True, False])
def test_unet_treats_height_and_width_alike(resample_blocks):
    """Transposed images through transposed kernels: a mix-up of H and W shows on images that are not square."""
    settings = SMALL | {"attention_resolutions": (), "resample_blocks": resample_blocks}
    network = shaken(UNet((2, 8, 12), **settings)).double()
    transposed = UNet((2, 12, 8), **settings).double().eval()
    transposed.load_state_dict({k: v.mT if v.ndim == 4 else v for k, v in network.state_dict().items()})
    t, x = torch.tensor([0.3], dtype=torch.float64), draw(0, 1, 2, 8, 12).double()
    torch.testing.assert_close(transposed(t, x.mT), network(t, x).mT)


@pytest.mark.parametrize("resample_blocks", [True, False])
def test_every_parameter_of_the_unet_takes_part(resample_blocks):
    network = shaken(UNet((1, 8, 12), **SMALL, resample_blocks=resample_blocks))
    (network(torch.rand(2), draw(0, 2, 1, 8, 12)) * draw(1, 2, 1, 8, 12)).sum().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


def test_unet_parameter_counts():
    """Weights are stored by count and shape: a change here makes every stored model unreadable."""

    def size(**changes) -> int:
        with torch.device("meta"):
            return count(UNet((3, 32, 32), **changes))

    assert count(UNet((1, 8, 12), **SMALL)) == small_by_hand()
    # The paper's CIFAR-10 network, Table 3: 256 channels, depth 2, multiples 1, 2, 2, 2, attention at 16.
    assert size(channels=256, channels_multiple=(1, 2, 2, 2), depth=2, attention_resolutions=(16,)) == 171_268_099
    assert size() == 42_855_427


TABLE3 = {row["setting"]: row for row in csv.DictReader((Path(report.__file__).parent / "paper/table3.csv").open())}


@pytest.mark.parametrize(
    ("name", "size", "millions", "with_blocks"),
    [
        ("cifar10", 32, 153.09, 171.27),
        ("imagenet32", 32, 209.98, 228.15),
        ("imagenet64", 64, 276.42, 295.13),
        ("imagenet128", 128, 507.32, 542.80),
    ],
)
def test_parameters_of_the_papers_networks(name, size, millions, with_blocks):
    """Table 3 against a count of the ADM network, block by block, by its description."""
    channels, depth, head = (int(TABLE3[k][name]) for k in ("channels", "depth", "heads_channels"))
    multiples, resolutions = ([int(v) for v in TABLE3[k][name].split(",")] for k in ("channels_multiple", "attention_resolution"))
    for blocks, expected in ((False, millions), (True, with_blocks)):
        with torch.device("meta"):
            network = UNet((3, size, size), channels, multiples, depth, resolutions, head, resample_blocks=blocks)
        assert count(network) == adm_count(size, channels, multiples, depth, resolutions, blocks)
        assert round(count(network) / 1e6, 2) == expected


def adm_count(size: int, base: int, multiples: list[int], depth: int, attention_resolutions: list[int], updown: bool) -> int:
    """Parameters of an ADM U-Net of three colours, by sums over levels."""
    widths, embedding, last = [base * m for m in multiples], 4 * base, len(multiples) - 1
    heights = [size // 2**i for i in range(len(widths))]

    def conv(i: int, o: int, k: int) -> int:
        return o * (i * k * k + 1)

    def block(i: int, o: int) -> int:
        norms, modulation = 2 * i + 2 * o, 2 * o * (embedding + 1)
        return norms + conv(i, o, 3) + modulation + conv(o, o, 3) + (conv(i, o, 1) if i != o else 0)

    def attention(c: int) -> int:
        return 2 * c + conv(c, 3 * c, 1) + conv(c, c, 1)

    def resampling(c: int) -> int:
        return block(c, c) if updown else conv(c, c, 3)

    total = embedding * (base + 1) + embedding * (embedding + 1)  # the time's MLP
    total += conv(3, base, 3) + 2 * base * multiples[0] + conv(widths[0], 3, 3)  # first convolution, last norm and convolution
    for i, c in enumerate(widths):
        above = widths[i - 1] if i else base
        below = widths[min(i + 1, last)]
        total += block(above, c) + (depth - 1) * block(c, c)  # down
        # Up: the first block takes what comes from below, the last one the skip that this level began with.
        total += block(below + c, c) + (depth - 1) * block(2 * c, c) + block(c + above, c)
        total += (2 * depth + 1) * attention(c) * (heights[i] in attention_resolutions)
        total += (resampling(c) + resampling(below)) * (i < last)
    return total + 2 * block(widths[-1], widths[-1]) + attention(widths[-1])


def test_a_network_with_a_condition_is_the_same_behind_its_first_layer():
    plain = UNet((3, 8, 12), **SMALL)
    network = shaken(UNet((3, 8, 12), **SMALL, condition_channels=2)).double()
    assert [n for n, _ in network.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert count(network) - count(plain) == 2 * 9 * 16
    x, t, condition = draw(0, 4, 3, 8, 12).double(), torch.rand(4).double(), draw(1, 4, 2, 8, 12)
    out = network(t, x, condition)
    assert out.shape == x.shape
    # By hand: the unconditional network on a head that adds the condition's part.
    with torch.no_grad():
        rest = shaken(UNet((3, 8, 12), **SMALL)).double()
        rest.load_state_dict(network.state_dict() | {"head.weight": network.head.weight[:, :3]})
        part = nn.functional.conv2d(condition.double(), network.head.weight[:, 3:], padding=1)
    rest.head.register_forward_hook(lambda module, inputs, output: output + part)
    torch.testing.assert_close(rest(t, x), out)
    other = network(t, x, condition.roll(1, 0))
    assert (other - out).abs().amax((1, 2, 3)).min() > 1e-3  # and no sample depends on another's condition


def test_a_class_is_an_embedding_beside_that_of_the_time():
    plain = UNet((3, 8, 12), **SMALL)
    network = shaken(UNet((3, 8, 12), **SMALL, condition_classes=4)).double()
    assert [n for n, _ in network.named_parameters()] == [*(n for n, _ in plain.named_parameters()), "label.weight"]
    assert network.label.weight.shape == (5, 64)  # one more: the label is not told
    x, t, labels = draw(0, 4, 3, 8, 12).double(), torch.rand(4).double(), torch.tensor([4, 0, 2, 2])
    out = network(t, x, labels)
    # By hand: the embedding of the class is added before the last SiLU of the time's.
    rest = shaken(UNet((3, 8, 12), **SMALL)).double()
    rest.load_state_dict({n: v for n, v in network.state_dict().items() if n != "label.weight"})
    rest.time[-2].register_forward_hook(lambda module, inputs, output: output + network.label.weight[labels])
    torch.testing.assert_close(rest(t, x), out)
    other = network(t, x, labels.roll(1, 0))
    assert (other - out).abs().amax((1, 2, 3))[:3].min() > 1e-3 and torch.equal(other[3], out[3])


def test_a_class_changes_no_initial_weight_of_the_rest():
    def made(**condition: int) -> dict:
        torch.manual_seed(5)
        return UNet((1, 8, 8), **SMALL, **condition).state_dict()

    plain, labelled = made(), made(condition_classes=3)
    assert all(torch.equal(labelled[name], value) for name, value in plain.items())


@pytest.mark.parametrize(
    ("built", "condition", "takes"),
    [
        ({"condition_channels": 2}, None, r"shape \(2, 2, 8, 8\), not of none"),
        ({"condition_channels": 2}, (2, 3, 8, 8), r"shape \(2, 2, 8, 8\), not of shape \(2, 3, 8, 8\)"),
        ({"condition_channels": 2}, (2, 2, 4, 4), r"shape \(2, 2, 8, 8\), not of shape"),
        ({}, (2, 1, 8, 8), r"none, not of shape \(2, 1, 8, 8\)"),
        ({"condition_classes": 3}, None, r"shape \(2,\), not of none"),
        ({"condition_classes": 3}, (2, 1), r"shape \(2,\), not of shape \(2, 1\)"),
        ({}, (2,), "none, not of shape"),
    ],
)
def test_a_condition_the_network_was_not_built_for_is_refused(built, condition, takes):
    network = UNet((1, 8, 8), **SMALL, **built)
    values = None if condition is None else torch.zeros(condition, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"takes a condition of {takes}"):
        network(torch.rand(2), torch.zeros(2, 1, 8, 8), values)


def small_by_hand() -> int:
    """SMALL on (1, 8, 12): levels of 16 and 32 channels, attention on the lower one, blocks for resampling."""
    embedding = 64

    def conv(i, o, k=3):
        return i * o * k * k + o

    def block(i, o):
        modulation = embedding * 2 * o + 2 * o
        return 2 * i + conv(i, o) + modulation + 2 * o + conv(o, o) + (conv(i, o, 1) if i != o else 0)

    def attention(c):
        return 2 * c + conv(c, 3 * c, 1) + conv(c, c, 1)

    time = 16 * embedding + embedding + embedding * embedding + embedding
    down = conv(1, 16) + block(16, 16) + block(16, 16) + block(16, 32) + attention(32)
    middle = block(32, 32) + attention(32) + block(32, 32)
    # The skips, last first: 32 of the block below, 16 of the downsampling, then 16 of the block and 16 of the head.
    low = block(32 + 32, 32) + attention(32) + block(32 + 16, 32) + attention(32) + block(32, 32)
    high = block(32 + 16, 16) + block(16 + 16, 16)
    tail = 2 * 16 + conv(16, 1)
    return time + down + middle + low + high + tail


@pytest.mark.parametrize(
    ("shape", "parameters", "message"),
    [
        ((2,), {}, "mlp"),
        ((3, 12, 8), {"channels_multiple": (1, 2, 2, 2)}, "divisible by 8, not 12 x 8"),
        ((3, 8, 12), {"channels_multiple": (1, 2, 2, 2)}, "divisible by 8, not 8 x 12"),
        ((1, 28, 28), {"channels_multiple": (1, 2, 2, 2)}, "not 28 x 28"),
        ((3, 8, 8), {"condition_channels": -1}, "condition_channels"),
        ((3, 8, 8), {"condition_channels": 3, "condition_classes": 2}, "an image or a class as its condition, not both"),
        ((3, 8, 8), {"channels": 15, "channels_multiple": (1, 2)}, "even"),
        ((3, 8, 8), {"channels": 10, "head_channels": 4, "channels_multiple": (1, 3)}, "heads of 4"),
    ],
)
def test_impossible_unets_are_refused(shape, parameters, message):
    with pytest.raises(ValueError, match=message):
        UNet(shape, **parameters)


def test_dropout_acts_in_training_only():
    network = shaken(UNet((1, 8, 8), **SMALL, dropout=0.5))
    t, x = torch.rand(1), draw(0, 1, 1, 8, 8)
    assert torch.equal(network(t, x), network(t, x))
    network.train()
    assert not torch.equal(network(t, x), network(t, x))
