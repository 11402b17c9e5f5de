"""Weighted regression losses: every method of the benchmark is one :class:`Objective`.

The loss of a sample is w(t) / p(t) |net(t, x_t) - target|^2 averaged over dimensions, with the target
c1(t) x1 + c0(t) x0 of the prediction, the weighting w, and 1/p(t) only where the time distribution is asked to be
corrected for. Conditional flow matching is eq. 9 of Lipman et al. 2023; the others are eq. 43 and 45.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.methods import Method
from fmbench.config.plugins import resolve
from fmbench.flow.paths import PATHS, AffinePath
from fmbench.flow.prediction import EPSILON, PREDICTIONS, VELOCITY, Prediction, loss_weight, usable_interval

Weighting = Callable[[Tensor, AffinePath, Prediction], Tensor]
"""w(t) from times (B,), the path and the network's prediction; float64, shape (B,)."""

WEIGHTINGS: dict[str, Weighting] = {
    # The plain squared error of whatever the network puts out.
    "uniform": lambda t, path, network: torch.ones_like(t, dtype=torch.float64),
    # The error measured as one of the noise, or of the velocity, whatever the network puts out.
    "epsilon": lambda t, path, network: loss_weight(t, path, EPSILON, network),
    "velocity": lambda t, path, network: loss_weight(t, path, VELOCITY, network),
    # s(t)^2: score matching's weight (Song et al. 2020; eq. 43).
    "sigma_squared": lambda t, path, network: path.coefficients(t).s ** 2,
    # g(1 - t)^2: ScoreFlow's likelihood weight, beta(1 - t) on the VP path (Song et al. 2021).
    "likelihood": lambda t, path, network: path.diffusion_squared(t),
}


class TimeDistribution:
    """A density on [t_min, t_max], drawn by its inverse distribution function.

    Args:
        corrected: divide the loss by the density (relative to the uniform one), so that the distribution changes
            the variance of the estimate and not what is estimated.
    """

    def __init__(self, corrected: bool = False) -> None:
        if not isinstance(corrected, bool):
            raise ValueError(f"corrected must be true or false, without quotes, not {corrected!r}")
        self.corrected = corrected

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        """Times and their density relative to the uniform one, both float64 of shape (B,), from uniforms u (B,)."""
        raise NotImplementedError


class UniformTime(TimeDistribution):
    """t uniform on the interval: what the paper uses for all five methods."""

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        t = t_min + (t_max - t_min) * u.double()
        return t, torch.ones_like(t)


class LogSNRTime(TimeDistribution):
    """t such that log SNR is uniform between its values at the ends.

    On the VP path the density is proportional to beta(1 - t) / sigma_t^2 and the inverse is closed-form: with
    ``corrected: true`` this is ScoreFlow's importance sampler (Song et al. 2021, appendix A.3), which leaves the
    likelihood-weighted loss with a constant weight on the noise error.
    """

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        # Filled where they are: copied there, they would be waited for at each step.
        ends = path.log_snr(torch.cat([u.new_full((1,), t, dtype=torch.float64) for t in (t_min, t_max)]))
        low, high = ends[0], ends[1]
        t = path.time_of_log_snr(low + (high - low) * u.double()).clamp(t_min, t_max)
        c = path.coefficients(t)
        rate = 2 * (c.da / c.a - c.ds / c.s)
        return t, rate * (t_max - t_min) / (high - low)


class LogitNormalTime(TimeDistribution):
    """logit of (t - t_min) / (t_max - t_min) normal with ``mean`` and ``std`` (Esser et al. 2024, eq. 19).

    Their time runs from data to noise, so their m is minus this mean: a positive mean here favours times near the data.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, corrected: bool = False) -> None:
        super().__init__(corrected)
        if std <= 0:
            raise ValueError(f"std must be positive, not {std}")
        self.mean, self.std = mean, std

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        # A uniform of exactly 0 would be t = t_min with density 0.
        z = torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9))
        logit = self.mean + self.std * z
        fraction = torch.sigmoid(logit)
        normal = torch.exp(-(z**2) / 2) / (self.std * (2 * torch.pi) ** 0.5)
        return t_min + (t_max - t_min) * fraction, normal / (fraction * (1 - fraction))


TIME_DISTRIBUTIONS: dict[str, type[TimeDistribution]] = {
    "uniform": UniformTime,
    "log_snr": LogSNRTime,
    "logit_normal": LogitNormalTime,
}


_ENDS = 0.05
"""How far, relatively, a path may be from noise where sampling starts, and from data where it ends."""
_POINTS = 101
"""Times at which an objective is held to what must be so on its whole interval, both ends among them."""
_ROUNDING = 1e-12
"""What is zero but for rounding."""


@dataclass(frozen=True)
class Objective:
    """Everything a method says about training and sampling.

    Raises:
        ValueError: the interval is empty or not within the path's and [0, 1]; at an end of it target, weight or density of t is
            not finite; or somewhere on it a weight is not a number of zero or more, or the prediction does not give the velocity.
    """

    path: AffinePath
    prediction: Prediction
    weighting: Weighting
    times: TimeDistribution
    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        if not self.path.t_min <= self.t_min < self.t_max <= self.path.t_max:
            raise ValueError(
                f"the interval [{self.t_min}, {self.t_max}] is not within the path's [{self.path.t_min}, {self.path.t_max}]"
            )
        if self.t_min < 0 or self.t_max > 1:
            raise ValueError(
                f"the interval [{self.t_min}, {self.t_max}] is not within [0, 1], from noise to data; "
                "measure the path's time in other units, or narrow it with t_min and t_max"
            )
        ends = torch.tensor([self.t_min, self.t_max], dtype=torch.float64)
        c1, c0 = self.prediction.weights(self.path.coefficients(ends), ends)
        _, density = self.times.draw(torch.tensor([0.0, 1.0]), self.path, self.t_min, self.t_max)
        checks = {
            "the prediction's target": torch.stack([c1, c0]),
            "the loss weight": self.weighting(ends, self.path, self.prediction),
            # A density of zero is as bad as an infinite one: it says that log SNR has no end on this interval.
            "the density of t": torch.stack([density, 1 / density]),
        }
        for what, values in checks.items():
            if not torch.isfinite(values).all():
                raise ValueError(
                    f"{what} is not finite at an end of the interval [{self.t_min}, {self.t_max}]; "
                    "narrow it with t_min and t_max, or choose another weighting or time distribution"
                )

        self._check_inside(torch.linspace(self.t_min, self.t_max, _POINTS, dtype=torch.float64))

    def _check_inside(self, t: Tensor) -> None:
        # The determinant as the sine of the angle between (a, s) and (c1, c0), which knows no units.
        c = self.path.coefficients(t)
        c1, c0 = self.prediction.weights(c, t)
        sine = self.prediction.determinant(self.path, t) / (torch.hypot(c.a, c.s) * torch.hypot(c1, c0))
        # The velocity itself needs no conversion.
        gives = (sine * sine[0].sign() > _ROUNDING) | (self.prediction is VELOCITY)
        if not gives.all():
            raise ValueError(
                f"the prediction {self.prediction.name} does not give the velocity at or near t = {_first(t, ~gives):g}: its "
                "determinant there is zero, of another sign than before, or not finite; narrow the interval with t_min and "
                "t_max, or choose another prediction"
            )
        weight = self.weighting(t, self.path, self.prediction)
        wrong = ~weight.isfinite() | (weight < -_ROUNDING)
        if wrong.any():
            raise ValueError(
                f"the loss weight at t = {_first(t, wrong):g} is {_first(weight, wrong):g} and not a number of zero or more; "
                "choose another weighting or path"
            )

    def check_ends(self) -> None:
        """Hold the interval to what sampling takes for granted: noise alone at its start, data alone and unscaled at its end, and
        more of the data against the noise all the way.

        Raises:
            ValueError: it is not so; the samples and the likelihood would mean nothing.
        """
        c = self.path.coefficients(torch.tensor([self.t_min, self.t_max], dtype=torch.float64))
        if abs(c.s[0] / self.path.base_std - 1) > _ENDS or c.a[0].abs() / self.path.base_std > _ENDS:
            raise ValueError(
                f"at t_min = {self.t_min} the path is not its noise: x_t = {c.a[0]:.3g} x1 + {c.s[0]:.3g} x0, "
                f"and sampling starts from noise of standard deviation {self.path.base_std:g}; start nearer to t = 0"
            )
        if c.s[1].abs() > _ENDS * c.a[1] or abs(c.a[1] - 1) > _ENDS:
            raise ValueError(
                f"at t_max = {self.t_max} the path is not the data: x_t = {c.a[1]:.3g} x1 + {c.s[1]:.3g} x0; "
                "end nearer to t = 1, or divide the path by what it has there instead of a = 1"
            )
        t = torch.linspace(self.t_min, self.t_max, _POINTS, dtype=torch.float64)
        a, s, _, _ = self.path.coefficients(t)
        # a / s as a product, since s may be zero at the end.
        rises = (a[1:] * s[:-1] > a[:-1] * s[1:]) & (a[1:] > 0) & (s[:-1] > 0)
        if not rises.all():
            raise ValueError(
                f"the path does not go from noise to data all the way: after t = {_first(t[:-1], ~rises):g} a / s does not "
                "increase, or a or s is not positive; choose other functions"
            )

    def loss(self, network: nn.Module | Callable[[Tensor, Tensor], Tensor], x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        """The loss of each sample: eq. 9 of Lipman et al. 2023 for the velocity, eq. 43 and 45 for the others.

        Args:
            network: called as network(t, x_t), t of shape (B,) in the type of x1.
            x0: noise N(0, I), shape (B, *).
            x1: data, shape (B, *).
            u: uniforms on [0, 1) that become times, shape (B,).

        Returns:
            w(t) / p(t) times the mean square over dimensions, shape (B,), in the type of x1.
        """
        t, density = self.times.draw(u, self.path, self.t_min, self.t_max)
        weight = self.weighting(t, self.path, self.prediction)
        if self.times.corrected:
            weight = weight / density
        x_t, velocity = self.path.interpolate(x0, x1, t)
        target = velocity if self.prediction is VELOCITY else self.prediction.target(self.path, x0, x1, t)
        output = network(t.to(x1.dtype), x_t)
        if output.shape != target.shape:  # it would broadcast without a word
            raise ValueError(f"the network puts out shape {tuple(output.shape)} for samples of shape {tuple(x_t.shape)}")
        error = output - target
        return weight.to(x1.dtype) * error.flatten(1).square().mean(1)


def _first(values: Tensor, where: Tensor) -> float:
    return values[where][0].item()


def build(method: Method) -> Objective:
    """The objective of a method; parameters go to the constructors of path and time distribution.

    Raises:
        ValueError: an unknown name, a wrong parameter, or a combination that is not finite somewhere.
    """
    path = _make(PATHS, "path", method.path.name, method.path.parameters)
    prediction = resolve(PREDICTIONS, "prediction", method.prediction.name)
    times = _make(TIME_DISTRIBUTIONS, "time distribution", method.time.name, method.time.parameters)
    for what, thing, kind in (
        ("path", path, AffinePath),
        ("prediction", prediction, Prediction),
        ("time", times, TimeDistribution),
    ):
        if not isinstance(thing, kind):
            raise ValueError(f"{what} must be a {kind.__module__}.{kind.__name__}, not a {type(thing).__name__}")
    t_min, t_max = usable_interval(path, prediction)
    return Objective(
        path=path,
        prediction=prediction,
        weighting=resolve(WEIGHTINGS, "weighting", method.weighting.name),
        times=times,
        t_min=t_min if method.t_min is None else method.t_min,
        t_max=t_max if method.t_max is None else method.t_max,
    )


def _make(registry: dict[str, Any], what: str, name: str, parameters: dict[str, Any]) -> Any:
    factory = resolve(registry, what, name)
    if not callable(factory):  # a dotted name may give a ready-made object
        return factory
    try:
        return factory(**parameters)
    except TypeError as error:
        raise ValueError(f"{what} {name!r} does not take the parameters {parameters}: {error}") from None
