import dataclasses
import math

import pytest
import torch

from fmbench.config.methods import METHODS, Method, Part
from fmbench.flow.noise_levels import noise_levels
from fmbench.flow.objectives import build
from fmbench.flow.prediction import PREDICTIONS

NETWORKED = [method for method in METHODS.values() if method.oracle is None and method.path is not None]
STRAIGHT = Part("ot", {"sigma_min": 0.0})


def levels(method: Method, n: int = 1000):
    return noise_levels(build(method), n)


def interpolated(found, log_snr: torch.Tensor) -> torch.Tensor:
    """Emphasis at given noise levels, log-linearly."""
    k = torch.searchsorted(found.log_snr, log_snr).clamp(1, len(found.t) - 1)
    share = (log_snr - found.log_snr[k - 1]) / (found.log_snr[k] - found.log_snr[k - 1])
    logs = found.emphasis.log()
    return ((1 - share) * logs[k - 1] + share * logs[k]).exp()


@pytest.mark.parametrize("method", NETWORKED, ids=lambda m: m.name)
def test_levels_rise_with_time_and_the_emphasis_is_one_at_zero(method):
    found = levels(method)
    path = build(method).path
    assert all(v.dtype == torch.float64 and v.shape == (1000,) for v in found)
    assert (found.t.diff() > 0).all() and (found.log_snr.diff() > 0).all()
    torch.testing.assert_close(found.log_snr, path.log_snr(found.t))
    assert float(interpolated(found, torch.zeros(1).double())) == pytest.approx(1, rel=1e-3)


def test_fm_on_the_straight_path_is_exp_of_minus_half_lambda():
    """Weight (1 + e^(-lambda/2))^2 times density t (1 - t) / 2."""
    found = levels(Method("m", STRAIGHT, Part("velocity")))
    snr = found.log_snr
    torch.testing.assert_close(found.weight, (1 + torch.exp(-snr / 2)) ** 2, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.density, found.t * (1 - found.t) / 2, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.emphasis, torch.exp(-snr / 2), rtol=1e-5, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_weight_is_the_factor_of_the_prediction(prediction):
    """The plain squared error of each on the cosine path, over lambda: a^2 = 1 / (1 + e^-lambda)."""
    found = levels(Method("m", Part("cosine_vp"), Part(prediction)))
    ratio = torch.exp(-found.log_snr)
    a_squared, s_squared = 1 / (1 + ratio), ratio / (1 + ratio)
    expected = {
        "epsilon": torch.ones_like(ratio),
        "x": ratio,
        "velocity": (math.pi / 2) ** 2 * a_squared * (1 + ratio) ** 2,
        "score": 1 / s_squared,
        "v": a_squared * (1 + ratio) ** 2,
        # lambda(sigma) of Karras et al. 2022, which is 1 / c_out^2, turns the error of the data into that of F.
        "edm": ratio * (ratio + 0.25) / (ratio * 0.25),
    }[prediction]
    torch.testing.assert_close(found.weight, expected, rtol=1e-8, atol=0)


def test_ddpm_and_score_matching_care_about_the_same_levels():
    ddpm, score_matching = levels(METHODS["ddpm"]), levels(METHODS["score_matching"])
    torch.testing.assert_close(ddpm.log_snr, score_matching.log_snr)
    torch.testing.assert_close(ddpm.emphasis, score_matching.emphasis, rtol=1e-9, atol=0)
    torch.testing.assert_close(ddpm.weight, torch.ones(1000).double(), rtol=1e-12, atol=0)


def test_scoreflow_is_flat_and_fm_on_vp_lies_between():
    """beta sigma^-2 of the noise error times d t / d lambda: constant. The velocity's weight is beta^2 / (4 sigma^2)."""
    scoreflow, fm = levels(METHODS["scoreflow"]), levels(METHODS["fm_diffusion"])
    torch.testing.assert_close(scoreflow.emphasis, torch.ones(1000).double(), rtol=1e-6, atol=0)
    path = build(METHODS["fm_diffusion"]).path
    beta, sigma = path.beta(fm.t), path.coefficients(fm.t).s
    torch.testing.assert_close(fm.weight, beta**2 / (4 * sigma**2), rtol=1e-9, atol=0)
    torch.testing.assert_close(fm.emphasis / beta, (fm.emphasis / beta)[:1].expand(1000), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("path", "t_min", "t_max"),
    [(STRAIGHT, None, None), (Part("vp"), None, None), (Part("ve"), None, None), (Part("cosine_vp"), 0.01, 0.99)],
    ids=["ot", "vp", "ve", "cosine_vp"],
)
@pytest.mark.parametrize("time", [Part("uniform"), Part("logit_normal", {"mean": 0.5, "std": 0.8})], ids=lambda p: p.name)
def test_the_density_of_levels_integrates_to_one(path, t_min, t_max, time):
    """Up to the 2 / n beyond the outermost quantiles and the trapezoids between."""
    found = levels(Method("m", path, Part("velocity"), time=time, t_min=t_min, t_max=t_max), 5000)
    assert float(torch.trapezoid(found.density, found.log_snr)) == pytest.approx(1, abs=2e-3)
    assert (found.density > 0).all()


@pytest.mark.parametrize("path", [Part("vp"), Part("ve"), Part("ot", {"sigma_min": 0.1})], ids=lambda p: p.name)
def test_log_snr_times_have_a_flat_density(path):
    found = levels(Method("m", path, Part("velocity"), time=Part("log_snr"), t_min=0.01))
    ends = build(Method("m", path, Part("velocity"), t_min=0.01))
    low, high = ends.path.log_snr(torch.tensor([ends.t_min, ends.t_max], dtype=torch.float64))
    torch.testing.assert_close(found.density, (1 / (high - low)).expand(1000), rtol=1e-9, atol=0)
    spacing = found.log_snr.diff()
    torch.testing.assert_close(spacing, spacing.mean().expand(999), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["ddpm", "scoreflow", "fm_diffusion"])
@pytest.mark.parametrize("time", [Part("log_snr"), Part("logit_normal", {"mean": -0.5, "std": 1.5})], ids=lambda p: p.name)
def test_a_corrected_distribution_has_the_emphasis_of_the_uniform_one(name, time):
    """Without the correction it does not. Both are compared at the levels between the outer hundredths of the draws."""
    method = METHODS[name]
    uniform = levels(method)
    corrected = levels(dataclasses.replace(method, time=Part(time.name, time.parameters | {"corrected": True})))
    plain = levels(dataclasses.replace(method, time=time))
    torch.testing.assert_close(corrected.log_snr, plain.log_snr)
    low = max(float(v.log_snr[10]) for v in (uniform, corrected))
    high = min(float(v.log_snr[-10]) for v in (uniform, corrected))
    at = torch.linspace(low, high, 50, dtype=torch.float64)
    torch.testing.assert_close(interpolated(corrected, at), interpolated(uniform, at), rtol=5e-3, atol=0)
    assert (interpolated(plain, at) / interpolated(uniform, at)).log().abs().max() > 0.5


def test_ends_of_infinite_level_do_not_come_in():
    found = levels(Method("m", Part("cosine_vp"), Part("velocity")), 7)
    torch.testing.assert_close(found.t, (torch.arange(7).double() + 0.5) / 7, rtol=1e-12, atol=0)
    assert found.log_snr.isfinite().all()
