import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from draws import draw
from example_paths import EVERY_PATH, every_path
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fmbench.data.sources import digits
from fmbench.flow.bandwidth import leave_one_out_bandwidth
from fmbench.flow.divergence import exact_divergence
from fmbench.flow.fields import CountingField
from fmbench.flow.objectives import Objective
from fmbench.flow.oracle import FiniteOracle, MixtureOracle
from fmbench.flow.paths import OptimalTransport, VariancePreserving
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.flow.training_times import UniformTime
from fmbench.flow.weighting import WEIGHTINGS
from fmbench.stages.oracles import least_loss
from fmbench.system.rng import indexed_normal

TIMES = torch.tensor([0.05, 0.3, 0.5, 0.8, 0.97], dtype=torch.float64)
MEANS = torch.tensor([[1.5, 0.5, 0.0], [-1.0, 1.0, 0.3]], dtype=torch.float64)
FACTORS = torch.tensor(
    [[[0.6, 0.0, 0.0], [0.3, 0.4, 0.0], [-0.2, 0.1, 0.3]], [[0.2, 0.0, 0.0], [0.1, 0.7, 0.0], [0.2, -0.3, 0.5]]],
    dtype=torch.float64,
)
COVARIANCES = FACTORS @ FACTORS.mT
WEIGHTS = torch.tensor([0.7, 0.3], dtype=torch.float64)
MIXTURE = MixtureOracle(MEANS, COVARIANCES, 5 * WEIGHTS)


POINTS = draw(0, 7, 1, 2, 3) + 0.5


def written_out(path, t: Tensor, x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor):
    """log p_t and u_t by Bayes' rule over the components, in full matrices and by torch.distributions. t is a number."""
    a, s, da, ds = path.coefficients(t)
    identity = torch.eye(x.shape[1], dtype=torch.float64)
    components = torch.distributions.MultivariateNormal(a * means, a**2 * covariances + s**2 * identity)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), components)
    posterior = torch.softmax(components.log_prob(x[:, None]) + weights.log(), 1)
    # x1 and x_t are jointly normal in a component, so E[x1 | x_t] is a regression; x0 is what is left of x_t.
    gain = a * torch.linalg.solve(a**2 * covariances + s**2 * identity, covariances).mT
    x1 = means + torch.einsum("kde,bke->bkd", gain, x[:, None] - a * means)
    x0 = (x[:, None] - a * x1) / s
    average = [(posterior[..., None] * v).sum(1) for v in (x1, x0)]
    return mixture.log_prob(x), average[0], average[1], da * average[0] + ds * average[1]


def brute_force(path, t: Tensor, x: Tensor, points: Tensor):
    """Eq. 8 for points, as the paper has it: the conditional fields of eq. 15, weighted by eq. 10's densities."""
    a, s, da, ds = path.coefficients(t)
    centred = x[:, None] - a * points
    joint = -centred.square().sum(-1) / (2 * s**2)
    weights = torch.softmax(joint, 1)[..., None]
    log_density = torch.logsumexp(joint, 1) - math.log(len(points)) - x.shape[1] * torch.log(s * math.sqrt(2 * math.pi))
    return log_density, (weights * (ds / s * centred + da * points)).sum(1)


@every_path
@pytest.mark.parametrize("t", TIMES)
def test_points_against_the_softmax_of_the_paper(path, t):
    oracle, x = FiniteOracle(POINTS), 1.5 * draw(1, 6, 1, 2, 3)
    log_density, velocity = brute_force(path, t, x.flatten(1), POINTS.flatten(1))
    torch.testing.assert_close(oracle.log_density(path, t, x), log_density, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(oracle.velocity(path, t, x).flatten(1), velocity, rtol=1e-8, atol=1e-8)


@every_path
@pytest.mark.parametrize("t", TIMES)
def test_a_mixture_against_matrices_and_distributions(path, t):
    x = (1.5 * draw(2, 6, 3)).requires_grad_()
    log_density, x1, x0, velocity = written_out(path, t, x, MEANS, COVARIANCES, WEIGHTS)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    p = MIXTURE.posterior(path, t, x)
    expected = (log_density, score, x1, x0)
    for found, value in zip(p[:4], expected, strict=True):
        torch.testing.assert_close(found, value.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(MIXTURE.velocity(path, t, x), velocity.detach(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(MIXTURE.score(path, t, x), score, rtol=1e-9, atol=1e-9)


@every_path
@pytest.mark.parametrize("bandwidth", [0.0, 0.4])
@pytest.mark.parametrize("t", TIMES)
def test_scores_and_divergences_are_those_of_autograd(path, bandwidth, t):
    points, x = POINTS.flatten(1), (1.5 * draw(3, 4, 6)).requires_grad_()
    oracle = FiniteOracle(points, bandwidth)
    identity = torch.eye(6, dtype=torch.float64).expand(7, 6, 6)
    log_density, x1, x0, _ = written_out(path, t, x, points, bandwidth**2 * identity, torch.full((7,), 1 / 7).double())
    (score,) = torch.autograd.grad(log_density.sum(), x)
    p = oracle.posterior(path, t, x)
    for found, value in zip(p[:4], (log_density, score, x1, x0), strict=True):
        torch.testing.assert_close(found, value.detach(), rtol=1e-8, atol=1e-8)

    def plain(k):
        return lambda t, x: written_out(path, t, x, points, bandwidth**2 * identity, torch.full((7,), 1 / 7).double())[k]

    for k, found in ((1, p.trace_x1), (2, p.trace_x0), (3, oracle.velocity_and_divergence(path, t, x)[1])):
        torch.testing.assert_close(found, exact_divergence(plain(k), t, x, "loop")[1], rtol=1e-7, atol=1e-7)


@every_path
@pytest.mark.parametrize("t", TIMES)
def test_the_divergence_of_a_mixture_is_that_of_autograd(path, t):
    x = 1.5 * draw(4, 5, 3)
    velocity, divergence = MIXTURE.velocity_and_divergence(path, t, x)
    assert torch.equal(velocity, MIXTURE.velocity(path, t, x))
    _, expected = exact_divergence(lambda t, x: written_out(path, t, x, MEANS, COVARIANCES, WEIGHTS)[3], t, x, "loop")
    torch.testing.assert_close(divergence, expected, rtol=1e-8, atol=1e-8)


@every_path
@pytest.mark.parametrize("bandwidth", [0.0, 0.3])
def test_points_are_a_mixture_of_equal_round_gaussians(path, bandwidth):
    points, x = POINTS.flatten(1), 1.5 * draw(5, 5, 6)
    covariances = (bandwidth**2 * torch.eye(6, dtype=torch.float64)).expand(7, 6, 6)
    found = FiniteOracle(points, bandwidth).posterior(path, TIMES, x)
    expected = MixtureOracle(points, covariances).posterior(path, TIMES, x)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@every_path
@pytest.mark.parametrize("memory", [1, 20, 45, 70])
@pytest.mark.parametrize("bandwidth", [0.0, 0.3])
def test_pieces_make_no_difference(path, memory, bandwidth):
    """Pieces of 1 to 4 of 7 points; points far away come first, so that the running maximum moves."""
    points = POINTS * torch.linspace(5, 0.1, 7, dtype=torch.float64).reshape(-1, 1, 1, 1)
    whole, pieces = FiniteOracle(points, bandwidth), FiniteOracle(points, bandwidth, memory=memory)
    x = draw(6, 5, 1, 2, 3)
    for a, b in zip(whole.posterior(path, TIMES, x), pieces.posterior(path, TIMES, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_times_by_sample_are_times_one_by_one():
    x = draw(7, 5, 1, 2, 3)
    for oracle, y in ((FiniteOracle(POINTS, 0.2), x), (MIXTURE, x.flatten(1)[:, :3])):
        together = oracle.velocity_and_divergence(VariancePreserving(), TIMES, y)
        for i, t in enumerate(TIMES):
            alone = oracle.velocity_and_divergence(VariancePreserving(), t, y[i : i + 1])
            torch.testing.assert_close(alone[0][0], together[0][i], rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(alone[1][0], together[1][i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-5])
def test_float32_points_are_computed_in_float64(distance):
    """Near t = 1 the exponents are differences of squared distances over s^2, which float32 does not have."""
    path, t = VariancePreserving(), torch.tensor(1 - distance, dtype=torch.float64)
    points = (draw(8, 30, 12) / 10).float() + 3
    c = path.coefficients(t)
    x = (c.a * points[:9].double() + c.s * draw(9, 9, 12)).float()
    oracle = FiniteOracle(points)
    velocity, divergence = oracle.velocity_and_divergence(path, t, x)
    assert velocity.dtype == divergence.dtype == oracle.score(path, t, x).dtype == torch.float32
    assert oracle.log_density(path, t, x).dtype == torch.float64
    log_density, expected = brute_force(path, t, x.double(), points.double())
    torch.testing.assert_close(oracle.log_density(path, t, x), log_density, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(oracle.velocity(path, t, x.double()), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(velocity, expected.float(), rtol=1e-6, atol=1e-6)
    mixed = MixtureOracle(points[:, :3], torch.eye(3).expand(30, 3, 3)).velocity(path, t, x[:, :3])
    assert mixed.dtype == torch.float32


@given(seed=st.integers(0, 2**32 - 1), t=st.floats(0.05, 0.95), size=st.floats(1e-2, 1e2))
@settings(max_examples=40, deadline=None)
def test_the_posterior_splits_x_into_data_and_noise(seed, t, size):
    """a E[x1 | x] + s E[x0 | x] = x, and E[x0 | x] = -s score, at every x."""
    x = size * draw(seed, 3, 6)
    t = torch.tensor(t, dtype=torch.float64)
    for path in EVERY_PATH:
        a, s, _, _ = path.coefficients(t)
        for oracle, y in ((FiniteOracle(POINTS.flatten(1), 0.1), x), (MIXTURE, x[:, :3])):
            p = oracle.posterior(path, t, y)
            torch.testing.assert_close(a * p.x1 + s * p.x0, y, rtol=1e-8, atol=1e-8 * size)
            torch.testing.assert_close(p.x0, -s * p.score, rtol=1e-12, atol=1e-12)
            sum_of_traces = (a * p.trace_x1 + s * p.trace_x0) / y.shape[1]
            # Exponents of size^2 are rounded, and their weights multiply terms of size^2.
            rounding = 1e-7 + 1e-14 * size**4
            torch.testing.assert_close(sum_of_traces, torch.ones(3, dtype=torch.float64), rtol=0, atol=rounding)


@pytest.mark.parametrize(
    "oracle", [FiniteOracle(POINTS.flatten(1)[:, :2], 0.3), MixtureOracle(MEANS[:, :2], COVARIANCES[:, :2, :2])]
)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_density_integrates_to_one(oracle, t):
    line = torch.linspace(-9, 9, 361, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    density = oracle.log_density(OptimalTransport(), torch.tensor(t, dtype=torch.float64), grid).exp()
    assert float(density.sum()) * 0.05**2 == pytest.approx(1, abs=1e-6)


def test_noise_alone_says_nothing_and_data_alone_everything():
    oracle, x = FiniteOracle(POINTS), draw(10, 4, 1, 2, 3)
    p = oracle.posterior(OptimalTransport(), torch.tensor(0.0), x)
    torch.testing.assert_close(p.x1, POINTS.flatten(1).mean(0).expand(4, 6))
    torch.testing.assert_close(p.x0, x.flatten(1))
    at_the_data = oracle.posterior(OptimalTransport(1e-6), torch.tensor(1.0), POINTS)
    torch.testing.assert_close(at_the_data.x1, POINTS.flatten(1), rtol=1e-9, atol=1e-9)


def spread_of(oracle, path, t: float, n: int) -> tuple[Tensor, Tensor]:
    samples = oracle.marginal_sample(path, t, n, torch.Generator().manual_seed(1)).flatten(1)
    return samples.mean(0), torch.cov(samples.T)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_samples_have_the_moments_of_the_marginal(t):
    """Within 5 standard errors, sqrt(C_ii / n) of a mean and sqrt((C_ii C_jj + C_ij^2) / n) of a covariance (times 2, since
    a mixture is not normal)."""
    n, path = 40_000, OptimalTransport(0.1)
    a, s, _, _ = path.coefficients(torch.tensor(t, dtype=torch.float64))
    mean = WEIGHTS @ MEANS
    within = torch.einsum("k,kde->de", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None])
    points = POINTS.flatten(1)
    around = (points - points.mean(0)).T @ (points - points.mean(0)) / 7 + 0.3**2 * torch.eye(6)
    for oracle, mu, sigma in (
        (MIXTURE, mean, within - torch.outer(mean, mean)),
        (FiniteOracle(POINTS, 0.3), points.mean(0), around),
    ):
        found_mean, found = spread_of(oracle, path, t, n)
        covariance = a**2 * sigma + s**2 * torch.eye(len(mu))
        variances = covariance.diagonal()
        assert ((found_mean - a * mu).abs() < 5 * (variances / n).sqrt()).all()
        error = ((torch.outer(variances, variances) + covariance**2) / n).sqrt()
        assert ((found - covariance).abs() < 10 * error).all()


def test_samples_keep_shape_and_points_keep_still_without_a_bandwidth():
    samples = FiniteOracle(POINTS.float()).sample(50, torch.Generator().manual_seed(0))
    assert (samples.shape, samples.dtype) == ((50, 1, 2, 3), torch.float64)
    distances = torch.cdist(samples.flatten(1), POINTS.float().double().flatten(1))
    assert (distances.min(1).values == 0).all()
    assert len(distances.argmin(1).unique()) == 7


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of its memory from /proc")
def test_memory_stays_bounded_with_many_points():
    """10,000 points in 3,072 dimensions: broadcast against 64 queries they would take 7.9 GB even in float32.

    The peak is the process's own (VmHWM), which unlike getrusage's starts afresh in a new program.
    """
    script = """
import torch
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import OptimalTransport
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
def field(points, x):
    return FiniteOracle(points, 0.01, memory=1 << 20).velocity(OptimalTransport(), torch.tensor(0.5), x)
g = torch.Generator().manual_seed(0)
field(torch.ones(2, 3072), torch.ones(2, 3072))
points, x = torch.rand(10_000, 3072, generator=g), torch.rand(64, 3072, generator=g)
before = peak()
field(points, x)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < 100  # MB; the points themselves are 123


# What cannot be an oracle.


@pytest.mark.parametrize("points", [torch.zeros(0, 2), torch.zeros(3)])
def test_no_points_are_refused(points):
    with pytest.raises(ValueError, match=rf"shape \(N, \*\) with at least one point, not \({points.shape[0]},"):
        FiniteOracle(points)


@pytest.mark.parametrize("bandwidth", [-0.1, math.inf, math.nan])
def test_impossible_bandwidths_are_refused(bandwidth):
    with pytest.raises(ValueError, match=f"zero or more, not {bandwidth}"):
        FiniteOracle(POINTS, bandwidth)


@pytest.mark.parametrize(
    ("covariances", "weights", "message"),
    [
        (COVARIANCES[:1], None, r"shape \(2, 3, 3\) to go with means \(2, 3\), not \(1, 3, 3\)"),
        (FACTORS, None, "symmetric"),
        (-COVARIANCES, None, "positive semi-definite; the smallest eigenvalue is -"),
        (COVARIANCES, torch.ones(3), "2 positive numbers"),
        (COVARIANCES, torch.tensor([1.0, 0.0]), "2 positive numbers"),
    ],
)
def test_impossible_mixtures_are_refused(covariances, weights, message):
    with pytest.raises(ValueError, match=message):
        MixtureOracle(MEANS, covariances, weights)


def test_a_point_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(B, 1, 2, 3\), not \(4, 6\)"):
        FiniteOracle(POINTS).velocity(OptimalTransport(), torch.tensor(0.5), draw(0, 4, 6))


def test_a_flat_covariance_is_allowed():
    """For data on a line, the posterior mean is on that line."""
    flat = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
    oracle = MixtureOracle(torch.zeros(1, 2), flat)
    p = oracle.posterior(OptimalTransport(0.0), torch.tensor(0.5), draw(11, 5, 2))
    torch.testing.assert_close(p.x1[:, 0], p.x1[:, 1], rtol=1e-12, atol=1e-12)
    samples = oracle.sample(9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples[:, 0], samples[:, 1], rtol=1e-12, atol=1e-12)


# The bandwidth.


@pytest.mark.parametrize(("n", "dimensions"), [(400, 1), (1000, 2), (1000, 5)])
def test_the_bandwidth_of_gaussian_data_is_near_silvermans(n, dimensions):
    """Silverman's rule is best in mean square for Gaussian data; the likelihood's best is of the same size, in steps of 1.33."""
    bandwidth = leave_one_out_bandwidth(3 * draw(12, n, dimensions), queries=n)
    silverman = 3 * (4 / (n * (dimensions + 2))) ** (1 / (dimensions + 4))
    assert silverman / 1.6 < bandwidth < silverman * 1.6


@pytest.mark.parametrize("shape", [(60, 2), (30, 1, 2, 3)])
def test_the_bandwidth_maximises_the_leave_one_out_likelihood(shape):
    points = draw(13, *shape)

    def likelihood(h: float) -> float:
        total = 0.0
        for i, x in enumerate(points):
            rest = torch.cat([points[:i], points[i + 1 :]]).flatten(1)
            total += float(torch.logsumexp(torch.distributions.Normal(rest, h).log_prob(x.flatten()).sum(1), 0))
        return total

    found = leave_one_out_bandwidth(points)
    assert likelihood(found) > max(likelihood(found * 1.4), likelihood(found / 1.4))


def test_no_point_counts_for_its_own_bandwidth_in_any_piece():
    """3000 queries come in three pieces; a point that counted for itself would draw the bandwidth to the smallest of the four."""
    points = draw(15, 3000, 1)
    spread = float(2 * points.var(correction=0)) ** 0.5
    assert leave_one_out_bandwidth(points, candidates=4, queries=3000) == pytest.approx(0.1 * spread, rel=1e-9)


def test_the_bandwidth_scales_with_the_data_and_moves_with_nothing():
    points = draw(14, 300, 2)
    bandwidth = leave_one_out_bandwidth(points)
    assert leave_one_out_bandwidth(10 * points) == pytest.approx(10 * bandwidth, rel=1e-9)
    assert leave_one_out_bandwidth(points + 100) == pytest.approx(bandwidth, rel=1e-9)
    assert leave_one_out_bandwidth(points.reshape(300, 1, 2, 1)) == pytest.approx(bandwidth, rel=1e-12)
    assert leave_one_out_bandwidth(points, candidates=49) == pytest.approx(bandwidth, rel=0.2)


@pytest.mark.parametrize("points", [torch.zeros(1, 2), torch.ones(5, 2)])
def test_a_bandwidth_needs_two_different_points(points):
    with pytest.raises(ValueError, match="two different points"):
        leave_one_out_bandwidth(points)


def test_the_least_loss_is_of_the_data_with_their_bandwidth():
    """Of N(mu, 1) on the straight path, Var(x1 - x0 | x_t) = 1 / (t^2 + (1 - t)^2), whose mean over t is pi / 2. Of the point
    alone it would be half of that."""
    objective = Objective(OptimalTransport(0.0), VELOCITY, WEIGHTINGS["uniform"], UniformTime(), 0.0, 1.0)
    oracle = FiniteOracle(torch.full((1, 500), 0.7, dtype=torch.float64), bandwidth=1.0)
    assert least_loss(oracle, objective, 0) == pytest.approx(math.pi / 2, rel=0.03)


def test_points_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        FiniteOracle(torch.tensor([[0.0, 1.0], [float("nan"), 2.0]]))


def test_the_orders_of_solvers_that_belong_to_the_paths():
    """On the digits, without learning error: at 8 evaluations midpoint and RK4 are better on OT, Euler is better on VP, and an
    adaptive solve to 1e-5 takes more on VP. How much depends on the bandwidth, here what dequantising adds."""
    raw = digits()
    oracle = FiniteOracle((torch.from_numpy(raw.train).float() + 0.5) * (2 / 17) - 1, 2 / 17 / math.sqrt(12))
    x0 = indexed_normal(0, "sample", range(24), (1, 8, 8))
    error, nfe = {}, {}
    for name, path in (("ot", OptimalTransport()), ("vp", VariancePreserving())):
        field = CountingField(lambda t, x, path=path: oracle.velocity(path, t, x), path.t_min, path.t_max)
        adaptive = dopri5(field, x0, path.t_min, path.t_max)
        nfe[name] = field.evaluations / len(x0)
        for solver, tableau in FIXED.items():
            if 8 % tableau.stages == 0:
                end = integrate(field, x0, uniform_grid(path.t_min, path.t_max, 8 // tableau.stages), tableau)
                error[solver, name] = (end - adaptive.x).square().mean().item()
    assert error["midpoint", "ot"] < 0.6 * error["midpoint", "vp"]
    assert error["rk4", "ot"] < 0.1 * error["rk4", "vp"]
    assert error["euler", "vp"] < 0.8 * error["euler", "ot"]
    assert nfe["ot"] < 0.9 * nfe["vp"]
