"""The moving average of weights."""

import io
import math

import pytest
import torch
from small_networks import draw
from torch import nn

from fmbench.networks.ema import EMA
from fmbench.networks.mlp import MLP


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


def test_ema_resumes_from_a_file():
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
