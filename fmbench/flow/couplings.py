"""Couplings: which noise x0 goes with which data x1 of a batch (Tong et al. 2023, arXiv:2302.00482; Pooladian et al. 2023).

The methods of the paper draw noise and data independently. A coupling pairs the B samples of noise and the B of data of a batch
again, so that the cost |x0 - x1|^2 of a pair is small and the conditional paths cross less. Data stay in their places and noise
moves to them: every sample of the data is in a batch once, and keeps its condition. Over many batches noise is still N(0, I) and
data are still the data, so samples and likelihood start from N(0, I) as without a coupling. The noise given its data is N(0, I)
no more, so a velocity gives no score.

**Two things are called OT.** This module is about *minibatch OT*: pairs by optimal transport within a batch (the coupling). The
paper's *conditional OT path*, x_t = t x1 + (1 - (1 - sigma_min) t) x0, is the path between a pair, whatever chose the pair.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fmbench.flow.broadcast import check_shape

_WARM_REGULARISATION = 0.05
"""Of the rounds of Sinkhorn that an assignment starts from, as a share of the mean cost; smaller ones are reached in steps."""
_SMALL = 64
"""Up to this batch an assignment alone is faster than with these rounds."""
_ROUNDS = 20
"""Rounds of Sinkhorn between two exponentials of the costs, which keep all numbers in the range of float64."""
_MOST_ROUNDS = 1000
"""The most of them at the regularisation of the plan."""
_TOLERANCE = 1e-6
"""The mean error of the sums of a plan at which Sinkhorn's rounds end; :func:`_feasible` removes the rest."""


class Coupling(ABC):
    """A rule that gives each sample of data of a batch its noise."""

    @abstractmethod
    def partners(self, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        """The row of x0 that goes with each row of x1: int64 (B,), on any device.

        Args:
            x0: noise N(0, I), shape (B, *).
            x1: data in model space, shape (B, *).
            u: uniforms on [0, 1) for couplings that draw, float64 (B,), on the CPU.
        """


@dataclass(frozen=True)
class Independent(Coupling):
    """Noise and data as they were drawn, which is independently."""

    def partners(self, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        return torch.arange(len(x1))


INDEPENDENT = Independent()


@dataclass(frozen=True)
class GivenPairs(Independent):
    """Pairs that come as such, as from a teacher: their noise is not independent of their data, and nothing pairs them again."""


GIVEN = GivenPairs()


def given(coupling: Coupling) -> Coupling:
    """The coupling of pairs that come as such.

    Raises:
        ValueError: the method has a coupling of its own.
    """
    if coupling != INDEPENDENT:
        raise ValueError("the pairs of a teacher are coupled already; leave out the coupling, or the teacher")
    return GIVEN


@dataclass(frozen=True)
class MinibatchOT(Coupling):
    """The permutation of the noise with the smallest sum of |x0 - x1|^2: exact optimal transport within the batch.

    torchcfm solves the same problem and then draws B pairs from the permutation with replacement, so that some data are in a
    batch twice and some not at all. Here all are there once.
    """

    def partners(self, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        cost = squared_distances(x1, x0)
        if len(cost) > _SMALL:
            # A number added to a row or a column adds the same to every permutation. Near the optimal dual variables, the
            # assignment is found several times faster.
            rows, columns = _round(cost, _start(cost), _WARM_REGULARISATION * float(cost.mean()))[0]
            cost = cost - rows[:, None] - columns
        return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])


@dataclass(frozen=True)
class Sinkhorn(Coupling):
    """Draws from the plan P that minimises the sum of P |x0 - x1|^2 + r P log P (Cuturi 2013; Tong et al. 2023, section 3.3).

    Each sample of data draws its noise from its own row of the plan, by the inverse of the row's distribution function at its
    uniform number. So all data are in a batch once. A noise may be there twice or not at all; its expected count is 1, because
    the columns of the plan have equal sums. Draws are independent given the plan.

    Attributes:
        regularisation: r, as a share of the mean cost of all pairs of the batch.
        relative: whether it is such a share. If not, it is r itself, in squared units of model space. The pairs of a
            Schroedinger bridge of noise sigma have r = 2 sigma^2.

    Raises:
        ValueError: the regularisation is not positive and finite, or ``relative`` is not true or false.
    """

    regularisation: float = 0.05
    relative: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.relative, bool):
            raise ValueError(f"relative must be true or false, without quotes, not {self.relative!r}")
        if isinstance(self.regularisation, bool | str) or not 0 < self.regularisation < float("inf"):
            raise ValueError(f"regularisation must be a positive number, not {self.regularisation!r}; minibatch_ot has none")

    def partners(self, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        plan = self.plan(x0, x1)
        chosen = torch.searchsorted(plan.cumsum(1), u.double()[:, None] * plan.sum(1, keepdim=True), right=True)
        return chosen[:, 0].clamp(max=len(x0) - 1)

    def plan(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The plan: how much of each x1 (rows) goes with each x0 (columns), float64 (B, B) on the CPU.

        Rows and columns add up to 1, to rounding, also where Sinkhorn's rounds end before they have converged.
        """
        cost = squared_distances(x1, x0)
        r = self.regularisation * (float(cost.mean()) if self.relative else 1.0)
        rows, columns = _potentials(cost, r)
        return _feasible(torch.exp((rows[:, None] + columns - cost) / r))


COUPLINGS: dict[str, type[Coupling]] = {"independent": Independent, "minibatch_ot": MinibatchOT, "sinkhorn": Sinkhorn}
"""Couplings by the names a config uses."""


def coupled(coupling: Coupling, x0: Tensor, x1: Tensor, u: Tensor, groups: Tensor | None = None) -> Tensor:
    """The noise of each sample of a batch: rows of x0, in the order of x1.

    Args:
        x0, x1, u: as in :meth:`Coupling.partners`.
        groups: integers (B,); noise is exchanged only between samples with the same number. None for all samples.

    Raises:
        ValueError: the coupling does not return a row of x0 for each row of x1.
    """
    everything = torch.arange(len(x1))
    members = [everything] if groups is None else [everything[groups.cpu() == number] for number in groups.unique().tolist()]
    chosen = everything.clone()
    for here in members:
        on_device = here.to(x1.device)
        partners = coupling.partners(x0[on_device], x1[on_device], u[here])
        check_shape("the partners of a coupling", partners, here.shape)
        if partners.dtype != torch.int64 or int(partners.min()) < 0 or int(partners.max()) >= len(here):
            raise ValueError(
                f"a coupling must return rows of x0 as int64 numbers from 0 to {len(here) - 1}; it returned {partners.dtype} "
                f"from {partners.min():g} to {partners.max():g}"
            )
        chosen[here] = here[partners.cpu()]
    return x0[chosen.to(x0.device)]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 of samples a (N, *) and b (M, *), float64 (N, M) on the CPU.

    In float64, so that rounding, which differs between numbers of threads, does not decide between two pairs.
    """
    a, b = (x.flatten(1).double() for x in (a, b))
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)
    return squares.clamp(min=0).cpu()


Potentials = tuple[Tensor, Tensor]
"""The dual variables f (N,) of rows and g (N,) of columns. Their plan is exp((f + g - cost) / r)."""


def _potentials(cost: Tensor, r: float) -> Potentials:
    """The dual variables of the plan with the regularisation r, whose columns add up to 1, and its rows nearly so."""
    found, coarse = _start(cost), _WARM_REGULARISATION * float(cost.mean())
    while coarse > 4 * r > 0:  # a small regularisation converges in fewer rounds from the solution of a larger one
        found, _ = _round(cost, found, coarse)
        coarse /= 4
    for _ in range(_MOST_ROUNDS // _ROUNDS):
        found, error = _round(cost, found, r)
        if error <= _TOLERANCE:
            break
    return found


def _start(cost: Tensor) -> Potentials:
    """Dual variables that leave no cost below 0 and a cost of 0 in every row and column."""
    columns = cost.min(0).values
    return (cost - columns).min(1).values, columns


def _round(cost: Tensor, of: Potentials, r: float) -> tuple[Potentials, float]:
    """The dual variables after some rounds of Sinkhorn, and the mean error of the sums of the plan's rows."""
    rows, columns = of
    r = max(r, torch.finfo(torch.float64).tiny)  # of a batch whose costs are all 0
    kernel = torch.exp((rows[:, None] + columns - cost) / r)
    v = torch.ones(len(cost), dtype=torch.float64)
    for _ in range(_ROUNDS):
        u = 1 / (kernel @ v)
        v = 1 / (u @ kernel)
    error = float((u * (kernel @ v) - 1).abs().mean())
    return (rows + r * u.log(), columns + r * v.log()), error


def _feasible(plan: Tensor) -> Tensor:
    """The nearest plan whose rows and columns add up to 1 (Altschuler et al. 2017, algorithm 2)."""
    plan = plan / plan.sum(1, keepdim=True).clamp(min=1)
    plan = plan / plan.sum(0).clamp(min=1)
    rows, columns = (1 - plan.sum(1)).clamp(min=0), (1 - plan.sum(0)).clamp(min=0)
    total = rows.sum()
    return plan + rows[:, None] * columns / total if total > 0 else plan
