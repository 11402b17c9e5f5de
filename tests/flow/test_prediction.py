import itertools

import pytest
import torch
from draws import draw
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, SCORE, VELOCITY, Prediction, V, X, convert, loss_weight, usable_interval

EVERY_PATH = [
    OptimalTransport(0.1),
    OptimalTransport(0.0),
    VariancePreserving(),
    VarianceExploding(0.2, 5.0),
    CosineVP(),
]
every_path = pytest.mark.parametrize("path", EVERY_PATH, ids=lambda p: f"{type(p).__name__}{EVERY_PATH.index(p)}")
every_pair = pytest.mark.parametrize(
    ("source", "target"), list(itertools.product(PREDICTIONS.values(), repeat=2)), ids=lambda p: p.name
)
inside = st.floats(0.02, 0.98)
some_seed = st.integers(0, 2**32 - 1)


def test_the_registry_goes_by_the_names():
    assert all(name == prediction.name for name, prediction in PREDICTIONS.items())


@every_path
def test_targets_are_the_table_of_the_paper_notes(path):
    x0, x1 = draw(0, 2, 4, 1, 2, 3)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    a, s, _, _ = (v.reshape(-1, 1, 1, 1) for v in path.coefficients(t))
    _, velocity = path.interpolate(x0, x1, t)
    expected = {"epsilon": x0, "x": x1, "velocity": velocity, "score": -x0 / s, "v": a * x0 - s * x1}
    sigma = s / a  # EDM's F by their Table 1, with sigma_data = 0.5 and y = x_t / a
    y, skip, out = x1 + sigma * x0, 0.25 / (sigma**2 + 0.25), 0.5 * sigma / torch.sqrt(sigma**2 + 0.25)
    expected["edm"] = (x1 - skip * y) / out
    for name, prediction in PREDICTIONS.items():
        torch.testing.assert_close(prediction.target(path, x0, x1, t), expected[name], rtol=1e-12, atol=1e-12)
    # The solution of the 2x2 system by Cramer's rule has this determinant, whatever the names.
    for prediction in PREDICTIONS.values():
        c1, c0 = prediction.weights(path.coefficients(t), t)
        matrix = torch.stack([torch.stack([a.flatten(), s.flatten()], 1), torch.stack([c1, c0], 1)], 1)
        torch.testing.assert_close(prediction.determinant(path, t), torch.linalg.det(matrix), rtol=1e-10, atol=1e-12)


@every_path
def test_the_score_is_the_gradient_of_the_log_density(path):
    x0, x1 = draw(1, 2, 3, 2)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x_t = path.interpolate(x0, x1, t)[0].requires_grad_()
    c = path.coefficients(t)
    density = torch.distributions.Normal(c.a[:, None] * x1, c.s[:, None])
    (gradient,) = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)
    torch.testing.assert_close(SCORE.target(path, x0, x1, t), gradient, rtol=1e-9, atol=1e-9)


@every_path
@every_pair
@given(t=inside, seed=some_seed)
@settings(max_examples=8, deadline=None)
def test_the_target_of_one_converts_to_the_target_of_the_other(path, source, target, t, seed):
    x0, x1 = draw(seed, 2, 2, 3)
    t = torch.tensor([t, 0.5], dtype=torch.float64)
    x_t, _ = path.interpolate(x0, x1, t)
    converted = convert(source.target(path, x0, x1, t), x_t, t, path, source, target)
    torch.testing.assert_close(converted, target.target(path, x0, x1, t), rtol=1e-7, atol=1e-7)


@every_path
@every_pair
@given(t=inside, seed=some_seed)
@settings(max_examples=8, deadline=None)
def test_there_and_back_for_any_output_of_a_network(path, source, target, t, seed):
    p, x_t = draw(seed, 2, 2, 3)
    t = torch.tensor(t, dtype=torch.float64)
    there = convert(p, x_t, t, path, source, target)
    torch.testing.assert_close(convert(there, x_t, t, path, target, source), p, rtol=1e-7, atol=1e-7)


@every_path
@every_pair
@given(t=inside, seed=some_seed)
@settings(max_examples=8, deadline=None)
def test_loss_weight_is_what_an_error_turns_into(path, source, target, t, seed):
    x_t, p, error = draw(seed, 3, 1, 3)
    t = torch.tensor([t], dtype=torch.float64)
    moved = convert(p + error, x_t, t, path, source, target) - convert(p, x_t, t, path, source, target)
    weight = loss_weight(t, path, measured=target, network=source)
    torch.testing.assert_close(moved.square().sum(1), weight * error.square().sum(1), rtol=1e-6, atol=1e-9)


@given(t=inside)
@settings(max_examples=30, deadline=None)
def test_loss_weights_in_closed_form(t):
    t = torch.tensor([t], dtype=torch.float64)
    for path in EVERY_PATH:
        c, snr = path.coefficients(t), path.log_snr(t)
        torch.testing.assert_close(loss_weight(t, path, EPSILON, SCORE), c.s**2, rtol=1e-10, atol=0)
        torch.testing.assert_close(loss_weight(t, path, X, EPSILON), torch.exp(-snr), rtol=1e-9, atol=0)
    for path in (VariancePreserving(), CosineVP()):
        c, snr = path.coefficients(t), path.log_snr(t)
        expected = c.a**2 * (1 + torch.exp(-snr)) ** 2
        torch.testing.assert_close(loss_weight(t, path, V, EPSILON), expected, rtol=1e-9, atol=0)
    straight = OptimalTransport(0.0)
    expected = (1 + torch.exp(-straight.log_snr(t) / 2)) ** 2
    torch.testing.assert_close(loss_weight(t, straight, VELOCITY, EPSILON), expected, rtol=1e-9, atol=0)


# Any path, any two predictions, any time between the ends.

unit = st.floats(-1, 1).map(lambda v: round(v, 3))
plain_paths = st.one_of(
    st.builds(OptimalTransport, st.floats(0, 0.5)),
    st.builds(VariancePreserving, st.floats(0.05, 2), st.floats(2, 20)),
    st.builds(VarianceExploding, st.floats(0.01, 0.5), st.floats(1, 50)),
    st.just(CosineVP()),
    st.builds(
        lambda p, q: GeneralAffine(lambda t: t**p, lambda t: (1 - t) ** q + 0.01 * (1 - t**2)), st.floats(1, 3), st.floats(1, 3)
    ),
)
any_path = st.one_of(plain_paths, st.builds(lambda path, k: Rescaled(path, lambda t: torch.exp(k * t)), plain_paths, unit))


def custom(c1: float, c0: float, slope: float) -> Prediction:
    """Weights that depend on the path's coefficients and on the time itself."""
    return Prediction("custom", lambda c, t: (c1 + slope * torch.sin(t), c0 - slope * c.a * t))


any_prediction = st.one_of(st.sampled_from(list(PREDICTIONS.values())), st.builds(custom, unit, unit, unit))


def determined(path, prediction: Prediction, t: torch.Tensor) -> bool:
    """Far enough from a prediction that says nothing new beside x_t."""
    c = path.coefficients(t)
    c1, c0 = prediction.weights(c, t)
    size = torch.hypot(c.a, c.s) * torch.hypot(c1, c0)
    return bool((prediction.determinant(path, t).abs() > 0.02 * size).all())


@given(path=any_path, source=any_prediction, target=any_prediction, t=inside, seed=some_seed)
@settings(max_examples=150, deadline=None)
def test_round_trips_between_any_two_predictions(path, source, target, t, seed):
    times = torch.tensor([t, 0.5, 0.1], dtype=torch.float64)
    assume(determined(path, source, times) and determined(path, target, times))
    x0, x1, p = draw(seed, 3, 3, 1, 2)
    x_t, _ = path.interpolate(x0, x1, times)
    there = convert(source.target(path, x0, x1, times), x_t, times, path, source, target)
    torch.testing.assert_close(there, target.target(path, x0, x1, times), rtol=1e-6, atol=1e-6)
    # Whatever a network puts out, not only targets.
    there = convert(p, x_t, times, path, source, target)
    torch.testing.assert_close(convert(there, x_t, times, path, target, source), p, rtol=1e-6, atol=1e-6)


@given(path=any_path, one=any_prediction, other=any_prediction, third=any_prediction, t=inside)
@settings(max_examples=150, deadline=None)
def test_loss_weights_are_ratios(path, one, other, third, t):
    t = torch.tensor([t, 0.6], dtype=torch.float64)
    assume(all(determined(path, p, t) for p in (one, other, third)))
    there, back = loss_weight(t, path, one, other), loss_weight(t, path, other, one)
    torch.testing.assert_close(there * back, torch.ones_like(t), rtol=1e-11, atol=0)
    torch.testing.assert_close(there * loss_weight(t, path, other, third), loss_weight(t, path, one, third), rtol=1e-11, atol=0)


@given(path=any_path, t=inside, seed=some_seed)
@settings(max_examples=60, deadline=None)
def test_an_error_of_the_noise_is_these_errors_of_the_others(path, t, seed):
    """The factors of the paper notes, seen in converted outputs: lambda = log a^2 / s^2, and x_t held fixed."""
    x_t, eps, error = draw(seed, 3, 1, 4)
    t = torch.tensor([t], dtype=torch.float64)

    def grown(path, target):
        moved = convert(eps + error, x_t, t, path, EPSILON, target) - convert(eps, x_t, t, path, EPSILON, target)
        return moved.square().sum() / error.square().sum()

    def noise_to_signal(path):
        a, s, _, _ = path.coefficients(t)
        return (s / a) ** 2

    straight, cosine = OptimalTransport(0.0), CosineVP()
    torch.testing.assert_close(grown(path, X)[None], noise_to_signal(path), rtol=1e-7, atol=0)
    for p in (cosine, VariancePreserving()):
        expected = p.coefficients(t).a ** 2 * (1 + noise_to_signal(p)) ** 2
        torch.testing.assert_close(grown(p, V)[None], expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(grown(straight, VELOCITY)[None], (1 + noise_to_signal(straight).sqrt()) ** 2, rtol=1e-7, atol=0)


def test_score_to_velocity_on_vp_is_eq_46():
    """The paper's s is minus the score, so that ddpm's noise enters as s = eps / sigma."""
    score, x = draw(2, 2, 5, 3)
    t = torch.tensor([0, 0.3, 0.6, 0.9, 1 - 1e-5], dtype=torch.float64)
    path = VariancePreserving()
    r = (1 - t)[:, None]
    dT, sigma = 0.1 + 19.9 * r, torch.sqrt(1 - torch.exp(-(0.1 * r + 19.9 * r**2 / 2)))
    expected = -dT / 2 * (-score - x)
    torch.testing.assert_close(convert(score, x, t, path, SCORE, VELOCITY), expected, rtol=1e-9, atol=1e-9)
    noise = -sigma * score
    expected = -dT / 2 * (noise / sigma - x)
    torch.testing.assert_close(convert(noise, x, t, path, EPSILON, VELOCITY), expected, rtol=1e-6, atol=1e-6)


@every_path
def test_score_to_velocity_is_the_probability_flow_of_the_paths_sde(path):
    """u = (a'/a) x + g^2/2 score, in this direction of time, on every affine path."""
    score, x = draw(3, 2, 4, 3)
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    c = path.coefficients(t)
    expected = (c.da / c.a)[:, None] * x + path.diffusion_squared(t)[:, None] / 2 * score
    torch.testing.assert_close(convert(score, x, t, path, SCORE, VELOCITY), expected, rtol=1e-9, atol=1e-9)


def test_float32_states_are_converted_with_float64_coefficients():
    """At t = 1 - 1e-5 on VP the coefficients are far beyond float32's digits, but the product is not."""
    eps, x = draw(4, 2, 1, 64)
    path, t = VariancePreserving(), torch.tensor([1 - 1e-5], dtype=torch.float64)
    reference = convert(eps, x, t, path, EPSILON, VELOCITY)
    single = convert(eps.float(), x.float(), t, path, EPSILON, VELOCITY)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), reference, rtol=0, atol=2e-6 * float(reference.abs().max()))


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
def test_converting_to_itself_is_exact_even_where_singular(prediction):
    p, x = draw(5, 2, 2, 3)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.equal(convert(p, x, t, OptimalTransport(0.0), prediction, prediction), p)


FULL, LATE, EARLY, BOTH = (0.0, 1.0), (1e-3, 1.0), (0.0, 1 - 1e-3), (1e-3, 1 - 1e-3)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (OptimalTransport(1e-4), {"epsilon": LATE, "x": EARLY, "velocity": FULL, "score": LATE, "v": FULL, "edm": LATE}),
        (OptimalTransport(0.0), {"epsilon": LATE, "x": EARLY, "velocity": FULL, "score": BOTH, "v": FULL, "edm": BOTH}),
        (OptimalTransport(0.1), {"epsilon": LATE, "x": FULL, "velocity": FULL, "score": LATE, "v": FULL, "edm": LATE}),
        (VariancePreserving(), dict.fromkeys(PREDICTIONS, (0.0, 1 - 1e-5))),
        (VarianceExploding(), dict.fromkeys(PREDICTIONS, FULL)),
        (CosineVP(), {"epsilon": LATE, "x": EARLY, "velocity": FULL, "score": BOTH, "v": FULL, "edm": BOTH}),
    ],
    ids=["ot", "ot_sharp", "ot_wide", "vp", "ve", "cosine_vp"],
)
def test_usable_interval(path, expected):
    for name, prediction in PREDICTIONS.items():
        assert usable_interval(path, prediction) == expected[name]
