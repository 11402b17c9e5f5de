"""Paths given by functions of time: any a and s, and another path multiplied by a function."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmbench.flow.broadcast import check_shape
from fmbench.flow.paths import AffinePath, Coefficients


def derivative(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """f' of an elementwise function, by automatic differentiation; differentiable again where t has a gradient."""

    def df(t: Tensor) -> Tensor:
        again = torch.is_grad_enabled() and t.requires_grad
        with torch.enable_grad():
            t = t if again else t.detach().requires_grad_()
            value = f(t)
            if not isinstance(value, Tensor) or not value.requires_grad:  # f does not depend on t
                return torch.zeros_like(t)
            (slope,) = torch.autograd.grad(value.sum(), t, create_graph=again)
        return slope if again else slope.detach()

    return df


def _spread(value: Tensor | float, t: Tensor) -> Tensor:
    """A value at all times ``t``. A number is filled on their device: a GPU would wait for a copy.

    Raises:
        ValueError: the value is neither one number nor one for each time.
    """
    if not isinstance(value, Tensor):
        return torch.full_like(t, value)
    if value.ndim:
        check_shape("a function of times", value, t.shape)
    return value.to(t).expand(t.shape)


@dataclass(frozen=True)
class GeneralAffine(AffinePath):
    """Any affine path of eq. 10-11, from two functions of float64 times and their derivatives.

    The functions work elementwise; a constant one may return a number. They and their derivatives must be finite on the whole of
    [t_min, t_max]. Derivatives that are not given are computed by automatic differentiation. Derivatives that are given
    are compared with automatic ones here, except at the ends: a wrong one would train and sample without an error. To train on
    the path, a / s must increase, a must be 1 at the end, and the interval must be within [0, 1];
    :class:`fmbench.flow.objectives.Objective` checks this.

    Args:
        a, s: the coefficients of data and noise; ``da``, ``ds``: their derivatives by t.
        noise_std: standard deviation of the noise that sampling starts from.

    Raises:
        ValueError: a derivative is not that of its function, a value is not finite, the interval is empty, or ``noise_std`` is
            not positive.
    """

    a: Callable[[Tensor], Tensor]
    s: Callable[[Tensor], Tensor]
    da: Callable[[Tensor], Tensor] | None = None
    ds: Callable[[Tensor], Tensor] | None = None
    t_min: float = 0.0
    t_max: float = 1.0
    noise_std: float = 1.0

    def __post_init__(self) -> None:
        if not self.t_min < self.t_max:
            raise ValueError(f"t_min must be below t_max, not {self.t_min} and {self.t_max}")
        if not self.noise_std > 0:
            raise ValueError(f"noise_std must be positive, not {self.noise_std}")
        t = self.t_min + (self.t_max - self.t_min) * torch.linspace(0, 1, 21, dtype=torch.float64)
        c = self.coefficients(t)
        for name, values in c._asdict().items():
            if not torch.isfinite(values).all():
                at = t[~torch.isfinite(values)][0].item()
                raise ValueError(f"{name}({at:g}) is not finite; leave that time out with t_min and t_max")
        for name, found, true in (("da", c.da, derivative(self.a)(t)), ("ds", c.ds, derivative(self.s)(t))):
            wrong = ((found - true).abs() > 1e-6 * (1 + true.abs()))[1:-1]
            if wrong.any():
                k = int(wrong.nonzero()[0]) + 1
                raise ValueError(
                    f"{name}({t[k]:g}) = {found[k]:g} is not the derivative, {true[k]:g}; leave it out to have it computed"
                )

    @property
    def base_std(self) -> float:
        return self.noise_std

    def coefficients(self, t: Tensor) -> Coefficients:
        t = t.double()
        functions = self.a, self.s, self.da or derivative(self.a), self.ds or derivative(self.s)
        return Coefficients(*(_spread(f(t), t) for f in functions))


@dataclass(frozen=True)
class Rescaled(AffinePath):
    """Another path multiplied by a positive function of time, c(t) a(t) and c(t) s(t), which leaves log SNR as it was.

    At equal log SNR, VP and VE are rescalings of each other. A rescaling does not change DDIM; it does change Euler's method on
    the probability-flow ODE.

    Args:
        factor: c, a positive elementwise function of float64 times with a finite derivative.
    """

    path: AffinePath
    factor: Callable[[Tensor], Tensor]

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.path.t_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.path.t_max

    @property
    def base_std(self) -> float:
        return float(self.factor(torch.tensor(self.t_min, dtype=torch.float64))) * self.path.base_std

    def coefficients(self, t: Tensor) -> Coefficients:
        t = t.double()
        a, s, da, ds = self.path.coefficients(t)
        c, dc = _spread(self.factor(t), t), derivative(self.factor)(t)
        return Coefficients(c * a, c * s, dc * a + c * da, dc * s + c * ds)

    def log_snr(self, t: Tensor) -> Tensor:
        return self.path.log_snr(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.path.time_of_log_snr(log_snr)
