import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import PATHS, AffinePath, CosineVP, OptimalTransport, VarianceExploding, VariancePreserving

SIGMA = 0.1
OT_BY_HAND = GeneralAffine(
    a=lambda t: t,
    s=lambda t: 1 - (1 - SIGMA) * t,
    da=torch.ones_like,
    ds=lambda t: -(1 - SIGMA) * torch.ones_like(t),
)
OT_AUTOMATIC = GeneralAffine(a=lambda t: t, s=lambda t: 1 - (1 - SIGMA) * t)
VP_TIMES_TWO_AND_MORE = Rescaled(VariancePreserving(), lambda t: 2 + torch.sin(3 * t))
EVERY_PATH = [
    OptimalTransport(),
    OptimalTransport(SIGMA),
    OptimalTransport(0.0),
    VariancePreserving(),
    VariancePreserving(3.0, 3.0, 1e-3),
    VarianceExploding(),
    VarianceExploding(0.2, 5.0),
    CosineVP(),
    OT_BY_HAND,
    OT_AUTOMATIC,
    VP_TIMES_TWO_AND_MORE,
]
every_path = pytest.mark.parametrize("path", EVERY_PATH, ids=lambda p: f"{type(p).__name__}{EVERY_PATH.index(p)}")
inside = st.floats(0.01, 0.99)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def paper_T(r):
    """T and T' of eq. 18-19, as the paper has them, with beta from 0.1 to 20."""
    return 0.1 * r + r**2 * (20 - 0.1) / 2, 0.1 + r * (20 - 0.1)


@every_path
def test_derivatives_are_those_of_the_coefficients(path):
    t = torch.linspace(path.t_min + 0.01, path.t_max, 50, dtype=torch.float64)[:-1].requires_grad_()
    c = path.coefficients(t)
    for value, derivative in ((c.a, c.da), (c.s, c.ds)):
        (expected,) = torch.autograd.grad((value + 0 * t).sum(), t, retain_graph=True)
        torch.testing.assert_close(derivative.detach(), expected, rtol=1e-10, atol=1e-12)


@every_path
def test_velocity_is_the_time_derivative_of_the_point(path):
    """Eq. 15 against central differences of eq. 11."""
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 5, 1, 2, 3, generator=g, dtype=torch.float64)
    t, h = times(0.1, 0.3, 0.5, 0.7, 0.9), 1e-5
    _, velocity = path.interpolate(x0, x1, t)
    difference = (path.interpolate(x0, x1, t + h)[0] - path.interpolate(x0, x1, t - h)[0]) / (2 * h)
    torch.testing.assert_close(velocity, difference, rtol=1e-6, atol=1e-6)


@every_path
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 1, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coefficients_are_float64_and_elementwise_whatever_the_shape_of_t(path, shape, dtype):
    t = torch.rand(shape, generator=torch.Generator().manual_seed(0)).mul(0.9).add(0.05).to(dtype)
    c = path.coefficients(t)
    assert all(v.dtype == torch.float64 and v.shape == shape and not v.requires_grad for v in c)
    one_by_one = torch.tensor([[float(v) for v in path.coefficients(u)] for u in t.flatten()], dtype=torch.float64)
    together = torch.stack([v.flatten() for v in c], 1)
    torch.testing.assert_close(together, one_by_one.reshape(-1, 4), rtol=1e-14, atol=1e-15)


@every_path
def test_interpolation_keeps_type_and_gives_each_sample_its_time(path):
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 3, 1, 2, 5, generator=g)
    t = times(0.2, 0.5, 0.8)
    x_t, velocity = path.interpolate(x0, x1, t)
    assert x_t.dtype == velocity.dtype == torch.float32
    for i in range(3):
        a, s, da, ds = (float(v) for v in path.coefficients(t[i]))
        torch.testing.assert_close(x_t[i], a * x1[i] + s * x0[i])
        torch.testing.assert_close(velocity[i], da * x1[i] + ds * x0[i])


@pytest.mark.parametrize(
    ("path", "at_start", "at_end"),
    [
        (OptimalTransport(SIGMA), (0.0, 1.0), (1.0, SIGMA)),
        (OptimalTransport(0.0), (0.0, 1.0), (1.0, 0.0)),
        (VarianceExploding(0.2, 5.0), (1.0, 5.0), (1.0, 0.2)),
        (CosineVP(), (0.0, 1.0), (1.0, 0.0)),
        (VariancePreserving(), (math.exp(-5.025), math.sqrt(1 - math.exp(-10.05))), (1.0, 0.0)),
    ],
)
def test_boundary_values(path, at_start, at_end):
    a, s, _, _ = path.coefficients(times(0, 1))
    torch.testing.assert_close(torch.stack([a, s], 1), times(*at_start, *at_end).reshape(2, 2), rtol=1e-12, atol=1e-15)


def test_cosine_reaches_its_ends_exactly():
    a, s, da, ds = CosineVP().coefficients(times(0, 1))
    assert a.tolist() == s.flip(0).tolist() == [0.0, 1.0]
    assert da[1] == ds[0] == 0


@pytest.mark.parametrize("path", [VariancePreserving(), VariancePreserving(3.0, 3.0), CosineVP()])
@given(t=inside)
@settings(max_examples=30, deadline=None)
def test_variance_is_preserved(path, t):
    a, s, da, ds = path.coefficients(times(t))
    assert float(a**2 + s**2) == pytest.approx(1, rel=1e-14)
    assert float(a * da + s * ds) == pytest.approx(0, abs=1e-12)


def test_vp_velocity_is_eq_19():
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 6, 3, generator=g, dtype=torch.float64)
    t = times(0, 0.2, 0.5, 0.8, 0.99, 1 - 1e-5)
    x, velocity = VariancePreserving().interpolate(x0, x1, t)
    T, dT = (v[:, None] for v in paper_T(1 - t))
    expected = -dT / 2 * (torch.exp(-T) * x - torch.exp(-T / 2) * x1) / (1 - torch.exp(-T))
    torch.testing.assert_close(velocity, expected, rtol=1e-8, atol=1e-8)


@given(t=st.floats(0, 1), sigma_min=st.sampled_from([0.0, 1e-4, 0.3]))
@settings(max_examples=50, deadline=None)
def test_ot_velocity_is_eq_23_for_every_t(t, sigma_min):
    """In float32 too: the quotient form of eq. 21 loses its digits near t = 1 (see the next test)."""
    x0, x1 = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    _, velocity = OptimalTransport(sigma_min).interpolate(x0, x1, times(t))
    torch.testing.assert_close(velocity, x1 - (1 - sigma_min) * x0, rtol=0, atol=1e-6)


def test_the_quotient_form_would_fail_the_test_above():
    x0, x1 = torch.randn(2, 1000, 4, generator=torch.Generator().manual_seed(0))
    t = 1 - 1e-5
    x_t, velocity = OptimalTransport().interpolate(x0, x1, times(t).expand(1000))
    quotient = (x1 - (1 - 1e-4) * x_t) / (1 - (1 - 1e-4) * t)
    assert (velocity - (x1 - (1 - 1e-4) * x0)).abs().max() < 1e-6
    assert (quotient - velocity).abs().max() > 1e-4


@pytest.mark.parametrize("distance", [2**-24, 2**-23, 1e-6, 1e-5, 1e-4, 1e-2])
def test_vp_keeps_its_digits_for_float32_times_near_one(distance):
    """The plain 1 - exp(-T) in float32 gives s = 0 and an infinite s' from 1 - 1e-7 on."""
    t = torch.tensor(1 - distance, dtype=torch.float32)
    assert t < 1
    with mpmath.workdps(60):
        T, dT = paper_T(1 - mpmath.mpf(t.item()))
        a, s = mpmath.exp(-T / 2), mpmath.sqrt(1 - mpmath.exp(-T))
        # T is built from decimal 0.1 and 20 rounded to double: relative 1e-15, well within the tolerance.
        expected = [a, s, a * dT / 2, -dT * mpmath.exp(-T) / (2 * s)]
        log_snr = 2 * mpmath.log(a / s)
    path = VariancePreserving()
    assert [float(v) for v in path.coefficients(t)] == pytest.approx([float(v) for v in expected], rel=1e-13)
    assert float(path.log_snr(t)) == pytest.approx(float(log_snr), rel=1e-13)


def exact_ot(t):
    return t, 1 - (1 - mpmath.mpf(1e-4)) * t, mpmath.mpf(1), -(1 - mpmath.mpf(1e-4))


def exact_vp(t):
    T, dT = paper_T(1 - t)
    a, s = mpmath.exp(-T / 2), mpmath.sqrt(-mpmath.expm1(-T))
    return a, s, a * dT / 2, -dT * mpmath.exp(-T) / (2 * s)


def exact_ve(t):
    s = mpmath.mpf(0.01) * mpmath.mpf(5000) ** (1 - t)
    return mpmath.mpf(1), s, mpmath.mpf(0), -mpmath.log(5000) * s


def exact_cosine(t):
    quarter = mpmath.pi / 2
    return (
        mpmath.sin(quarter * t),
        mpmath.cos(quarter * t),
        quarter * mpmath.cos(quarter * t),
        -quarter * mpmath.sin(quarter * t),
    )


@pytest.mark.parametrize(
    ("path", "exact"),
    [
        (OptimalTransport(), exact_ot),
        (VariancePreserving(), exact_vp),
        (VarianceExploding(), exact_ve),
        (CosineVP(), exact_cosine),
    ],
    ids=lambda v: v.__name__ if callable(v) else type(v).__name__,
)
@pytest.mark.parametrize(
    ("end", "distance"), [(0, 1e-30), (0, 1e-7), (0, 1e-3), (0, 0.25), (1, 2**-24), (1, 1e-6), (1, 1e-5), (1, 1e-3), (1, 0.25)]
)
def test_float32_times_near_both_ends_give_every_digit(path, exact, distance, end):
    """Against 60 digits; 1e-12 is for the straight path, whose s at the end is 1e-4 off a difference of ones."""
    t = torch.tensor(abs(end - distance), dtype=torch.float32)
    with mpmath.workdps(60):
        expected = [float(v) for v in exact(mpmath.mpf(t.item()))]
    assert [float(v) for v in path.coefficients(t)] == pytest.approx(expected, rel=1e-12, abs=1e-25)


def test_the_plain_form_of_vp_would_fail_the_test_above():
    path, t = VariancePreserving(), torch.tensor(1 - 2**-24, dtype=torch.float32)
    plain = torch.sqrt(1 - torch.exp(-path.integrated_beta(t)))
    assert abs(float(plain / path.coefficients(t).s) - 1) > 1e-10


def test_vp_ends_where_the_paper_ends_it():
    assert (VariancePreserving().t_min, VariancePreserving().t_max) == (0.0, 1 - 1e-5)
    assert VariancePreserving(epsilon=1e-3).t_max == 1 - 1e-3


@every_path
@given(t=inside)
@settings(max_examples=30, deadline=None)
def test_log_snr_and_its_inverse(path, t):
    c = path.coefficients(times(t))
    value = path.log_snr(times(t))
    torch.testing.assert_close(value, torch.log(c.a**2 / c.s**2), rtol=1e-9, atol=1e-9)
    assert value.dtype == torch.float64
    assert float(path.time_of_log_snr(value)) == pytest.approx(t, abs=1e-11)


@every_path
def test_log_snr_rises(path):
    t = torch.linspace(0.001, 0.998, 500, dtype=torch.float64)
    assert (path.log_snr(t).diff() > 0).all()


@pytest.mark.parametrize("path", [VariancePreserving(), VariancePreserving(3.0, 3.0)])
def test_closed_inverse_of_log_snr_agrees_with_bisection(path):
    log_snr = path.log_snr(torch.linspace(path.t_min, path.t_max, 100, dtype=torch.float64))
    closed, bisected = path.time_of_log_snr(log_snr), AffinePath.time_of_log_snr(path, log_snr)
    torch.testing.assert_close(closed, bisected, rtol=0, atol=1e-13)


@given(t=inside)
@settings(max_examples=30, deadline=None)
def test_diffusion_squared_in_closed_form(t):
    at, r = times(t), 1 - t
    assert float(VariancePreserving().diffusion_squared(at)) == pytest.approx(paper_T(r)[1], rel=1e-10)
    assert float(VariancePreserving().beta(at)) == pytest.approx(paper_T(r)[1], rel=1e-12)
    # VE: g^2 = d sigma^2 / dr with sigma(r) = 0.2 * 25^r.
    exploding = 2 * math.log(25) * 0.04 * 625**r
    assert float(VarianceExploding(0.2, 5.0).diffusion_squared(at)) == pytest.approx(exploding, rel=1e-10)
    assert float(OptimalTransport(0.0).diffusion_squared(at)) == pytest.approx(2 * r / t, rel=1e-10)
    assert float(CosineVP().diffusion_squared(at)) == pytest.approx(math.pi / math.tan(math.pi * t / 2), rel=1e-10)


def test_the_base_is_as_wide_as_the_path_starts():
    assert VarianceExploding(0.2, 5.0).base_std == 5.0
    for path in (OptimalTransport(), VariancePreserving(), CosineVP()):
        assert path.base_std == 1.0


def test_general_affine_reproduces_ot():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    ot = OptimalTransport(SIGMA)
    for mine, theirs in zip(OT_BY_HAND.coefficients(t), ot.coefficients(t), strict=True):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(OT_BY_HAND.diffusion_squared(t[1:]), ot.diffusion_squared(t[1:]), rtol=0, atol=0)
    assert (OT_BY_HAND.t_min, OT_BY_HAND.t_max, OT_BY_HAND.base_std) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("known", "a", "s"),
    [
        (OptimalTransport(SIGMA), lambda t: t, lambda t: 1 - (1 - SIGMA) * t),
        (
            VariancePreserving(),
            lambda t: torch.exp(-paper_T(1 - t)[0] / 2),
            lambda t: torch.sqrt(-torch.expm1(-paper_T(1 - t)[0])),
        ),
        (VarianceExploding(0.2, 5.0), torch.ones_like, lambda t: 0.2 * 25 ** (1 - t)),
        (CosineVP(), lambda t: torch.sin(math.pi * t / 2), lambda t: torch.cos(math.pi * t / 2)),
    ],
    ids=["ot", "vp", "ve", "cosine_vp"],
)
@pytest.mark.parametrize("grad", [True, False])
def test_automatic_derivatives_are_the_closed_forms(known, a, s, grad):
    t = torch.linspace(known.t_min, known.t_max, 40, dtype=torch.float64)
    path = GeneralAffine(a, s, t_min=known.t_min, t_max=known.t_max)
    with torch.set_grad_enabled(grad):
        found = path.coefficients(t)
    for mine, theirs in zip(found, known.coefficients(t), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
        assert not mine.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"da": lambda t: 2 * torch.ones_like(t)}, r"da\(0.05\) = 2 is not the derivative.* 1; leave it out"),
        ({"ds": torch.ones_like}, r"ds\(0.05\) = 1 is not the derivative.* -1; leave it out"),
        ({"a": lambda t: t**2, "da": lambda t: 2.001 * t}, r"da\(0.05\) = 0.10005 is not the derivative.* 0.1; leave it out"),
        ({"da": lambda t: torch.where(t > 0.92, 0.0, 1.0).double()}, r"da\(0.95\) = 0 is not the derivative.* 1; leave it out"),
        ({"a": lambda t: torch.log(t)}, r"a\(0\) is not finite; leave that time out with t_min and t_max"),
        ({"s": lambda t: 1 / (t - 0.5)}, r"s\(0.5\) is not finite"),
        ({"a": torch.sqrt}, r"da\(0\) is not finite"),
        ({"s": lambda t: torch.sqrt(1 - t)}, r"ds\(1\) is not finite"),
        ({"t_min": 1.0}, "t_min must be below t_max, not 1.0 and 1.0"),
        ({"noise_std": 0.0}, "noise_std must be positive, not 0.0"),
    ],
)
def test_a_general_path_that_cannot_be_right_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GeneralAffine(**({"a": lambda t: t, "s": lambda t: 1 - t} | change))


@pytest.mark.parametrize("one", [1.0, 1, torch.tensor(1.0)], ids=["float", "int", "tensor"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)])
def test_a_constant_may_be_a_number(one, shape):
    t = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for path in (
        GeneralAffine(lambda t: one, lambda t: 2 - t, ds=lambda t: -one, noise_std=2.0),
        Rescaled(GeneralAffine(lambda t: one, lambda t: 2 - t), lambda t: one),
    ):
        for found, expected in zip(path.coefficients(t), (1, 2 - t.double(), 0, -1), strict=True):
            assert found.dtype == torch.float64 and torch.equal(found, torch.ones(shape).double() * expected)
    with pytest.raises(ValueError, match=r"s\(0\) is not finite"):
        GeneralAffine(lambda t: one, lambda t: math.inf)


def test_an_infinite_derivative_is_left_out_by_ending_before():
    path = GeneralAffine(lambda t: t, lambda t: torch.sqrt(1 - t), t_max=0.99, noise_std=2.0)
    assert (path.t_max, path.base_std) == (0.99, 2.0)
    assert float(path.coefficients(times(0.99)).ds) == pytest.approx(-5, rel=1e-12)


@pytest.mark.parametrize("path", EVERY_PATH[:-1], ids=lambda p: f"{type(p).__name__}{EVERY_PATH.index(p)}")
def test_rescaled_is_the_product(path):
    """c a, c s and the derivatives of the products, by finite differences; log SNR and its inverse stay."""

    def factor(t):
        return 1.7 * torch.exp(-2 * t) + 0.3 * t**2

    scaled = Rescaled(path, factor)
    t, h = times(0.1, 0.3, 0.5, 0.7, 0.9), 1e-5
    a, s, da, ds = scaled.coefficients(t)
    plain, ahead, behind = (path.coefficients(v) for v in (t, t + h, t - h))
    torch.testing.assert_close(a, factor(t) * plain.a, rtol=1e-14, atol=0)
    torch.testing.assert_close(s, factor(t) * plain.s, rtol=1e-14, atol=0)
    for slope, after, before in ((da, ahead.a, behind.a), (ds, ahead.s, behind.s)):
        difference = (factor(t + h) * after - factor(t - h) * before) / (2 * h)
        torch.testing.assert_close(slope, difference, rtol=1e-7, atol=1e-7)
    assert torch.equal(scaled.log_snr(t), path.log_snr(t))
    torch.testing.assert_close(scaled.log_snr(t), torch.log(a**2 / s**2), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scaled.time_of_log_snr(scaled.log_snr(t)), t, rtol=0, atol=1e-11)
    torch.testing.assert_close(scaled.diffusion_squared(t), factor(t) ** 2 * path.diffusion_squared(t), rtol=1e-9, atol=1e-9)
    assert (scaled.t_min, scaled.t_max) == (path.t_min, path.t_max)
    assert scaled.base_std == pytest.approx(float(factor(times(path.t_min))) * path.base_std, rel=1e-14)


def test_vp_and_ve_are_rescalings_of_each_other():
    """VP divided by its a has s = sqrt(exp(T) - 1) beside a = 1: variance exploding."""
    vp = VariancePreserving()
    t = torch.linspace(0, vp.t_max, 30, dtype=torch.float64)
    a, s, da, ds = Rescaled(vp, lambda t: torch.exp(vp.integrated_beta(t) / 2)).coefficients(t)
    T, dT = paper_T(1 - t)
    sigma = torch.sqrt(torch.expm1(T))
    torch.testing.assert_close(a, torch.ones_like(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(da, torch.zeros_like(t), rtol=0, atol=1e-12)
    torch.testing.assert_close(s, sigma, rtol=1e-12, atol=0)
    torch.testing.assert_close(ds, -dT * torch.exp(T) / (2 * sigma), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("ot", {"sigma_min": -0.1}),
        ("ot", {"sigma_min": 1.0}),
        ("vp", {"beta_min": 0.0}),
        ("vp", {"beta_min": 3.0, "beta_max": 2.0}),
        ("vp", {"epsilon": 0.0}),
        ("vp", {"epsilon": 1.0}),
        ("ve", {"sigma_min": 0.0}),
        ("ve", {"sigma_min": 2.0, "sigma_max": 2.0}),
    ],
)
def test_impossible_parameters_are_refused(kind, parameters):
    with pytest.raises(ValueError, match=str(next(iter(parameters.values())))):
        PATHS[kind](**parameters)
