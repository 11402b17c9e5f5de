"""Adaptive dopri5, with one step size for the batch or one for each sample.

Step control follows Hairer, Norsett & Wanner, *Solving ODEs I*, II.4. The error norm is the RMS of
err / (atol + rtol max(|x_n|, |x_n+1|)), the next step is h 0.9 / norm^(1/5) with the factor kept within [0.2, 10], and the first
step is their automatic one. As in torchdiffeq, the step size never shrinks after an accepted step. The end point is hit exactly.
NFE is 2 + 6 (accepted + rejected): one for the first slope, one for the first-step probe and six for each step, since the last
stage of a step is the first of the next.

With one step size for the batch, NFE depends on the batch, as the hardest sample decides. With a step size for each sample it
does not, but for rounding, and finished samples leave the batch.

**Derivatives.** The result has derivatives by x and by the parameters of the field: those of the accepted steps, with their sizes
held constant. Error norms and step sizes are outside of the graph, as in torchdiffeq. A sample whose state or slope is not finite
must not reach the derivatives of the others, since a gradient of zero times infinity is NaN. If gradients are recorded, an
evaluation with such samples is therefore repeated without them, and the repetition counts as an evaluation of the others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fmbench.flow.broadcast import expand_to
from fmbench.flow.fields import Field, checked
from fmbench.flow.solvers.constant import check_constant
from fmbench.flow.solvers.tableaux import DOPRI5

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
MAX_NFE = 20_000
_SMALLEST = 1e-14
"""A step size below this has vanished."""
_A = [torch.tensor(row, dtype=torch.float64) for row in DOPRI5.a]
_ERROR = torch.tensor(DOPRI5.b, dtype=torch.float64) - torch.tensor(DOPRI5.b_low, dtype=torch.float64)


@dataclass(frozen=True)
class AdaptiveSolution:
    """The result of an adaptive solve.

    Attributes:
        x: final states, shape (B, *); for a failed sample its last good state.
        nfe: evaluations spent on each sample, int64, shape (B,).
        failed: bool, shape (B,): the step size vanished, the state stopped being finite, or ``max_nfe`` was reached.
    """

    x: Tensor
    nfe: Tensor
    failed: Tensor


# Many parameters: those of scipy's and torchdiffeq's solvers, so that calls read alike.
def dopri5(
    field: Field,
    x: Tensor,
    t0: float,
    t1: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    per_sample: bool = True,
    max_nfe: int = MAX_NFE,
) -> AdaptiveSolution:
    """Integrate dx/dt = field(t, x) from t0 to t1 (either direction) to a tolerance.

    Args:
        x: initial states, shape (B, *).
        per_sample: a step size for each sample, for which the field gets times of shape (B',) for the B' samples not finished
            yet; or one for all, for which it gets times of shape ().
        max_nfe: a sample that would need more evaluations fails.

    Returns:
        States, NFE and failures by sample. Numbers that are no longer finite are a result (``failed``), not an exception.

    Raises:
        ValueError: the interval is empty, an end requires a gradient, or the field returns another shape, type or device than
            that of x.
    """
    check_constant("first time", t0)
    check_constant("last time", t1)
    if t0 == t1:
        raise ValueError(f"the interval of integration is empty: t0 = t1 = {t0}")
    solve = _with_a_step_per_sample if per_sample else _with_one_step
    return solve(_Problem(checked(field), float(t0), float(t1), rtol, atol, max_nfe), x)


@dataclass(frozen=True)
class _Problem:
    """dx/dt = field(t, x) from t0 to t1, with the tolerances and the largest NFE."""

    field: Field
    t0: float
    t1: float
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
    sign, t1 = problem.sign, problem.t1

    nfe = torch.full((batch,), 2, dtype=torch.int64, device=dev)

    def evaluate(t: Tensor, y: Tensor) -> Tensor:
        nonlocal nfe
        states = y.reshape(-1, *shape[1:])
        slopes = problem.field(t, states)
        if slopes.requires_grad:
            slopes, repeated = _without_broken_samples(problem.field, t, states, slopes)
            nfe = nfe + repeated
        return slopes.reshape(y.shape)

    def norm(y: Tensor) -> Tensor:
        return (y.double() ** 2).mean(1).sqrt()

    y = x.reshape(batch, -1)
    t = torch.full((batch,), problem.t0, dtype=torch.float64, device=dev)
    k1 = evaluate(t, y)
    h = _first_step(replace(problem, field=evaluate), norm, t, y, k1)
    step = _Step(y, k1)

    # Results by sample. ``lane`` maps each row that is not finished yet to its place there.
    final, spent = y.clone(), torch.zeros(batch, dtype=torch.int64, device=dev)
    failed = torch.zeros(batch, dtype=torch.bool, device=dev)
    lane = torch.arange(batch, device=dev)
    broken = ~norm(y.detach()).isfinite()

    while lane.numel():
        last = h >= sign * (t1 - t)
        h = torch.where(last, sign * (t1 - t), h)
        z, error = step.take(evaluate, y, [t + sign * c * h for c in DOPRI5.c], (sign * h).to(x.dtype).reshape(-1, 1))
        nfe = nfe + 6
        accept, overflow, factor = _judge(norm(problem.scaled(error, y.detach(), z.detach())), norm(z.detach()))
        broken = broken | overflow

        rows = accept.reshape(-1, 1)
        y = torch.where(rows, z, y)
        k1 = torch.where(rows, step.slopes[6], step.slopes[0])
        t = torch.where(accept, torch.where(last, torch.full_like(t, t1), t + sign * h), t)
        h = h * factor

        done = accept & last
        lost = ~done & ((nfe + 6 > problem.max_nfe) | (h < _SMALLEST) | broken)
        over = done | lost
        if over.any():
            ended, going = lane[over], ~over
            failed[ended], spent[ended], final[ended] = lost[over], nfe[over], y[over]
            y, k1, t, h, nfe, lane, broken = (v[going] for v in (y, k1, t, h, nfe, lane, broken))
            step = _Step(y, k1)
        else:
            step.put(0, k1)
    return AdaptiveSolution(final.reshape(shape), spent, failed)


def _judge(ratio: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which steps to accept, which overflowed, and factors of the next step sizes, from error norms and norms of the ends."""
    fine = ratio <= 1  # false for a NaN
    accept = fine & size.isfinite()  # against an infinite state every error is small
    factor = (SAFETY * ratio**-0.2).clamp(SHRINK, GROW)
    factor = torch.where(accept, factor.clamp(min=1.0), factor)
    factor = torch.where(ratio.isfinite() & ~factor.isnan(), factor, torch.full_like(factor, SHRINK))
    return accept, fine & ~accept, factor


def _with_one_step(problem: _Problem, x: Tensor) -> AdaptiveSolution:
    """The same algorithm with Python floats for times and step sizes: tensors of one number take longer than a small network."""
    field, sign, t1 = problem.field, problem.sign, problem.t1
    nodes = sign * torch.tensor(DOPRI5.c, dtype=torch.float64, device=x.device)

    def norm(y: Tensor) -> Tensor:
        return y.double().square().mean().sqrt()

    y, t = x.clone(memory_format=torch.contiguous_format), problem.t0
    start = torch.tensor(t, dtype=torch.float64, device=x.device)
    k1 = field(start, y)
    h = _first_step(problem, norm, start, y, k1).item()
    step, nfe, broken = _Step(y, k1), 2, not math.isfinite(norm(y).item())

    while True:
        last = h >= sign * (t1 - t)
        h = sign * (t1 - t) if last else h
        ahead = nodes * h
        z, error = step.take(field, y, (t + ahead).unbind(), ahead[6].to(y.dtype))
        nfe += 6
        measured = norm(problem.scaled(error, y.detach(), z.detach()))
        ratio = measured.item()
        fine = ratio <= 1  # false for a NaN
        accept = fine and math.isfinite(norm(z).item())  # against an infinite state every error is small
        broken = broken or (fine and not accept)
        # The power is torch's here too, so that both kinds of step size have the same digits.
        factor = min(max(SAFETY * measured.pow(-0.2).item(), 1.0 if accept else SHRINK), GROW) if math.isfinite(ratio) else SHRINK

        if accept:
            y, t = z, t1 if last else t + sign * h
            step.put(0, step.slopes[6])
        h *= factor

        done = accept and last
        if done or nfe + 6 > problem.max_nfe or h < _SMALLEST or broken:
            spent = torch.full((len(x),), nfe, dtype=torch.int64, device=x.device)
            return AdaptiveSolution(y, spent, torch.full((len(x),), not done, device=x.device))


class _Step:
    """Steps of states of one shape (B, *). Its seven slopes and their views are allocated once and not at each step.

    Attributes:
        slopes: seven of the states' shape; the first is that at a step's start, the last that at its end.
    """

    def __init__(self, y: Tensor, k1: Tensor) -> None:
        k = torch.empty(7, *y.shape, dtype=y.dtype, device=y.device)
        self.slopes = [k[i] for i in range(7)]
        self.columns = [k.reshape(7, -1)[:i].T for i in range(8)]
        self.rows = [row.to(y.device, y.dtype) for row in _A]
        self.error_weights = _ERROR.to(y.device, y.dtype)
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
        for i in range(1, 7):
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
        separate[good] = field(t[good], x[good])
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
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** 0.2)
    h = torch.minimum(100 * h0, h1)
    return torch.where(h.isfinite() & (h > 0), h, torch.full_like(h, 1e-6)).clamp(max=span)
