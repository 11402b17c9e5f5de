"""Weighted regression losses: every method of the benchmark is one :class:`Objective`.

The loss of a sample is w(t) / p(t) |net(t, x_t) - target|^2 averaged over dimensions. The prediction sets the
target c1(t) x1 + c0(t) x0, and the weighting sets w. The loss is divided by the density p(t) of the training times only if the
method asks for that correction. Conditional flow matching is eq. 9 of Lipman et al. 2023; the other losses are eq. 43 and 45.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.methods import Method, Part
from fmbench.config.plugins import resolve
from fmbench.flow.broadcast import check_shape
from fmbench.flow.couplings import COUPLINGS, INDEPENDENT, Coupling, given
from fmbench.flow.marginal import Known, means
from fmbench.flow.mean_velocity import JUMPS, MeanVelocity, check_jumps
from fmbench.flow.paths import PATHS, AffinePath
from fmbench.flow.prediction import FAMILIES, PREDICTIONS, SIGMA_DATA, VELOCITY, Prediction, usable_interval
from fmbench.flow.starts import NOISE, STARTS, Start
from fmbench.flow.training_times import TIME_DISTRIBUTIONS, TimeDistribution
from fmbench.flow.weighting import WEIGHTINGS, Weighting

_END_TOLERANCE = 0.05
"""How far, relatively, a path may be from noise where sampling starts, and from data where it ends."""
_CHECKED_TIMES = 101
"""The number of times, both ends included, at which an objective checks what must hold on its whole interval."""
_ROUNDING = 1e-12
"""Numbers up to this size count as zero."""


@dataclass(frozen=True)
class Objective:
    """Everything a method says about training and sampling.

    Attributes:
        marginal: whether the method asks for the marginal target: the mean of the conditional one given x_t, which by Theorem 2
            has the same optimum (:mod:`fmbench.flow.marginal`).
        data: what the marginal target is computed from, once it is known; None for the conditional target of each pair.

    Raises:
        ValueError: the interval is empty, or is not within the path's interval and [0, 1]; target, weight or density of t is not
            finite at an end of it; or somewhere on it a weight is negative or not finite, or the prediction does not determine
            the velocity; or path, prediction, coupling, marginal target or jumps do not go together.
    """

    path: AffinePath
    prediction: Prediction
    weighting: Weighting
    times: TimeDistribution
    t_min: float
    t_max: float
    start: Start = NOISE
    coupling: Coupling = INDEPENDENT
    marginal: bool = False
    data: Known | None = None
    jumps: MeanVelocity | None = None

    def __post_init__(self) -> None:
        self._check_interval()
        self._check_start()
        self._check_target()
        plain = self.prediction is VELOCITY and self.weighting is WEIGHTINGS["uniform"]
        check_jumps(self.jumps, plain and not self.times.corrected and not self.marginal)
        self._check_finite_ends()
        t = torch.linspace(self.t_min, self.t_max, _CHECKED_TIMES, dtype=torch.float64)
        self._check_determinant(t)
        self._check_weight(t)

    def _check_interval(self) -> None:
        if not self.path.t_min <= self.t_min < self.t_max <= self.path.t_max:
            raise ValueError(
                f"the interval [{self.t_min}, {self.t_max}] is not within the path's [{self.path.t_min}, {self.path.t_max}]"
            )
        if self.t_min < 0 or self.t_max > 1:
            raise ValueError(
                f"the interval [{self.t_min}, {self.t_max}] is not within [0, 1], from noise to data; "
                "measure the path's time in other units, or narrow it with t_min and t_max"
            )

    def _check_start(self) -> None:
        if self.start == NOISE:
            return
        if self.path.base_std != 1:
            raise ValueError(
                f"a path whose noise has standard deviation {self.path.base_std:g} cannot start at the condition; choose ot, vp "
                "or cosine_vp, or leave out the source"
            )
        if self.prediction.name in ("epsilon", "score", "v"):
            raise ValueError(
                f"the prediction {self.prediction.name} is about Gaussian noise, which is not where a path from the condition "
                "starts; predict velocity or x"
            )
        if self.coupling != INDEPENDENT:
            raise ValueError(
                "paths that start at the condition cannot have a coupling: each sample's own condition is its partner; leave out "
                "the coupling or the source"
            )

    def _check_target(self) -> None:
        if self.marginal and not self.has_score:
            raise ValueError(
                "the marginal target is that of independent noise, so it goes with no coupling and no source; remove one"
            )

    @property
    def has_score(self) -> bool:
        """Whether the score follows from the velocity: x0 is Gaussian noise, independent of the data."""
        return self.start == NOISE and self.coupling == INDEPENDENT

    @property
    def base_std(self) -> float:
        """The standard deviation of what sampling starts from, around its mean."""
        return self.path.base_std * self.start.std

    @property
    def noise_std(self) -> float:
        """The standard deviation of the noise that :attr:`start` is given in sampling."""
        return self.path.base_std

    def _check_finite_ends(self) -> None:
        ends = torch.tensor([self.t_min, self.t_max], dtype=torch.float64)
        at_ends, inputs = self.path.coefficients(ends), self.prediction.inputs
        _, density = self.times.draw(torch.tensor([0.0, 1.0]), self.path, self.t_min, self.t_max)
        checks = {
            "the prediction's target": torch.stack(self.prediction.weights(at_ends, ends)),
            "what the network is given": ends if inputs is None else torch.stack(inputs(at_ends, ends)),
            "the loss weight": self.weighting(ends, self.path, self.prediction),
            # A density of zero is as bad as an infinite one: it means that log SNR is infinite at an end of this interval.
            "the density of t": torch.stack([density, 1 / density]),
        }
        for what, values in checks.items():
            if not torch.isfinite(values).all():
                raise ValueError(
                    f"{what} is not finite at an end of the interval [{self.t_min}, {self.t_max}]; "
                    "narrow it with t_min and t_max, or choose another weighting or time distribution"
                )

    def _check_determinant(self, t: Tensor) -> None:
        # Divided by both lengths the determinant is the sine of the angle between (a, s) and (c1, c0), which has no units.
        c = self.path.coefficients(t)
        c1, c0 = self.prediction.weights(c, t)
        sine = self.prediction.determinant(self.path, t) / (torch.hypot(c.a, c.s) * torch.hypot(c1, c0))
        # The velocity itself needs no conversion.
        determined = (sine * sine[0].sign() > _ROUNDING) | (self.prediction is VELOCITY)
        if not determined.all():
            raise ValueError(
                f"the prediction {self.prediction.name} does not determine the velocity at or near "
                f"t = {_first(t, ~determined):g}: its determinant there is zero, has changed sign, or is not finite; narrow the "
                "interval with t_min and t_max, or choose another prediction"
            )

    def _check_weight(self, t: Tensor) -> None:
        weight = self.weighting(t, self.path, self.prediction)
        check_shape("the loss weight", weight, t.shape)
        wrong = ~weight.isfinite() | (weight < -_ROUNDING)
        if wrong.any():
            raise ValueError(
                f"the loss weight at t = {_first(t, wrong):g} is {_first(weight, wrong):g}, but must be finite and at least 0; "
                "choose another weighting or path"
            )

    def check_ends(self) -> None:
        """Check what sampling relies on: noise alone at the start, data alone and unscaled at the end, a / s increasing.

        Raises:
            ValueError: one of these does not hold, so samples and likelihood would mean nothing.
        """
        c = self.path.coefficients(torch.tensor([self.t_min, self.t_max], dtype=torch.float64))
        std = self.path.base_std
        if abs(c.s[0] / std - 1) > _END_TOLERANCE or c.a[0].abs() / std > _END_TOLERANCE:
            raise ValueError(
                f"at t_min = {self.t_min} the path is not its noise: x_t = {c.a[0]:.3g} x1 + {c.s[0]:.3g} x0, "
                f"and sampling starts from noise of standard deviation {std:g}; start nearer to t = 0"
            )
        if c.s[1].abs() > _END_TOLERANCE * c.a[1] or abs(c.a[1] - 1) > _END_TOLERANCE:
            raise ValueError(
                f"at t_max = {self.t_max} the path is not the data: x_t = {c.a[1]:.3g} x1 + {c.s[1]:.3g} x0; "
                "end nearer to t = 1, or divide the path by its value of a there, so that a = 1"
            )
        t = torch.linspace(self.t_min, self.t_max, _CHECKED_TIMES, dtype=torch.float64)
        a, s, _, _ = self.path.coefficients(t)
        # a / s is compared as a product, since s may be zero at the end.
        rises = (a[1:] * s[:-1] > a[:-1] * s[1:]) & (a[1:] > 0) & (s[:-1] > 0)
        if not rises.all():
            raise ValueError(
                f"the path does not go from noise to data all the way: after t = {_first(t[:-1], ~rises):g} a / s does not "
                "increase, or a or s is not positive; choose other functions"
            )

    def times_and_weights(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Training times from uniforms u, and the weight w(t) / p(t) of the loss there, both float64 (B,)."""
        t, density = self.times.draw(u, self.path, self.t_min, self.t_max)
        weight = self.weighting(t, self.path, self.prediction)
        for what, values in (("the times", t), ("their density", density), ("the loss weight", weight)):
            check_shape(what, values, u.shape)
        if self.times.corrected:
            weight = weight / density
        return t, weight

    def loss(self, network: nn.Module | Callable[[Tensor, Tensor], Tensor], x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        """The loss of each sample: eq. 9 of Lipman et al. 2023 for the velocity, eq. 43 and 45 for the others.

        Args:
            network: called as network(t, x_t), t of shape (B,) in the type of x1.
            x0: noise N(0, I), shape (B, *).
            x1: data, shape (B, *).
            u: uniforms on [0, 1) that become times, shape (B,).

        Returns:
            w(t) / p(t) times the mean square over dimensions, shape (B,), in the type of x1.

        Raises:
            ValueError: the shapes of x0, x1, u, the times, their density, the weights and the network's output do not
                go together.
        """
        check_shape("u", u, x1.shape[:1])
        t, weight = self.times_and_weights(u)
        if self.jumps is not None:
            return self.jumps.loss(network, self.path, self.jumps.ends(t), x0, x1)
        x_t, velocity = self.path.interpolate(x0, x1, t)
        if self.data is not None:
            x0, x1 = means(self.data, self.path, t, x_t)
        whole = self.prediction is VELOCITY and self.data is None
        target = velocity if whole else self.prediction.target(self.path, x0, x1, t)
        output = self.prediction.ask(network, self.path, t, x_t)
        if output.shape != target.shape:  # the difference would broadcast silently
            raise ValueError(f"the network puts out shape {tuple(output.shape)} for samples of shape {tuple(x_t.shape)}")
        error = output - target
        return weight.to(x1.dtype) * error.flatten(1).square().mean(1)


def _first(values: Tensor, where: Tensor) -> float:
    return values[where][0].item()


def build(method: Method, data_std: float = SIGMA_DATA) -> Objective:
    """The objective of a method; parameters go to the constructors of path, prediction and time distribution.

    Args:
        data_std: the standard deviation of the data in model space, for predictions that depend on it.

    Raises:
        ValueError: an unknown name, a wrong parameter, a combination that :class:`Objective` refuses, or a method without a path.
    """
    if method.path is None:
        raise ValueError(f"{method.name} has no path")
    path = _make(PATHS, "path", method.path)
    families = {name: partial(family, data_std) for name, family in FAMILIES.items()}
    prediction = _make(PREDICTIONS | families, "prediction", method.prediction)
    times = _make(TIME_DISTRIBUTIONS, "time distribution", method.time)
    coupling = INDEPENDENT if method.coupling is None else _make(COUPLINGS, "coupling", method.coupling)
    coupling = coupling if method.teacher is None else given(coupling)
    for what, made, kind in (
        ("path", path, AffinePath),
        ("prediction", prediction, Prediction),
        ("time", times, TimeDistribution),
        ("coupling", coupling, Coupling),
    ):
        if not isinstance(made, kind):
            raise ValueError(f"{what} must be a {kind.__module__}.{kind.__name__}, not a {type(made).__name__}")
    t_min, t_max = usable_interval(path, prediction)
    return Objective(
        path=path,
        prediction=prediction,
        weighting=resolve(WEIGHTINGS, "weighting", method.weighting.name),
        times=times,
        t_min=t_min if method.t_min is None else method.t_min,
        t_max=t_max if method.t_max is None else method.t_max,
        start=NOISE if method.source is None else _make(STARTS, "source", method.source),
        coupling=coupling,
        marginal=method.target is not None and method.target.name == "marginal",
        jumps=None if method.jumps is None else _make(JUMPS, "jumps", method.jumps),
    )


def _make(registry: dict[str, Any], what: str, part: Part) -> Any:
    name, parameters = part.name, part.parameters
    factory = resolve(registry, what, name)
    if not callable(factory):  # a dotted name may refer to a finished object
        if parameters:
            raise ValueError(f"{what} {name!r} takes no parameters, but was given {parameters}; remove them")
        return factory
    try:
        return factory(**parameters)
    except TypeError as error:
        raise ValueError(f"{what} {name!r} does not take the parameters {parameters}: {error}") from None
