"""The parts of the U-Net: norms, attention, residual blocks, and their forms for a GPU's compiler."""

import math

import pytest
import torch
from small_networks import SMALL, draw, shaken
from torch import nn

from fmbench.networks import attention, layers, norms
from fmbench.networks.attention import AttentionBlock
from fmbench.networks.blocks import Resample, ResidualBlock
from fmbench.networks.layers import Concatenation, repeated
from fmbench.networks.norms import group_norm
from fmbench.networks.unet import UNet


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 1), (4, 1), (8, 2), (96, 24), (128, 32), (160, 32)])
def test_group_norm_groups(channels, groups):
    assert group_norm(channels).num_groups == groups


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


@pytest.mark.parametrize("resample_blocks", [False, True])
def test_the_compiled_forms_are_the_same_function(resample_blocks, monkeypatch):
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
    assert not torch.equal(found[0][0], found[1][0])  # so the other form was used
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_moments_by_channel_keep_their_digits_at_a_large_mean():
    """The difference of two squares would lose all digits here."""
    norm = group_norm(16)
    x = (1e4 + draw(0, 2, 16, 6, 6)).to(memory_format=torch.channels_last)
    expected = torch.nn.functional.group_norm(x.double(), norm.num_groups)
    assert (norm.by_channel(x) - expected).abs().max() < 5e-3
    assert norm.by_channel(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("channels", "side"), [(16, 8), (48, 4), (6, 3), (4, 1)])
def test_a_norm_by_sums_is_the_norm(channels, side):
    norm = shaken(group_norm(channels))
    x = (3 + draw(0, 5, channels, side, side + 1)).to(memory_format=torch.channels_last)
    usual = norm(x)  # with gradients enabled, torch's norm is used
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
        with torch.no_grad():  # 16-bit numbers and inputs that are not images take torch's norm, too
            assert norm(x.bfloat16()).dtype == torch.bfloat16
            assert norm(x.flatten(2)).shape == (1, channels, side * side)


def test_heads_have_the_channels_asked_for():
    """Fewer channels are one head. Two heads of 80 would ignore a setting of 64."""
    assert [AttentionBlock(c, 64).heads for c in (16, 64, 128, 256)] == [1, 1, 2, 4]
    for channels in (96, 160):
        with pytest.raises(ValueError, match=f"{channels} channels do not divide into heads of 64; take head_channels that"):
            AttentionBlock(channels, 64)


def test_repeated_pixels():
    x = draw(0, 2, 3, 4, 5).to(memory_format=torch.channels_last)
    out = repeated(x)
    assert torch.equal(out, torch.nn.functional.interpolate(x, scale_factor=2.0))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_gradients_of_a_concatenation_are_whole_tensors():
    x, skip = (draw(i, 2, c, 4, 4).to(memory_format=torch.channels_last).requires_grad_() for i, c in enumerate((3, 5)))
    weight = draw(2, 2, 8, 4, 4)
    found = torch.autograd.grad((Concatenation.apply(x, skip) * weight).sum(), [x, skip])
    assert torch.equal(found[0], weight[:, :3]) and torch.equal(found[1], weight[:, 3:])
    assert all(g.is_contiguous(memory_format=torch.channels_last) for g in found)
