"""Operations and bytes of a network, counted for one sample."""

import pytest
import torch
from torch import nn

from fmbench.flow.divergence import hutchinson_divergence
from fmbench.networks.counting import LiveBytes, count
from fmbench.stages.shared.initial_network import initial_network


def test_the_peak_of_a_forward_pass_by_hand():
    """Input and first layer, then that layer's output and its activation: 2,000 numbers at once, and the input with them."""
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(10, 1000), nn.SiLU(), nn.Linear(1000, 10))
    with torch.no_grad(), LiveBytes(network.parameters()) as live:
        network(torch.zeros(1, 10, device="meta"))
    assert live.peak == 4 * (10 + 1000 + 1000)


class Attention(nn.Module):
    """Attention between 100 pixels of 8 channels."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 24)

    def forward(self, t, x):
        q, k, v = self.map(x).unflatten(2, (3, 8)).permute(2, 0, 1, 3).unsqueeze(2).unbind(0)
        return nn.functional.scaled_dot_product_attention(q, k, v).squeeze(1)


def test_attention_keeps_no_matrix_of_all_pixels():
    """It keeps its input, queries, keys, values and output, and a number per pixel. Its operations are those of two products."""
    cost = count(Attention, (100, 8))
    assert cost.kept == 4 * (100 * 8 + 3 * 100 * 8 + 100 * 8 + 100)
    assert cost.flops == 2 * (100 * 8 * 24 + 2 * 100 * 100 * 8)


def test_the_bytes_counted_for_attention_are_those_that_the_cpu_keeps():
    network, kept = Attention(), {}

    def pack(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.full((1,), 0.5), torch.zeros(1, 100, 8))
    found = sum(t.untyped_storage().nbytes() for t in kept.values() if t.numel() > network.map.weight.numel())
    # The tolerance covers the output and a number per pixel. The matrix of all pixels alone would be 40,000 bytes.
    assert found == pytest.approx(count(Attention, (100, 8)).kept, rel=0.1)


attention_imported_before = nn.functional.scaled_dot_product_attention


class AttentionCalled(nn.Module):
    """The same attention, called in other ways."""

    def __init__(self, how):
        super().__init__()
        self.how, self.map = how, nn.Linear(8, 24)
        self.multi = nn.MultiheadAttention(8, 1, batch_first=True) if how == "module" else None

    def forward(self, t, x):
        if self.multi is not None:
            return self.multi(x, x, x, need_weights=False)[0]
        q, k, v = self.map(x).unflatten(2, (3, 8)).permute(2, 0, 1, 3).unsqueeze(2).unbind(0)
        if self.how == "imported before":
            return attention_imported_before(q, k, v).squeeze(1)
        return nn.functional.scaled_dot_product_attention(query=q, key=k, value=v).squeeze(1)


@pytest.mark.parametrize("how", ["by keywords", "imported before", "module"])
def test_attention_is_recognised_however_it_is_called(how):
    matrix = 4 * 1000 * 1000
    assert count(lambda: AttentionCalled(how), (1000, 8)).kept < matrix / 10
    assert nn.functional.scaled_dot_product_attention is attention_imported_before


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.drop, self.out = nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, t, x):
        return self.out(self.drop(self.map(torch.cat([x, t[:, None]], 1))))


def test_dropout_keeps_its_mask():
    """Besides the inputs of the two layers."""
    assert count(Dropping, (2,)).kept > 4 * (3 + 4)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

    def forward(self, t, x):
        return self.norm(self.map(torch.cat([x, t[:, None]], 1)))


def test_a_norm_over_the_batch_can_be_counted():
    assert count(Normed, (2,)).flops == 2 * 3 * 2


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_the_peak_of_a_likelihood_is_that_of_its_divergence(mode, probes):
    """As :func:`fmbench.flow.divergence.hutchinson_divergence` takes it on the CPU, for a network whose weights are frozen."""
    shape = (3, 16, 16)
    unet = {"kind": "unet", "channels": 32, "channels_multiple": [1, 2], "depth": 1, "attention_resolutions": [8]}
    cost = count(lambda: initial_network(unet, shape, 0), shape)
    network = initial_network(unet, shape, 0).eval().requires_grad_(False)
    x = torch.zeros(2, *shape).to(memory_format=torch.channels_last)
    z = torch.ones(probes, 2, *shape)
    with torch.no_grad(), LiveBytes([*network.parameters(), x, z]) as live:
        hutchinson_divergence(lambda t, x: network(t.expand(2), x), torch.tensor(0.5), x, z, mode)
    planned = cost.peak_jvp if mode == "forward" else cost.peak_vjp if probes == 1 else cost.peak_vjps
    # On the CPU torch's operations need some scratch memory, and norms are computed by sums.
    assert live.peak / 2 == pytest.approx(planned, rel=0.1)
