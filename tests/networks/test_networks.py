import csv
import io
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from fmbench import report
from fmbench.networks import NETWORKS, attention, build_network, layers, norms
from fmbench.networks.attention import AttentionBlock
from fmbench.networks.blocks import Resample, ResidualBlock
from fmbench.networks.ema import EMA
from fmbench.networks.embedding import SinusoidalEmbedding
from fmbench.networks.layers import Concatenation, repeated
from fmbench.networks.mlp import MLP
from fmbench.networks.norms import group_norm
from fmbench.networks.unet import UNet, label_planes

SMALL = {"channels": 16, "channels_multiple": (1, 2), "depth": 1, "attention_resolutions": (4,), "head_channels": 8}


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter away from its start, so that the zero-initialised layers pass something on."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return network.eval()


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# Embedding.


@pytest.mark.parametrize(("dimension", "top"), [(2, 5.0), (8, 60.0), (128, 1000.0)])
def test_embedding_frequencies(dimension, top):
    embedding = SinusoidalEmbedding(dimension, top)
    half = dimension // 2
    t = torch.tensor([0.0, 0.3, 1.0])
    out = embedding(t)
    assert out.shape == (3, dimension)
    torch.testing.assert_close(out[0], torch.cat([torch.ones(half), torch.zeros(half)]))
    for k in range(half):
        frequency = top * 10_000 ** (-k / half)
        assert float(embedding.frequencies[k]) == pytest.approx(frequency, rel=1e-6)
        for row, time in enumerate([0.0, 0.3, 1.0]):
            # A float32 angle of 1000 radians is good to 6e-5.
            assert float(out[row, k]) == pytest.approx(math.cos(time * frequency), abs=2e-4)
            assert float(out[row, half + k]) == pytest.approx(math.sin(time * frequency), abs=2e-4)


def test_embedding_of_1000_t_is_adms():
    """ADM embeds integer steps of 0 to 1000 with frequencies exp(-log(10000) k / half)."""
    steps = torch.tensor([0.0, 1.0, 250.0, 999.0])
    angles = steps[:, None] * torch.exp(-math.log(10_000) * torch.arange(16) / 16)
    expected = torch.cat([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(SinusoidalEmbedding(32, 1000.0)(steps / 1000), expected, rtol=0, atol=2e-4)


def test_frequencies_are_no_weights():
    assert not SinusoidalEmbedding(8, 60.0).state_dict()


@pytest.mark.parametrize(("dimension", "top"), [(3, 1.0), (0, 1.0), (1, 1.0), (4, 0.0), (4, -1.0)])
def test_impossible_embeddings_are_refused(dimension, top):
    with pytest.raises(ValueError, match=f"not {dimension if top == 1 else top}"):
        SinusoidalEmbedding(dimension, top)


# MLP.


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


# U-Net.


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


# Conditions.


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
    assert (other - out).abs().amax((1, 2, 3)).min() > 1e-3  # and no sample sees another's


def test_label_planes():
    planes = label_planes(torch.tensor([2, 0]), 3, 2, 4)
    assert planes.shape == (2, 3, 2, 4) and planes.dtype == torch.float32
    assert planes.sum(1).eq(1).all() and planes[0, 2].eq(1).all() and planes[1, 0].eq(1).all()
    network = shaken(UNet((1, 8, 12), **SMALL, condition_channels=3))
    out = network(torch.rand(1).expand(3), draw(0, 1, 1, 8, 12).expand(3, -1, -1, -1), label_planes(torch.arange(3), 3, 8, 12))
    assert (out[0] - out[1]).abs().max() > 1e-3 and (out[1] - out[2]).abs().max() > 1e-3


@pytest.mark.parametrize(("channels", "condition"), [(2, None), (2, (2, 3, 8, 8)), (2, (2, 2, 4, 4)), (0, (2, 1, 8, 8))])
def test_a_condition_the_network_was_not_built_for_is_refused(channels, condition):
    network = UNet((1, 8, 8), **SMALL, condition_channels=channels)
    values = None if condition is None else torch.zeros(condition)
    with pytest.raises(ValueError, match=rf"takes a condition of \(2, {channels}, 8, 8\), not (none|one of)"):
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


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 1), (4, 1), (8, 2), (96, 24), (128, 32), (160, 32)])
def test_group_norm_groups(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize(
    ("shape", "parameters", "message"),
    [
        ((2,), {}, "mlp"),
        ((3, 12, 8), {"channels_multiple": (1, 2, 2, 2)}, "divisible by 8, not 12 x 8"),
        ((3, 8, 12), {"channels_multiple": (1, 2, 2, 2)}, "divisible by 8, not 8 x 12"),
        ((1, 28, 28), {"channels_multiple": (1, 2, 2, 2)}, "not 28 x 28"),
        ((3, 8, 8), {"condition_channels": -1}, "condition_channels"),
        ((3, 8, 8), {"channels": 15, "channels_multiple": (1, 2)}, "even"),
        ((3, 8, 8), {"channels": 10, "head_channels": 4, "channels_multiple": (1, 3)}, "heads of 4"),
    ],
)
def test_impossible_unets_are_refused(shape, parameters, message):
    with pytest.raises(ValueError, match=message):
        UNet(shape, **parameters)


def test_attention_is_the_softmax_over_pixels():
    block = shaken(AttentionBlock(16, 8)).double()
    x = draw(0, 2, 16, 3, 5).double()
    assert block.heads == 2
    q, k, v = block.qkv(block.norm(x)).flatten(2).split(16, 1)
    heads = []
    for h in range(2):
        rows = slice(8 * h, 8 * h + 8)
        scores = torch.einsum("bcp,bcq->bpq", q[:, rows], k[:, rows]) / math.sqrt(8)
        heads.append(torch.einsum("bpq,bcq->bcp", scores.softmax(-1), v[:, rows]))
    expected = x + block.out(torch.cat(heads, 1).reshape(x.shape))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("resample", [None, "down", "up"])
def test_residual_block_by_hand(resample):
    block = shaken(ResidualBlock(8, 16, 12, dropout=0.5, resample=resample)).double().train()
    x, embedding = draw(0, 2, 8, 4, 6).double(), draw(1, 2, 12).double()

    def resized(z):
        if resample == "down":
            return z.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
        return z.repeat_interleave(2, 2).repeat_interleave(2, 3) if resample == "up" else z

    def silu(z):
        return z / (1 + torch.exp(-z))

    scale, shift = block.modulation(embedding)[:, :, None, None].split(16, 1)
    h = block.conv_in(resized(silu(block.norm_in(x))))
    torch.manual_seed(2)
    h = block.conv_out(nn.functional.dropout(silu(block.norm_out(h) * (1 + scale) + shift), 0.5))
    torch.manual_seed(2)
    torch.testing.assert_close(block(x, embedding), block.skip(resized(x)) + h)


def test_every_branch_starts_at_zero():
    x, embedding = draw(0, 2, 16, 4, 6), draw(1, 2, 12)
    assert torch.equal(ResidualBlock(16, 16, 12)(x, embedding), x)
    assert torch.equal(AttentionBlock(16, 8)(x), x)


def test_plain_resampling_halves_and_doubles():
    x = draw(0, 1, 4, 6, 10)
    assert Resample(4, "down")(x, None).shape == (1, 4, 3, 5)
    assert Resample(4, "up")(x, None).shape == (1, 4, 12, 20)


# The forms for a GPU's compiler.


@pytest.mark.parametrize("resample_blocks", [False, True])
def test_the_forms_that_are_compiled_are_the_same_function(resample_blocks, monkeypatch):
    """The whole network and its gradients, in float64."""
    network = shaken(UNet((3, 8, 12), **SMALL, resample_blocks=resample_blocks)).double().to(memory_format=torch.channels_last)
    t, weight = torch.rand(3, dtype=torch.float64), draw(2, 3, 3, 8, 12).double()
    found = []
    for form in (False, True):
        for module in (attention, layers, norms):
            monkeypatch.setattr(module, "fuses", lambda x, form=form: form)
        x = draw(1, 3, 3, 8, 12).double().requires_grad_()
        out = network(t, x)
        found.append([out, *torch.autograd.grad((out * weight).sum(), [x, *network.parameters()])])
    assert not torch.equal(found[0][0], found[1][0])  # so it did take the other way
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_moments_by_channel_stand_a_mean_that_is_large():
    """Where the difference of two squares would have no digits left."""
    norm = group_norm(16)
    x = (1e4 + draw(0, 2, 16, 6, 6)).to(memory_format=torch.channels_last)
    expected = torch.nn.functional.group_norm(x.double(), norm.num_groups)
    assert (norm.by_channel(x) - expected).abs().max() < 5e-3
    assert norm.by_channel(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("channels", "side"), [(16, 8), (48, 4), (6, 3), (4, 1)])
def test_a_norm_by_sums_is_the_norm(channels, side):
    norm = shaken(group_norm(channels))
    x = (3 + draw(0, 5, channels, side, side + 1)).to(memory_format=torch.channels_last)
    usual = norm(x)  # a gradient could be asked for
    assert torch.equal(usual, torch.nn.GroupNorm.forward(norm, x))
    with torch.no_grad():
        found = norm(x)
        assert torch.equal(found, norm.by_sums(x))
        other = x.contiguous()
        assert torch.equal(norm(other), torch.nn.GroupNorm.forward(norm, other))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, usual, rtol=1e-5, atol=2e-6)
    norm.double()
    torch.testing.assert_close(norm.by_sums(x.double()), norm(x.double()), rtol=1e-12, atol=1e-13)
    far = (1e4 + draw(1, 2, channels, side, side + 1)).to(memory_format=torch.channels_last)
    expected = norm(far.double())
    norm.float()
    assert (norm.by_sums(far) - expected).abs().max() < 5e-2  # a float32 near 10,000 has steps of 0.001


def test_a_norm_of_images_under_vmap():
    norm, x = group_norm(16), draw(0, 3, 2, 16, 4, 4)
    with torch.no_grad():
        found = torch.func.vmap(norm)(x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 2)))
        torch.testing.assert_close(found, torch.stack([norm(images) for images in x]))


def test_a_norm_of_many_channels_or_pixels_is_torchs():
    for channels, side in ((8 * 32, 4), (16, 32)):
        norm = group_norm(channels)
        x = draw(0, 1, channels, side, side).to(memory_format=torch.channels_last)
        with torch.no_grad():
            assert torch.equal(norm(x), torch.nn.GroupNorm.forward(norm, x))
            assert not torch.equal(norm(x), norm.by_sums(x))
        with torch.no_grad():  # and so is one of 16-bit numbers, and of what are no images
            assert norm(x.bfloat16()).dtype == torch.bfloat16
            assert norm(x.flatten(2)).shape == (1, channels, side * side)


def test_heads_of_the_channels_asked_for():
    """Or one of fewer; two of 80 where 64 are asked for would be a setting ignored."""
    assert [AttentionBlock(c, 64).heads for c in (16, 64, 128, 256)] == [1, 1, 2, 4]
    for channels in (96, 160):
        with pytest.raises(ValueError, match=f"{channels} channels do not divide into heads of 64; take head_channels that"):
            AttentionBlock(channels, 64)


def test_repeated_pixels():
    x = draw(0, 2, 3, 4, 5).to(memory_format=torch.channels_last)
    out = repeated(x)
    assert torch.equal(out, torch.nn.functional.interpolate(x, scale_factor=2.0))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_gradients_of_joined_images_are_whole_tensors():
    x, skip = (draw(i, 2, c, 4, 4).to(memory_format=torch.channels_last).requires_grad_() for i, c in enumerate((3, 5)))
    weight = draw(2, 2, 8, 4, 4)
    found = torch.autograd.grad((Concatenation.apply(x, skip) * weight).sum(), [x, skip])
    assert torch.equal(found[0], weight[:, :3]) and torch.equal(found[1], weight[:, 3:])
    assert all(g.is_contiguous(memory_format=torch.channels_last) for g in found)


def test_dropout_acts_in_training_only():
    network = shaken(UNet((1, 8, 8), **SMALL, dropout=0.5))
    t, x = torch.rand(1), draw(0, 1, 1, 8, 8)
    assert torch.equal(network(t, x), network(t, x))
    network.train()
    assert not torch.equal(network(t, x), network(t, x))


# Building by name.


def test_build_network():
    assert isinstance(build_network("mlp", (2,), {"width": 4}), MLP)
    assert isinstance(build_network("unet", (1, 8, 8), SMALL), UNet)
    assert isinstance(build_network("fmbench.networks.mlp:MLP", (2,), {"width": 4}), MLP)


@pytest.mark.parametrize(
    ("kind", "shape", "parameters", "message"),
    [
        ("transformer", (2,), {}, "mlp, unet"),
        ("mlp", (2,), {"channels": 3}, "channels"),
        ("mlp", (1, 8, 8), {}, "unet"),
        ("unet", (2,), {}, "mlp"),
    ],
)
def test_networks_that_cannot_be_built(kind, shape, parameters, message):
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


# EMA.


def walk(seed: int, n: int) -> list[list[torch.Tensor]]:
    return [[draw(100 * seed + i, 3, 2), draw(100 * seed + 50 + i, 4)] for i in range(n)]


def follow(ema: EMA, parameters: list[nn.Parameter], values: list[list[torch.Tensor]]) -> None:
    for step in values:
        with torch.no_grad():
            for p, value in zip(parameters, step, strict=True):
                p.copy_(value)
        ema.update()


def fresh() -> list[nn.Parameter]:
    return [nn.Parameter(draw(7, 3, 2)), nn.Parameter(draw(8, 4))]


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.5, 0.999])
def test_ema_in_closed_form(decay):
    """average = sum_n w_n value_n with w_n = (1 - d_n) prod_(m > n) d_m, and the start with prod d_m."""
    parameters = fresh()
    start = [p.detach().clone() for p in parameters]
    values = walk(0, 12)
    ema = EMA(parameters, decay)
    follow(ema, parameters, values)
    d = [min(decay, (1 + n) / (10 + n)) for n in range(12)]
    weights = [(1 - d[n]) * math.prod(d[n + 1 :]) for n in range(12)]
    assert sum(weights) + math.prod(d) == pytest.approx(1)
    for i in range(2):
        expected = math.prod(d) * start[i] + sum(w * v[i] for w, v in zip(weights, values, strict=True))
        torch.testing.assert_close(ema.averages[i], expected, rtol=1e-5, atol=1e-6)
    assert ema.updates == 12


def test_ema_forgets_its_start_during_warm_up():
    """Ten updates at a decay of 0.999 without warm-up would leave 99 % of the initial weights; with it 1e-5 is left."""
    parameter = nn.Parameter(torch.ones(1))
    ema = EMA([parameter], 0.999)
    follow(ema, [parameter], [[torch.zeros(1)]] * 10)
    assert float(ema.averages[0]) == pytest.approx(math.prod((1 + n) / (10 + n) for n in range(10)), rel=1e-4)


def test_ema_leaves_the_weights_alone_and_starts_as_their_copy():
    parameters = fresh()
    ema = EMA(parameters, 0.9)
    for p, average in zip(parameters, ema.averages, strict=True):
        assert torch.equal(p, average)
        assert p.data_ptr() != average.data_ptr()
    values = walk(0, 3)
    follow(ema, parameters, values)
    assert all(torch.equal(p, v) for p, v in zip(parameters, values[-1], strict=True))


def test_ema_takes_a_generator_of_parameters():
    network = nn.Linear(2, 3)
    ema = EMA(network.parameters(), 0.9)
    ema.update()
    ema.update()
    assert len(ema.averages) == 2


def test_ema_state_goes_through_a_file_and_on_as_if_nothing_had_happened():
    """The counter is part of the state: without it the warm-up would start again."""
    values = walk(0, 20)
    whole_parameters = fresh()
    whole = EMA(whole_parameters, 0.9)
    follow(whole, whole_parameters, values)

    first_parameters = fresh()
    first = EMA(first_parameters, 0.9)
    follow(first, first_parameters, values[:8])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second_parameters = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))]
    second = EMA(second_parameters, 0.9)
    second.load_state_dict(torch.load(file, weights_only=True))
    follow(second, second_parameters, values[8:])

    assert second.updates == whole.updates == 20
    assert all(torch.equal(a, b) for a, b in zip(whole.averages, second.averages, strict=True))


def test_an_average_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"an average of shape \(1, 2\) does not fit weights of \(3, 2\)"):
        EMA(fresh(), 0.5).load_state_dict({"averages": [torch.zeros(1, 2), torch.zeros(4)], "updates": 1})


def test_ema_is_copied_to_another_network():
    torch.manual_seed(0)
    source, target = MLP((2,), width=4, depth=1), MLP((2,), width=4, depth=1)
    ema = EMA(source.parameters(), 0.5)
    with torch.no_grad():
        for p in source.parameters():
            p.zero_()
    ema.update()
    ema.copy_to(target.parameters())
    t, x = torch.rand(3), draw(0, 3, 2)
    assert (source(t, x) == 0).all()
    assert all(torch.equal(p, a) for p, a in zip(target.parameters(), ema.averages, strict=True))
    assert target(t, x).abs().max() > 0
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ema.copy_to(list(target.parameters())[:-1])


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(ValueError, match=f"not {decay}"):
        EMA([nn.Parameter(torch.zeros(1))], decay)
