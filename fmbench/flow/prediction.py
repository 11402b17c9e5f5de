"""Everything a network may predict as one linear form, and the function that converts between any two predictions.

A prediction is p = c1(t) x1 + c0(t) x0. Together with x_t = a x1 + s x0 that is a 2x2 linear system,

    [ a   s  ] [x1]   [x_t]
    [ c1  c0 ] [x0] = [ p ],      determinant  d_p(t) = a c0 - s c1,

so every prediction determines x1 and x0, and with them every other prediction. The whole package rests on two facts:

* with x_t fixed, an error e in p is an error (d_q / d_p) e in q, so the squared error of q is that of p with the weight
  (d_q / d_p)^2, and every regression loss is a weighted loss on any other prediction;
* where its determinant is zero (noise at a = 0, data at s = 0), a prediction does not determine the field.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.flow.broadcast import check_shape, expand_to
from fmbench.flow.paths import AffinePath, Coefficients

_SINGULAR = 1e-3
"""A determinant up to this size is taken for zero."""
_MARGIN = 1e-3
"""How far an end of the interval moves inwards where the determinant is zero."""


@dataclass(frozen=True)
class Prediction:
    """A linear prediction p = c1 x1 + c0 x0.

    Attributes:
        name: the name a config uses.
        weights: from the path's coefficients and the times to (c1, c0), float64 of the shape of t.
        inputs: from the same to a factor of x_t and the time that the network is given, float64 of the shape of t; None if the
            network sees x_t and t as they are.
    """

    name: str
    weights: Callable[[Coefficients, Tensor], tuple[Tensor, Tensor]]
    inputs: Callable[[Coefficients, Tensor], tuple[Tensor, Tensor]] | None = None

    def ask(self, network: nn.Module | Callable[[Tensor, Tensor], Tensor], path: AffinePath, t: Tensor, x: Tensor) -> Any:
        """What a network predicts at x (B, *) and times t, of shape (B,) or (); every call of a network on a path is made here.

        The network is called as network(t, x) with t of shape (B,) in the type of x, both after :attr:`inputs`.
        """
        if self.inputs is not None:
            factor, t = self.inputs(path.coefficients(t), t.double())
            x = expand_to(factor, x).to(x.dtype) * x
        return network(t.to(x.dtype).expand(x.shape[0]), x)

    def target(self, path: AffinePath, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The regression target c1(t) x1 + c0(t) x0, of the shape and type of x1.

        Raises:
            ValueError: the shapes of x0, x1 and t do not go together.
        """
        check_shape("x0", x0, x1.shape)
        c1, c0 = (expand_to(v, x1).to(x1.dtype) for v in self.weights(path.coefficients(t), t.double()))
        return c1 * x1 + c0 * x0

    def determinant(self, path: AffinePath, t: Tensor) -> Tensor:
        """d(t) = a c0 - s c1, float64 of the shape of t."""
        c = path.coefficients(t)
        c1, c0 = self.weights(c, t.double())
        return c.a * c0 - c.s * c1


EPSILON = Prediction("epsilon", lambda c, t: (torch.zeros_like(c.a), torch.ones_like(c.a)))
"""The noise x0 (Ho et al. 2020; eq. 45 of Lipman et al. 2023)."""
X = Prediction("x", lambda c, t: (torch.ones_like(c.a), torch.zeros_like(c.a)))
"""The data x1."""
VELOCITY = Prediction("velocity", lambda c, t: (c.da, c.ds))
"""The conditional field u_t(x | x1) = a' x1 + s' x0 (eq. 15)."""
SCORE = Prediction("score", lambda c, t: (torch.zeros_like(c.a), -1 / c.s))
"""grad log p_t(x | x1) = -x0 / s. The paper's appendix writes s for minus this."""
V = Prediction("v", lambda c, t: (-c.s, c.a))
"""v of progressive distillation (Salimans & Ho 2022): alpha eps - sigma x."""

SIGMA_DATA = 0.5
"""The standard deviation of images on [-1, 1] in Karras et al. 2022."""


def edm(data_std: float = SIGMA_DATA, sigma_data: float | None = None) -> Prediction:
    """EDM's preconditioned output F (Karras et al. 2022, arXiv:2206.00364, Table 1 and appendix B.6), on every affine path.

    With sigma = s / a and y = x_t / a it is defined by x1 = c_skip y + c_out F(c_in y, c_noise), where
    c_skip = d^2 / (sigma^2 + d^2), c_out = sigma d / sqrt(sigma^2 + d^2), c_in = 1 / sqrt(sigma^2 + d^2) and
    c_noise = log(sigma) / 4, and d is ``sigma_data``. Solved for F, with r = sqrt(s^2 + a^2 d^2), this is
    F = (s / (r d)) x1 - (a d / r) x0, and the network's input is x_t / r. On data of standard deviation d, input and target have
    variance 1. Their loss weight, 1 / c_out^2, makes the loss the plain squared error of F.

    Args:
        data_std: the standard deviation of the data in model space.
        sigma_data: d; None for ``data_std``.

    Raises:
        ValueError: d is not positive and finite.
    """
    d = data_std if sigma_data is None else sigma_data
    if not 0 < d < float("inf"):
        raise ValueError(f"sigma_data must be positive and finite, not {d}; give the standard deviation of the data")

    def weights(c: Coefficients, t: Tensor) -> tuple[Tensor, Tensor]:
        r = torch.hypot(c.s, c.a * d)
        return c.s / (r * d), -c.a * d / r

    def inputs(c: Coefficients, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 / torch.hypot(c.s, c.a * d), (c.s.log() - c.a.log()) / 4

    return Prediction("edm", weights, inputs)


EDM = edm()
"""EDM's preconditioned output for data of standard deviation 0.5."""

PREDICTIONS: dict[str, Prediction] = {p.name: p for p in (EPSILON, X, VELOCITY, SCORE, V, EDM)}
"""Predictions by the names a config uses."""

FAMILIES: dict[str, Callable[..., Prediction]] = {"edm": edm}
"""Predictions with parameters: from the standard deviation of the data in model space, and the parameters, to the prediction."""


def convert(p: Tensor, x_t: Tensor, t: Tensor, path: AffinePath, source: Prediction, target: Prediction) -> Tensor:
    """Convert the prediction ``p`` made at ``x_t`` from ``source`` to ``target`` (the system at the top of this module).

    Solving the 2x2 system gives q = k_x x_t + k_p p with
    k_p = d_target / d_source and k_x = (c1' c0 - c0' c1) / d_source, primes for the target's weights.

    Args:
        p: predictions, shape (B, *).
        x_t: points, shape (B, *).
        t: times, shape (B,) or ().

    Returns:
        Predictions of the target's kind, shape (B, *), infinite or NaN where the source's determinant is zero or the target is
        infinite (the score at s = 0). A finite score at s = 0 stands for no noise, and the others follow from x1 = x_t / a.

    Raises:
        ValueError: the shapes of p, x_t and t do not go together.
    """
    check_shape("the prediction", p, x_t.shape)
    if source is target:
        return p
    c = path.coefficients(t)
    c1, c0 = source.weights(c, t.double())
    q1, q0 = target.weights(c, t.double())
    det = c.a * c0 - c.s * c1
    k_p = (c.a * q0 - c.s * q1) / det
    k_x = (q1 * c0 - q0 * c1) / det
    if source is SCORE:  # the limit where c0 is infinite
        finite = c0.isfinite()
        k_p, k_x = torch.where(finite, k_p, q0 / c0), torch.where(finite, k_x, q1 / c.a)
    return expand_to(k_x, x_t).to(x_t.dtype) * x_t + expand_to(k_p, x_t).to(x_t.dtype) * p


def loss_weight(t: Tensor, path: AffinePath, measured: Prediction, network: Prediction) -> Tensor:
    """The weight (d_measured / d_network)^2 that turns a squared error of the network's prediction into one of ``measured``.

    It is float64 of the shape of t and follows from the first of the two facts at the top of this module. Example: on any path,
    s^2 turns a squared error of the score into one of epsilon.
    """
    return (measured.determinant(path, t) / network.determinant(path, t)) ** 2


def usable_interval(path: AffinePath, prediction: Prediction) -> tuple[float, float]:
    """The path's interval, narrowed by 1e-3 at each end where the prediction does not determine the field.

    On the straight path, noise prediction says nothing about x1 at t = 0 (a = 0), and data prediction nothing about x0 at t = 1
    (s = 0 or nearly). The interval then starts at t_min + 1e-3, or ends at t_max - 1e-3. So it does where what the network is
    given is infinite, as log(sigma) is at both of these ends.
    """
    ends = torch.tensor([path.t_min, path.t_max], dtype=torch.float64)
    at_ends = prediction.determinant(path, ends).abs()
    if prediction.inputs is not None:
        finite = torch.stack(prediction.inputs(path.coefficients(ends), ends)).isfinite().all(0)
        at_ends = torch.where(finite, at_ends, torch.inf)
    at_start, at_end = at_ends.tolist()
    # A determinant that is not finite (the score where s = 0) is as useless as one that is zero.
    bad_start = not (at_start > _SINGULAR and at_start < float("inf"))
    bad_end = not (at_end > _SINGULAR and at_end < float("inf"))
    return path.t_min + _MARGIN * bad_start, path.t_max - _MARGIN * bad_end
