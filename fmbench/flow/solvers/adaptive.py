"""Adaptive Runge-Kutta solvers such as dopri5, with one step size for the batch or one for each sample.

Step control follows Hairer, Norsett & Wanner, *Solving ODEs I*, II.4. The error norm is the RMS of
err / (atol + rtol max(|x_n|, |x_n+1|)), the next step is h 0.9 / norm^(1/order) with the factor kept within [0.2, 10], and the
first step is their automatic one. As in torchdiffeq, the step size never shrinks after an accepted step. The end point is hit
exactly. NFE is 2 + (stages - 1) (accepted + rejected): the first slope, the first-step probe, and all stages of a step but the
last, which is the first of the next step.

With one step size for the batch, the hardest sample decides NFE. With one for each sample, finished samples leave the batch.

**Derivatives.** The result has derivatives by x and by the parameters of the field: those of the accepted steps, with their sizes
held constant. Error norms and step sizes are outside of the graph, as in torchdiffeq. A sample whose state or slope is not finite
must not reach the derivatives of the others, since a gradient of zero times infinity is NaN. If gradients are recorded, an
evaluation with such samples is therefore repeated without them, and the repetition counts as an evaluation of the others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from fmbench.flow.broadcast import expand_to
from fmbench.flow.fields import Field, checked, rows_of
from fmbench.flow.solvers.constant import check_constant
from fmbench.flow.solvers.solution import AdaptiveSolution
from fmbench.flow.solvers.tableaux import DOPRI5, Tableau

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
MAX_NFE = 20_000
_SMALLEST = 1e-14
"""A step size below this has vanished."""


# Many parameters: those of scipy's and torchdiffeq's solvers, so that calls read alike.
def dopri5(
    field: Field,
    x: Tensor,
    t0: float,
    t1: float,
    *,
    pair: Tableau = DOPRI5,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    per_sample: bool = True,
    max_nfe: int = MAX_NFE,
) -> AdaptiveSolution:
    """Integrate dx/dt = field(t, x) from t0 to t1 (either direction) to a tolerance.

    Args:
        x: initial states, shape (B, *).
        pair: another embedded pair of Runge-Kutta methods (:data:`~fmbench.flow.solvers.tableaux.ADAPTIVE`).
        per_sample: a step size for each sample, for which the field gets times of shape (B',) for the B' samples not finished
            yet; or one for all, for which it gets times of shape ().
        max_nfe: a sample that would need more evaluations fails.

    Returns:
        States, NFE and failures by sample. Numbers that are no longer finite are a result (``failed``), not an exception.

    Raises:
        ValueError: the interval is empty, an end requires a gradient, the pair does not fit, or the field's result is unlike x.
    """
    if pair.b_low is None or (*pair.a[-1], 0.0) != pair.b:
        raise ValueError(f"{pair.name} has no embedded step, or its last stage is not at the end of the step")
    check_constant("first time", t0)
    check_constant("last time", t1)
    if t0 == t1:
        raise ValueError(f"the interval of integration is empty: t0 = t1 = {t0}")
    problem = _Problem(checked(field), float(t0), float(t1), pair, rtol, atol, max_nfe)
    return _with_a_step_per_sample(problem, x) if per_sample else _with_one_step(problem, x)


@dataclass(frozen=True)
class _Problem:
    """dx/dt = field(t, x) from t0 to t1, with the pair, the tolerances and the largest NFE."""

    field: Field
    t0: float
    t1: float
    pair: Tableau
    rtol: float
    atol: float
    max_nfe: int

    @property
    def sign(self) -> float:
        """The direction of time."""
        return 1.0 if self.t1 > self.t0 else -1.0

    def scaled(self, error: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The error of a step from y to z in units of the tolerance."""
        return error / (self.atol + self.rtol * torch.maximum(y.abs(), z.abs()))


def _with_a_step_per_sample(problem: _Problem, x: Tensor) -> AdaptiveSolution:
    batch, shape, dev = x.shape[0], x.shape, x.device
    sign, t1, pair, step_nfe = problem.sign, problem.t1, problem.pair, problem.pair.stages - 1
    # The field is that of the samples that are not finished.
    nfe, field = torch.full((batch,), 2, dtype=torch.int64, device=dev), problem.field

    def evaluate(t: Tensor, y: Tensor) -> Tensor:
        nonlocal nfe
        states = y.reshape(-1, *shape[1:])
        slopes = field(t, states)
        if slopes.requires_grad:
            slopes, repeated = _without_broken_samples(field, t, states, slopes)
            nfe = nfe + repeated
        return slopes.reshape(y.shape)

    def norm(y: Tensor) -> Tensor:
        return (y.double() ** 2).mean(1).sqrt()

    y = x.reshape(batch, -1)
    t = torch.full((batch,), problem.t0, dtype=torch.float64, device=dev)
    k1 = evaluate(t, y)
    h = _first_step(replace(problem, field=evaluate), norm, t, y, k1)
    step = _Step(pair, y, k1)

    # Results by sample. ``lane`` maps each row that is not finished yet to its place there.
    final, spent = y.clone(), torch.zeros(batch, dtype=torch.int64, device=dev)
    failed = torch.zeros(batch, dtype=torch.bool, device=dev)
    lane = torch.arange(batch, device=dev)
    broken = ~norm(y.detach()).isfinite()

    while lane.numel():
        last = h >= sign * (t1 - t)
        h = torch.where(last, sign * (t1 - t), h)
        z, error = step.take(evaluate, y, [t + sign * c * h for c in pair.c], (sign * h).to(x.dtype).reshape(-1, 1))
        nfe = nfe + step_nfe
        accept, overflow, factor = _judge(pair, norm(problem.scaled(error, y.detach(), z.detach())), norm(z.detach()))
        broken = broken | overflow

        rows = accept.reshape(-1, 1)
        y = torch.where(rows, z, y)
        k1 = torch.where(rows, step.slopes[-1], step.slopes[0])
        t = torch.where(accept, torch.where(last, torch.full_like(t, t1), t + sign * h), t)
        h = h * factor

        done = accept & last
        lost = ~done & ((nfe + step_nfe > problem.max_nfe) | (h < _SMALLEST) | broken)
        over = done | lost
        if over.any():
            ended, going = lane[over], ~over
            failed[ended], spent[ended], final[ended] = lost[over], nfe[over], y[over]
            y, k1, t, h, nfe, lane, broken = (v[going] for v in (y, k1, t, h, nfe, lane, broken))
            step, field = _Step(pair, y, k1), rows_of(field, going)
        else:
            step.put(0, k1)
    return AdaptiveSolution(final.reshape(shape), spent, failed)


def _judge(pair: Tableau, ratio: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which steps to accept, which overflowed, and factors of the next step sizes, from error norms and norms of the ends."""
    fine = ratio <= 1  # false for a NaN
    accept = fine & size.isfinite()  # against an infinite state every error is small
    factor = (SAFETY * ratio ** (-1 / pair.order)).clamp(SHRINK, GROW)
    factor = torch.where(accept, factor.clamp(min=1.0), factor)
    factor = torch.where(ratio.isfinite() & ~factor.isnan(), factor, torch.full_like(factor, SHRINK))
    return accept, fine & ~accept, factor


def _with_one_step(problem: _Problem, x: Tensor) -> AdaptiveSolution:
    """The same algorithm with Python floats for times and step sizes: tensors of one number take longer than a small network."""
    field, sign, t1, pair, step_nfe = problem.field, problem.sign, problem.t1, problem.pair, problem.pair.stages - 1
    nodes = sign * torch.tensor(pair.c, dtype=torch.float64, device=x.device)

    def norm(y: Tensor) -> Tensor:
        return y.double().square().mean().sqrt()

    y, t = x.clone(memory_format=torch.contiguous_format), problem.t0
    start = torch.tensor(t, dtype=torch.float64, device=x.device)
    k1 = field(start, y)
    h = _first_step(problem, norm, start, y, k1).item()
    step, nfe, broken = _Step(pair, y, k1), 2, not math.isfinite(norm(y).item())

    while True:
        last = h >= sign * (t1 - t)
        h = sign * (t1 - t) if last else h
        ahead = nodes * h
        z, error = step.take(field, y, (t + ahead).unbind(), ahead[-1].to(y.dtype))
        nfe += step_nfe
        measured = norm(problem.scaled(error, y.detach(), z.detach()))
        ratio = measured.item()
        fine = ratio <= 1  # false for a NaN
        accept = fine and math.isfinite(norm(z).item())  # against an infinite state every error is small
        broken = broken or (fine and not accept)
        # The power is torch's here too, so that both kinds of step size have the same digits.
        factor = SAFETY * measured.pow(-1 / pair.order).item()
        factor = min(max(factor, 1.0 if accept else SHRINK), GROW) if math.isfinite(ratio) else SHRINK

        if accept:
            y, t = z, t1 if last else t + sign * h
            step.put(0, step.slopes[-1])
        h *= factor

        done = accept and last
        if done or nfe + step_nfe > problem.max_nfe or h < _SMALLEST or broken:
            spent = torch.full((len(x),), nfe, dtype=torch.int64, device=x.device)
            return AdaptiveSolution(y, spent, torch.full((len(x),), not done, device=x.device))


@cache
def _weights(pair: Tableau) -> tuple[list[Tensor], Tensor]:
    """The rows of the stages and the weights of the error, float64."""
    *rows, b, low = (torch.tensor(weights, dtype=torch.float64) for weights in (*pair.a, pair.b, pair.b_low))
    return rows, b - low


class _Step:
    """Steps of states of one shape (B, *). Its slopes and their views are allocated once and not at each step.

    Attributes:
        slopes: one for each stage, of the states' shape; the first is that at a step's start, the last that at its end.
    """

    def __init__(self, pair: Tableau, y: Tensor, k1: Tensor) -> None:
        n, (rows, error) = pair.stages, _weights(pair)
        k = torch.empty(n, *y.shape, dtype=y.dtype, device=y.device)
        self.slopes = [k[i] for i in range(n)]
        self.columns = [k.reshape(n, -1)[:i].T for i in range(n + 1)]
        self.rows = [row.to(y.device, y.dtype) for row in rows]
        self.error_weights = error.to(y.device, y.dtype)
        self.in_place = True
        self.put(0, k1)

    def put(self, i: int, slope: Tensor) -> None:
        """Set slope ``i``. A slope with a gradient is not copied, so that the solver can be differentiated."""
        self.in_place = self.in_place and not slope.requires_grad
        if self.in_place:
            self.slopes[i].copy_(slope)
        else:
            self.slopes[i] = slope

    def take(
        self, evaluate: Callable[[Tensor, Tensor], Tensor], y: Tensor, times: Sequence[Tensor], h: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The end of a step from ``y``, and its estimated error, which has no gradient.

        Args:
            times: of the stages, each of the shape that the field is called with.
            h: signed step size, of shape () or (B, 1).
        """
        z = y
        for i in range(1, len(self.rows)):
            z = y + h * self._sum(self.rows[i]).view_as(y)
            self.put(i, evaluate(times[i], z))
        with torch.no_grad():
            return z, h * self._sum(self.error_weights).view_as(y)

    def _sum(self, weights: Tensor) -> Tensor:
        """sum_i w_i k_i over as many slopes as there are weights, flat."""
        n = len(weights)
        return torch.mv(self.columns[n] if self.in_place else torch.stack(self.slopes[:n]).reshape(n, -1).T, weights)


def _without_broken_samples(field: Field, t: Tensor, x: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor | int]:
    """The slopes (B, *) with no graph behind those of samples whose state or slope is not finite, and which were evaluated again.

    A row is cut out of the graph of a batch only by an evaluation without it.
    """
    good = (x.isfinite() & slopes.isfinite()).detach().reshape(len(x), -1).all(1)
    if good.all():
        return slopes, 0
    separate = slopes.detach().clone()
    if good.any():
        separate[good] = rows_of(field, good)(t[good], x[good])
    return separate, good


@torch.no_grad()
def _first_step(problem: _Problem, norm: Callable[[Tensor], Tensor], t: Tensor, y: Tensor, k1: Tensor) -> Tensor:
    """Hairer, Norsett & Wanner's automatic first step; costs one evaluation, at a probe kept inside the interval."""
    sign, span = problem.sign, abs(problem.t1 - problem.t0)
    scale = problem.atol + problem.rtol * y.abs()
    d0, d1 = norm(y / scale), norm(k1 / scale)
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = torch.where(tiny, torch.full_like(d0, 1e-6), 0.01 * d0 / d1).clamp(max=span)
    h0 = torch.where(h0.isfinite(), h0, torch.full_like(h0, 1e-6))
    probe = problem.field(t + sign * h0, y + expand_to((sign * h0).to(y.dtype), y) * k1)
    d2 = norm((probe - k1) / scale) / h0
    steepest = torch.maximum(d1, d2)
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** (1 / problem.pair.order))
    h = torch.minimum(100 * h0, h1)
    return torch.where(h.isfinite() & (h > 0), h, torch.full_like(h, 1e-6)).clamp(max=span)
