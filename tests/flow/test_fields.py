"""The field of a network, and counting."""

import pytest
import torch
from draws import draw
from point_network import behind_inputs
from torch import Tensor

from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import PREDICTIONS

EVERY_PATH = [OptimalTransport(0.1), VariancePreserving(), VarianceExploding(0.2, 5.0), CosineVP()]


def turning(t: Tensor, x: Tensor) -> Tensor:
    return torch.sin(t) * x.flip(1)


def test_counting_field_counts_calls_and_samples():
    field = CountingField(turning)
    for batch in (4, 1, 7):
        x = draw(0, batch, 3)
        assert torch.equal(field(torch.tensor(0.3), x), turning(torch.tensor(0.3), x))
    assert (field.calls, field.evaluations) == (3, 12)


@pytest.mark.parametrize(("given", "seen"), [(-0.5, 0.1), (0.1, 0.1), (0.4, 0.4), (0.9, 0.9), (30.9, 0.9)])
def test_counting_field_keeps_time_inside(given, seen):
    times = []
    field = CountingField(lambda t, x: times.append(t) or x, 0.1, 0.9)
    field(torch.tensor(given, dtype=torch.float64), draw(0, 2, 3))
    field(torch.tensor([given, 0.5], dtype=torch.float64), draw(0, 2, 3))
    assert times[0].item() == seen
    assert times[1].tolist() == [seen, 0.5]


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize("path", EVERY_PATH, ids=repr)
def test_a_perfect_network_of_any_kind_gives_the_conditional_field(path, prediction):
    """The perfect network for one data point x1 reads x0 off x_t; its field is eq. 15."""
    x1 = draw(1, 1, 1, 2, 3)

    def network(t: Tensor, x: Tensor) -> Tensor:
        c = path.coefficients(t)
        x0 = (x - c.a.reshape(-1, 1, 1, 1) * x1) / c.s.reshape(-1, 1, 1, 1)
        return prediction.target(path, x0, x1.expand_as(x), t)

    field = velocity_field(behind_inputs(prediction, path, network), path, prediction)
    x = draw(2, 4, 1, 2, 3)
    times = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    a, s, da, ds = (v.reshape(-1, 1, 1, 1) for v in path.coefficients(times))
    expected = ds / s * (x - a * x1) + da * x1
    torch.testing.assert_close(field(times, x), expected, rtol=1e-8, atol=1e-8)
    for i, t in enumerate(times):
        torch.testing.assert_close(field(t, x)[i], expected[i], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [torch.tensor(0.3, dtype=torch.float64), torch.full((5,), 0.3, dtype=torch.float64)])
def test_the_network_gets_a_batch_of_times_in_the_type_of_x(t):
    seen = []

    def network(t: Tensor, x: Tensor) -> Tensor:
        seen.append(t)
        return x

    out = velocity_field(network, VariancePreserving(), PREDICTIONS["epsilon"])(t, torch.randn(5, 2))
    assert seen[0].shape == (5,)
    assert seen[0].dtype == out.dtype == torch.float32
    assert torch.equal(seen[0], torch.full((5,), 0.3))
