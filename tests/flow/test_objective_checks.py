"""The checks of an objective: combinations that are refused."""

import pytest
import torch

from fmbench.config.methods import METHODS, Method, Part
from fmbench.flow.general_paths import GeneralAffine
from fmbench.flow.objectives import build
from fmbench.flow.paths import PATHS
from fmbench.flow.prediction import PREDICTIONS, VELOCITY, Prediction, convert

VP = Part("vp")


OT = Part("ot")


@pytest.mark.parametrize(
    ("method", "what"),
    [
        (Method("m", OT, Part("velocity"), weighting=Part("likelihood")), "loss weight"),
        (Method("m", OT, Part("velocity"), time=Part("log_snr")), "density"),
        (Method("m", Part("ot", {"sigma_min": 0.0}), Part("velocity"), time=Part("log_snr"), t_min=0.1), "density"),
        (Method("m", Part("cosine_vp"), Part("velocity"), weighting=Part("likelihood")), "loss weight"),
        (Method("m", Part("ot", {"sigma_min": 0.0}), Part("score"), t_max=1.0), "target"),
        (Method("m", OT, Part("epsilon"), weighting=Part("velocity"), t_min=0.0), "loss weight"),
    ],
)
def test_combinations_that_are_infinite_somewhere_are_refused(method, what):
    with pytest.raises(ValueError, match=f"{what}.*not finite.*narrow it"):
        build(method)


SUM = Prediction("sum", lambda c, t: (torch.ones_like(t), torch.ones_like(t)))


DOUBLE = GeneralAffine(a=lambda t: 2 * t, s=lambda t: 1 - t)


LONG = GeneralAffine(a=lambda t: t / 2, s=lambda t: 1 - t / 2, t_max=2.0)


EARLY = GeneralAffine(a=lambda t: 1 + t, s=lambda t: -t, t_min=-1.0, t_max=0.0)


BACK_AND_FORTH = GeneralAffine(a=lambda t: t + 0.35 * torch.sin(2 * torch.pi * t), s=lambda t: 1 - t)


OVER = GeneralAffine(a=lambda t: t, s=lambda t: 1 - 1.02 * t)


TO_ZERO = GeneralAffine(a=lambda t: t**3, s=lambda t: torch.cos(torch.pi / 2 * t))


def part(name: str) -> Part:
    return Part(f"{__name__}:{name}")


@pytest.mark.parametrize(
    ("method", "prediction", "near"),
    [
        (Method("m", OT, Part("epsilon"), t_min=0.0), "epsilon", "0"),
        (Method("m", OT, Part("score"), t_min=0.0), "score", "0"),
        (Method("m", Part("cosine_vp"), Part("x"), t_max=1.0), "x", "1"),
        (Method("m", part("TO_ZERO"), Part("x"), t_max=1.0), "x", "1"),  # there s is 6e-17
        (Method("m", OT, part("SUM")), "sum", "0.51"),
    ],
)
def test_a_prediction_that_does_not_determine_the_velocity_is_refused(method, prediction, near):
    """Where x_t and what is predicted are one equation, at an end or between."""
    message = f"prediction {prediction} does not determine the velocity at or near t = {near}:.*narrow the interval with t_min"
    with pytest.raises(ValueError, match=message):
        build(method)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", [*PATHS, "TO_ZERO"])
def test_every_prediction_on_every_path_is_trained_where_it_determines_the_velocity(path, prediction):
    objective = build(Method("m", Part(path) if path in PATHS else part(path), Part(prediction)))
    objective.check_ends()
    t = torch.tensor([objective.t_min, objective.t_max], dtype=torch.float64)
    one = torch.ones(2, 1, dtype=torch.float64)
    assert convert(one, one, t, objective.path, objective.prediction, VELOCITY).isfinite().all()


@pytest.mark.parametrize("path", ["LONG", "EARLY"])
def test_a_path_of_other_times_is_refused(path):
    """Sampling to t = 1 would stop before its end, or not start."""
    with pytest.raises(ValueError, match=r"not within \[0, 1\].*narrow it with t_min and t_max"):
        build(Method("m", part(path), Part("velocity")))


def signed(t, path, network):
    return 0.5 - t.double()


def infinite_inside(t, path, network):
    return 1 / (t.double() - 0.5).abs()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Method("m", OT, Part("velocity"), part("signed")), "at t = 0.51 is -0.01, but must be finite and at least 0"),
        (Method("m", OT, Part("velocity"), part("infinite_inside")), "at t = 0.5 is inf, but must be finite and at least 0"),
        (Method("m", part("BACK_AND_FORTH"), Part("velocity"), Part("likelihood"), t_min=0.01, t_max=0.99), "is -0.0"),
    ],
)
def test_a_negative_or_infinite_weight_is_refused(method, message):
    with pytest.raises(ValueError, match=f"the loss weight .*{message}.*choose another weighting or path"):
        build(method)


def test_the_same_combinations_work_on_a_narrower_interval():
    for weighting, time in (("likelihood", "uniform"), ("uniform", "log_snr")):
        method = Method("m", OT, Part("velocity"), Part(weighting), Part(time), t_min=0.01, t_max=0.99)
        assert (build(method).t_min, build(method).t_max) == (0.01, 0.99)


@pytest.mark.parametrize(("t_min", "t_max"), [(None, 1.0), (-0.1, None), (0.5, 0.5), (0.7, 0.3)])
def test_intervals_beyond_the_path_or_empty_are_refused(t_min, t_max):
    with pytest.raises(ValueError, match="interval"):
        build(Method("m", VP, Part("velocity"), t_min=t_min, t_max=t_max))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t_min": 0.5}, "at t_min = 0.5 the path is not its noise"),
        ({"t_max": 0.9}, "at t_max = 0.9 the path is not the data"),
        ({"path": part("DOUBLE")}, "not the data: x_t = 2 x1 .*divide the path by its value of a there, so that a = 1"),
        ({"path": part("BACK_AND_FORTH")}, "after t = 0.43 a / s does not increase"),
        ({"path": part("OVER")}, "after t = 0.9[89] a / s does not increase, or a or s is not positive"),
    ],
)
def test_an_interval_that_sampling_could_not_use_is_refused(changes, message):
    """Sampling starts from N(0, I) at t_min, and what it ends with at t_max is called a sample."""
    objective = build(Method(**{"name": "m", "path": Part("ot"), "prediction": Part("velocity")} | changes))
    with pytest.raises(ValueError, match=message):
        objective.check_ends()


@pytest.mark.parametrize("method", [m for m in METHODS.values() if m.path is not None], ids=lambda m: m.name)
def test_every_method_starts_at_noise_and_ends_at_data(method):
    build(method).check_ends()
