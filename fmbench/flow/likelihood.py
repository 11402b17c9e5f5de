"""The likelihood of a continuous normalising flow, and bits per dimension.

The pair (x, log p) is solved backwards from data, eq. 31 of Lipman et al. 2023; then log p1(x1) = log p0(x0) - f(0).
With K probes the state holds K integrals of the divergence beside x. The error norm is the RMS over all B (D + K) entries (K = 1
for an exact divergence), each scaled by atol + rtol |.|. The joint solve takes other steps than a solve of x alone, so its NFE is
counted separately.

**Noise inside a logarithm.** Hutchinson's estimate of log p is unbiased but noisy (eq. 34-35). The paper's recipe for K
dequantisation draws (eq. 47) averages exp(log p) over them, and the exponential of a noisy exponent is too large on average. A
small variance v of the probe raises the result by about (1 - 1/K) v / 2 nats (:func:`probe_bias`), which looks like a better NLL.
fmbench therefore takes the exact divergence where the dimension allows it. Otherwise it averages several probes for each draw
before the exponential and reports the variance that remains. It reports the paper's own estimate under a separate name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmbench.flow.broadcast import check_alike, check_shape
from fmbench.flow.divergence import exact_divergence, hutchinson_divergence
from fmbench.flow.fields import Field
from fmbench.flow.solvers.adaptive import MAX_NFE, dopri5

Divergence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From (t, x) to the velocity (B, *) and its divergence (B,), for fields with a divergence in closed form."""
GAVE_UP = f"step size vanished or {MAX_NFE} NFE spent"
"""The reason given for a failed solve."""


@dataclass(frozen=True)
class LogLikelihood:
    """The result of :func:`log_likelihood`: log p1(x1) in nats.

    Attributes:
        by_probe: shape (K, B), one for each probe; K = 1 for an exact divergence.
        nfe: evaluations of the joint solve, int64, shape (B,).
        failed: bool, shape (B,).
        probes: how many Hutchinson probes there were; 0 for an exact divergence.
    """

    by_probe: Tensor
    nfe: Tensor
    failed: Tensor
    probes: int

    @property
    def log_p(self) -> Tensor:
        """The mean over probes, shape (B,)."""
        return self.by_probe.mean(0)

    @property
    def probe_variance(self) -> Tensor:
        """The variance of :attr:`log_p` due to the probes, estimated from their spread, shape (B,).

        Zero for an exact divergence; NaN for a single probe, which has no spread.
        """
        if not self.probes:
            return torch.zeros_like(self.log_p)
        return self.by_probe.var(0) / self.probes if self.probes > 1 else torch.full_like(self.log_p, torch.nan)


# Many parameters: a solve (field, interval, tolerances) and an estimator of the divergence, all but four by keyword.
def log_likelihood(
    field: Field,
    x1: Tensor,
    t_min: float,
    t_max: float,
    *,
    base_std: float = 1.0,
    base_mean: Tensor | float = 0.0,
    probes: Tensor | None = None,
    divergence: Divergence | None = None,
    mode: str = "reverse",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> LogLikelihood:
    """log p1 of data (eq. 31) under the flow of ``field`` from N(base_mean, base_std^2 I) at t_min to t_max.

    Args:
        x1: data, shape (B, *).
        base_mean: of shape (B, *), or a number.
        probes: shape (K, B, *) for Hutchinson's estimate, drawn once for the whole solve; None for the exact divergence.
        divergence: the field with its divergence in closed form, used instead of ``field`` and ``probes``.
        mode: how probes are applied, ``reverse`` or ``forward``: see :func:`~fmbench.flow.divergence.hutchinson_divergence`.

    Returns:
        Log densities in the coordinates of x1. The batch shares one step size, as in the paper. They have derivatives by x1 and
        by the parameters of the field, if these require a gradient; a mere evaluation runs faster in ``torch.no_grad()``.

    Raises:
        ValueError: probes, velocity or divergence do not have the shapes that go with x1.
    """
    batch, dimensions = x1.shape[0], x1[0].numel()
    count = 1 if probes is None or divergence is not None else len(probes)

    def joint(t: Tensor, state: Tensor) -> Tensor:
        x = state[:, :dimensions].reshape(x1.shape)
        if divergence is not None:
            v, traces = divergence(t, x)
            check_alike("the velocity", v, x)
            check_shape("the divergence", traces, (batch,))
        elif probes is None:
            v, traces = exact_divergence(field, t, x)
        else:
            v, traces = hutchinson_divergence(field, t, x, probes, mode)
        # d/dt of log p along the flow is minus the divergence.
        return torch.cat([v.reshape(batch, -1), -traces.reshape(count, batch).T], 1)

    start = torch.cat([x1.reshape(batch, -1), x1.new_zeros(batch, count)], 1)
    solution = dopri5(joint, start, t_max, t_min, rtol=rtol, atol=atol, per_sample=False)
    x0, change = solution.x[:, :dimensions].double(), solution.x[:, dimensions:].double()
    x0 = x0 - (base_mean.reshape(batch, -1) if isinstance(base_mean, Tensor) else base_mean)
    # change = -(log p1 - log p0), integrated from t_max down to t_min.
    by_probe = gaussian_log_density(x0, base_std) - change.T
    exact = probes is None or divergence is not None
    return LogLikelihood(by_probe, solution.nfe, solution.failed, 0 if exact else count)


def log_mean_p(log_p: Tensor) -> Tensor:
    """The log of the mean of p over K dequantisation draws, eq. 47.

    It is a lower bound on the discrete log likelihood, tighter with K.

    Args:
        log_p: shape (K, B). Noise in it makes the result too large (:func:`probe_bias`).

    Returns:
        Shape (B,).

    Raises:
        ValueError: log_p has another number of axes.
    """
    if log_p.ndim != 2:
        raise ValueError(f"log_p must have shape (K, B), for K draws of B samples, not {tuple(log_p.shape)}")
    return torch.logsumexp(log_p, 0) - math.log(len(log_p))


def probe_bias(log_p: Tensor, variance: Tensor) -> Tensor:
    """The nats by which noise in log p raises :func:`log_mean_p`, to second order: sum_k w_k (1 - w_k) v_k / 2.

    This is the second-order term of a log-sum-exp (eq. 47) in its exponents, whose Hessian is diag(w) - w w^T. It holds up to
    variances of about 1 nat^2. Above, it is too small, and more so the more alike the draws are: at 9 nats^2 it can be as low as
    two thirds of the effect of normal noise. The effect grows more slowly than the variance.

    Args:
        log_p: shape (K, B); w is its softmax over K.
        variance: of each entry, shape (K, B).

    Returns:
        Shape (B,); zero for K = 1.

    Raises:
        ValueError: the variance has another shape than log_p.
    """
    check_shape("the variance", variance, log_p.shape)
    w = torch.softmax(log_p, 0)
    return (w * (1 - w) * variance).sum(0) / 2


def gaussian_log_density(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std^2 I) of shape (B,) for x of shape (B, D).

    Raises:
        ValueError: x has another number of axes.
    """
    if x.ndim != 2:
        raise ValueError(f"x must have shape (B, D), with samples flattened, not {tuple(x.shape)}")
    dimensions = x.shape[1]
    return -(x**2).sum(1) / (2 * std**2) - dimensions * (math.log(std) + 0.5 * math.log(2 * math.pi))


def bits_per_dimension(log_p: Tensor, dimensions: int, levels: int) -> Tensor:
    """BPD of data with ``levels`` integer values scaled to [-1, 1] by 2 (x + u) / levels - 1, eq. 36-37.

    The scaling adds log2(levels / 2) bits per dimension: 7 for 256 levels.
    """
    return -log_p / (dimensions * math.log(2)) + math.log2(levels / 2)
