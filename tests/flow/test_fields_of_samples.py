"""Fields that differ by sample, as those with a condition: rows, counts, guidance, and solvers that know nothing of it."""

import pytest
import torch
from torch import Tensor

from fmbench.flow.fields import CountingField, Field, FieldOfAll, FieldOfSamples, guided, rows_of
from fmbench.flow.likelihood import log_likelihood
from fmbench.flow.paths import OptimalTransport, VariancePreserving
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import RK4


def to_gaussian(mean: Tensor, std: Tensor) -> Field:
    """The OT field, eq. 8, of x1 ~ N(mean, std^2 I) for each sample: mean (B, D), std (B,)."""
    path = OptimalTransport(0.0)

    def field(t: Tensor, x: Tensor) -> Tensor:
        c = path.coefficients(t.expand(len(x)))
        a, s, da, ds = (v[:, None] for v in c)
        variance = a**2 * std[:, None] ** 2 + s**2
        score = -(x - a * mean) / variance
        return da * (mean - a * std[:, None] ** 2 * score) + ds * (-s * score)

    return field


G = torch.Generator().manual_seed(3)
MEANS, STDS = 2 * torch.randn(40, 3, generator=G).double(), 0.01 + 2 * torch.rand(40, generator=G).double()
X0 = torch.randn(40, 3, generator=G).double()
FIELD = FieldOfSamples(to_gaussian, (MEANS, STDS))


def test_rows_are_the_field_of_these_samples():
    t, some = torch.tensor(0.3).double(), torch.tensor([3, 0, 17])
    torch.testing.assert_close(FIELD.rows(some)(t, X0[some]), FIELD(t, X0)[some], rtol=0, atol=0)
    mask = MEANS[:, 0] > 0
    torch.testing.assert_close(FIELD.rows(mask)(t, X0[mask]), FIELD(t, X0)[mask], rtol=0, atol=0)
    twice = FIELD.rows(mask).rows(torch.tensor([1, 2]))
    torch.testing.assert_close(twice(t, X0[mask][1:3]), FIELD(t, X0)[mask][1:3], rtol=0, atol=0)


def test_a_field_that_is_the_same_for_all_samples_has_no_rows():
    def field(t: Tensor, x: Tensor) -> Tensor:
        return -x

    assert rows_of(field, [1, 2]) is field


def test_all_samples_are_read_as_they_are_needed():
    asked = []

    def read(indices):
        asked.append(list(indices))
        return MEANS[list(indices)], STDS[list(indices)]

    every = FieldOfAll(to_gaussian, read)
    t = torch.tensor(0.5).double()
    torch.testing.assert_close(every.rows(range(4, 9))(t, X0[4:9]), FIELD(t, X0)[4:9], rtol=0, atol=0)
    assert asked == [[4, 5, 6, 7, 8]]
    with pytest.raises(ValueError, match="differs by sample: take the rows"):
        every(t, X0)


def test_rows_count_together_with_the_whole():
    field = CountingField(FIELD, cost=2)
    one, other = field.rows(range(3)), field.rows(range(5, 10))
    t = torch.tensor(0.1).double()
    one(t, X0[:3])
    one(t, X0[:3])
    other(t, X0[5:10])
    assert (field.calls, field.evaluations) == (one.calls, one.evaluations) == (6, 2 * (3 + 3 + 5))


@pytest.mark.parametrize("wrap", [lambda f: f, CountingField])
def test_the_adaptive_solver_follows_each_samples_own_field_while_others_finish(wrap):
    """Every conditional Gaussian is carried to its own, though samples leave the batch at different times."""
    field = wrap(FIELD)
    together = dopri5(field, X0, 0.0, 1.0, rtol=1e-9, atol=1e-9)
    assert len(together.nfe.unique()) > 5  # so that many batches of the field were smaller ones
    # The field of x1 = m + s z is solved by x_t = t m + sqrt(t^2 s^2 + (1 - t)^2) x0.
    torch.testing.assert_close(together.x, MEANS + STDS[:, None] * X0, rtol=1e-6, atol=1e-7)
    for i in (0, 7, 39):
        alone = dopri5(rows_of(field, [i]), X0[[i]], 0.0, 1.0, rtol=1e-9, atol=1e-9)
        assert torch.equal(alone.x[0], together.x[i]) and alone.nfe[0] == together.nfe[i]


def test_gradients_follow_each_samples_own_field_past_a_broken_one():
    means = MEANS.clone().requires_grad_()
    field = FieldOfSamples(to_gaussian, (means, STDS))
    x = X0.clone()
    x[4] = torch.inf
    solution = dopri5(field, x, 0.0, 1.0, rtol=1e-8, atol=1e-8)
    assert solution.failed.nonzero().flatten().tolist() == [4]
    kept = torch.arange(40) != 4
    (gradient,) = torch.autograd.grad(solution.x[kept].sum(), means)
    torch.testing.assert_close(gradient[kept], torch.ones(39, 3).double(), rtol=1e-5, atol=1e-5)


def test_fixed_steps_and_likelihood_take_the_field_of_the_batch():
    grid = uniform_grid(0.0, 1.0, 400)
    torch.testing.assert_close(integrate(FIELD, X0, grid, RK4), MEANS + STDS[:, None] * X0, rtol=1e-2, atol=1e-2)
    x1 = MEANS + 0.7 * STDS[:, None]
    found = log_likelihood(FIELD, x1, 0.0, 1.0, rtol=1e-8, atol=1e-8).log_p
    normal = torch.distributions.Normal(MEANS, STDS[:, None])
    torch.testing.assert_close(found, normal.log_prob(x1).sum(1), rtol=1e-5, atol=1e-5)


def test_a_likelihood_from_a_base_with_a_mean():
    """Carried by a shift that differs by sample: x1 = x0 + 1, x0 ~ N(c, 0.3^2)."""
    found = log_likelihood(lambda t, x: torch.ones_like(x), X0, 0.0, 1.0, base_std=0.3, base_mean=MEANS).log_p
    wanted = torch.distributions.Normal(MEANS + 1, 0.3).log_prob(X0).sum(1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_guidance_is_linear_between_the_field_without_and_with_the_condition():
    told, untold = FIELD, FieldOfSamples(to_gaussian, (0 * MEANS, torch.ones(40).double()))
    t = torch.tensor(0.4).double()
    torch.testing.assert_close(guided(told, untold, 1.0)(t, X0), told(t, X0), rtol=1e-12, atol=1e-12)
    assert torch.equal(guided(told, untold, 0.0)(t, X0), untold(t, X0))
    wanted = 3 * told(t, X0) - 2 * untold(t, X0)
    torch.testing.assert_close(guided(told, untold, 3.0)(t, X0), wanted, rtol=1e-12, atol=1e-12)


def test_guidance_of_two_gaussians_of_one_width_is_the_field_of_a_third():
    """The scores of N(a m, v) and N(0, v) are linear in the mean, so guidance with scale w is the field of the mean w m."""
    std, t = torch.full((40,), 0.5).double(), torch.tensor(0.6).double()
    found = guided(to_gaussian(MEANS, std), to_gaussian(0 * MEANS, std), 2.5)(t, X0)
    torch.testing.assert_close(found, to_gaussian(2.5 * MEANS, std)(t, X0), rtol=1e-12, atol=1e-12)
    assert VariancePreserving().base_std == 1
