"""Couplings: the permutation of least cost, the entropic plan and its draws, marginals, groups."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from fmbench.config.methods import METHODS, Method, Part
from fmbench.flow.couplings import COUPLINGS, INDEPENDENT, MinibatchOT, Sinkhorn, coupled, squared_distances
from fmbench.flow.objectives import build
from fmbench.system.rng import generator


def drawn(n: int, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, data that are clustered and far from N(0, I), and uniforms."""
    g = torch.Generator().manual_seed(seed)
    x0, x1 = (torch.randn(n, *shape, generator=g) for _ in range(2))
    return x0, 0.3 * x1 + 2 * (torch.arange(n) % 2).reshape(-1, *[1] * len(shape)), torch.rand(n, generator=g).double()


def cost(x0: Tensor, x1: Tensor) -> float:
    return float((x0 - x1).double().flatten(1).square().sum())


# Exact assignment


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("shape", [(1,), (2,), (3, 2, 2)])
def test_the_assignment_has_the_least_cost_of_all_permutations(n, shape):
    for seed in range(5):
        x0, x1, u = drawn(n, *shape, seed=seed)
        chosen = MinibatchOT().partners(x0, x1, u)
        assert sorted(chosen.tolist()) == list(range(n))
        least = min(cost(x0[list(order)], x1) for order in itertools.permutations(range(n)))
        assert cost(x0[chosen], x1) == pytest.approx(least, rel=1e-6)


def test_in_one_dimension_the_assignment_sorts():
    x0, x1, u = drawn(300, 1)
    chosen = MinibatchOT().partners(x0, x1, u)
    assert torch.equal(x0[chosen].flatten().argsort(), x1.flatten().argsort())


def test_coupled_pairs_do_not_cross():
    """Optimal pairs are monotone: (x1 - y1) . (x0 - y0) >= 0 for every two pairs. Independent pairs are not."""
    x0, x1, u = drawn(200, 2)
    moved = coupled(MinibatchOT(), x0, x1, u)

    def least(noise: Tensor) -> float:
        products = ((x1[:, None] - x1) * (noise[:, None] - noise)).sum(2)
        return float(products.min())

    assert least(moved) > -1e-5 and least(x0) < -1


def test_the_assignment_does_not_depend_on_the_order_of_the_noise():
    x0, x1, u = drawn(120, 2)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    assert torch.equal(coupled(MinibatchOT(), x0[order], x1, u), coupled(MinibatchOT(), x0, x1, u))


@pytest.mark.parametrize("coupling", [MinibatchOT(), Sinkhorn()], ids=lambda c: type(c).__name__)
def test_equal_samples_and_huge_costs(coupling):
    x0, x1 = torch.zeros(6, 2), torch.zeros(6, 2)
    u = torch.linspace(0, 0.99, 6).double()
    assert coupled(coupling, x0, x1, u).shape == (6, 2)
    x0, x1, u = drawn(40, 2)
    far = coupled(coupling, x0, 1e6 * x1, u)
    assert (far[:, None] == x0).all(2).any(1).all()


# The entropic plan


def test_the_plan_of_two_pairs_in_closed_form():
    """It is [[p, 1 - p], [1 - p, p]] with p / (1 - p) = exp(d / 2r), where d is by how much the other pairs cost more."""
    x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.2], [1.1]])
    d = cost(x0.flip(0), x1) - cost(x0, x1)
    for r in (0.05, 0.3, 2.0):
        p = 1 / (1 + math.exp(-d / (2 * r)))
        plan = Sinkhorn(r, relative=False).plan(x0, x1)
        torch.testing.assert_close(plan, torch.tensor([[p, 1 - p], [1 - p, p]], dtype=torch.float64), rtol=0, atol=5e-6)


def test_a_relative_regularisation_is_a_share_of_the_mean_cost():
    x0, x1, _ = drawn(50, 3)
    mean = float(squared_distances(x1, x0).mean())
    torch.testing.assert_close(Sinkhorn(0.1).plan(x0, x1), Sinkhorn(0.1 * mean, relative=False).plan(x0, x1))


@pytest.mark.parametrize("regularisation", [0.5, 0.05, 0.002, 1e-5])
def test_rows_and_columns_of_the_plan_add_up_to_one_even_without_convergence(regularisation):
    x0, x1, _ = drawn(60, 2)
    plan = Sinkhorn(regularisation).plan(x0, x1)
    assert plan.min() >= 0
    for axis in (0, 1):
        torch.testing.assert_close(plan.sum(axis), torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_plan_goes_from_independence_to_the_assignment():
    x0, x1, u = drawn(30, 2)
    torch.testing.assert_close(Sinkhorn(1e5).plan(x0, x1), torch.full((30, 30), 1 / 30, dtype=torch.float64), rtol=1e-3, atol=0)
    sharp = Sinkhorn(0.005).plan(x0, x1)
    best = MinibatchOT().partners(x0, x1, u)
    costs = squared_distances(x1, x0)
    assert float((sharp * costs).sum()) == pytest.approx(cost(x0[best], x1), rel=0.01)
    assert float((Sinkhorn(0.05).plan(x0, x1) * costs).sum()) > 1.05 * cost(x0[best], x1)


def test_noise_is_drawn_by_the_plan():
    """Of 4000 draws for one batch, the shares of each pair agree with the plan to sampling error."""
    x0, x1, _ = drawn(8, 2)
    coupling, n = Sinkhorn(0.2), 4000
    g = torch.Generator().manual_seed(3)
    counts = torch.zeros(8, 8, dtype=torch.float64)
    for _ in range(n):
        counts[torch.arange(8), coupling.partners(x0, x1, torch.rand(8, generator=g))] += 1
    plan = coupling.plan(x0, x1)
    z = (counts / n - plan) / (plan * (1 - plan) / n).sqrt().clamp(min=1e-9)
    assert z.abs().max() < 4.5 and z.square().mean() < 1.5


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), True, "0.1"])
def test_a_regularisation_that_means_nothing(value):
    with pytest.raises(ValueError, match="regularisation must be a positive number"):
        Sinkhorn(value)
    with pytest.raises(ValueError, match="relative must be true or false"):
        Sinkhorn(relative=1)


# Marginals and groups


@pytest.mark.parametrize("coupling", [MinibatchOT(), Sinkhorn(0.05)], ids=lambda c: type(c).__name__)
def test_noise_stays_standard_normal_and_follows_the_data(coupling):
    """Over 400 batches of 32: means, variances and fourth moments of the noise are those of N(0, 1), up to sampling error."""
    moved, data = [], []
    for seed in range(400):
        x0, x1, u = drawn(32, 2, seed=seed)
        moved.append(coupled(coupling, x0, x1, u))
        data.append(x1)
    x0, x1 = torch.cat(moved).double(), torch.cat(data).double()
    n = len(x0)
    # A noise drawn twice makes the spread of these means larger than that of n independent numbers.
    for power, expected, spread in ((1, 0, 1), (2, 1, 2**0.5), (4, 3, 96**0.5)):
        assert ((x0**power).mean(0) - expected).abs().max() < 5 * spread / n**0.5
    correlation = torch.corrcoef(torch.stack([x0[:, 0], x1[:, 0]]))[0, 1]
    assert correlation > 0.6


@pytest.mark.parametrize("coupling", [MinibatchOT(), Sinkhorn(0.05)], ids=lambda c: type(c).__name__)
def test_noise_stays_within_its_group(coupling):
    x0, x1, u = drawn(90, 2)
    groups = torch.arange(90) % 3
    moved = coupled(coupling, x0, x1, u, groups)
    for number in range(3):
        here = groups == number
        assert torch.equal(moved[here], coupled(coupling, x0[here], x1[here], u[here]))
    alone = torch.arange(90)
    assert torch.equal(coupled(coupling, x0, x1, u, alone), x0)


def test_independent_pairs_are_those_that_were_drawn():
    x0, x1, u = drawn(20, 2)
    assert torch.equal(coupled(INDEPENDENT, x0, x1, u), x0)


class Wrong:
    def __init__(self, partners: Tensor) -> None:
        self.partners = lambda x0, x1, u: partners


@pytest.mark.parametrize(
    ("partners", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), "the partners of a coupling must have shape"),
        (torch.zeros(4), "rows of x0 as int64 numbers from 0 to 3; it returned torch.float32"),
        (torch.tensor([0, 1, 2, 4]), "from 0 to 4"),
        (torch.tensor([-1, 1, 2, 3]), "from -1 to 3"),
    ],
)
def test_partners_that_are_no_rows_are_refused(partners, message):
    x0, x1, u = drawn(4, 2)
    with pytest.raises(ValueError, match=message):
        coupled(Wrong(partners), x0, x1, u)


# In a method


def test_a_method_has_its_coupling():
    assert build(METHODS["ot_cfm"]).coupling == MinibatchOT()
    assert build(METHODS["fm_ot"]).coupling == INDEPENDENT == COUPLINGS["independent"]()
    sinkhorn = Method("m", Part("ot"), Part("velocity"), coupling=Part("sinkhorn", {"regularisation": 0.3}))
    assert build(sinkhorn).coupling == Sinkhorn(0.3)
    assert not build(sinkhorn).has_score and build(METHODS["fm_ot"]).has_score


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coupling": Part("nonsense")}, "unknown coupling 'nonsense'; known: independent, minibatch_ot, sinkhorn"),
        ({"coupling": Part("minibatch_ot", {"k": 1})}, "coupling 'minibatch_ot' does not take the parameters"),
        ({"coupling": Part("math:pi")}, "coupling must be a fmbench.flow.couplings.Coupling, not a float"),
        ({"coupling": Part("minibatch_ot"), "source": Part("condition")}, "cannot have a coupling: each sample's own condition"),
    ],
)
def test_a_coupling_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(Method("m", Part("ot"), Part("velocity"), **changes))


def test_the_loss_of_coupled_pairs_is_smaller_at_its_optimum():
    """Of the best constant-in-x field at t = 0: the variance of x1 - x0 given x0, which coupling reduces."""
    x0, x1, u = drawn(400, 2)
    moved = coupled(MinibatchOT(), x0, x1, u)
    variances = [float((x1 - noise).var(0).sum()) for noise in (x0, moved)]
    assert variances[1] < 0.5 * variances[0]


def test_draws_for_a_coupling_are_a_stream_of_their_own():
    one, other = (torch.rand(4, generator=generator(0, f"train/{name}/3")) for name in ("coupling", "noise"))
    assert not torch.equal(one, other)
