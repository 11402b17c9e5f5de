"""Velocity fields: the field of a network, and a wrapper that counts its evaluations (NFE).

A field is a function (t, x) -> velocity with x of shape (B, *) and t of shape () or (B,), float64. The velocity has the shape,
type and device of x. Solvers check this at each evaluation: torch would broadcast or convert another one without a word.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from fmbench.flow.broadcast import check_alike
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import VELOCITY, Prediction, convert

Field = Callable[[Tensor, Tensor], Tensor]


def velocity_field(network: nn.Module | Field, path: AffinePath, prediction: Prediction) -> Field:
    """The sampling field of a network trained to predict ``prediction`` on ``path``.

    For the VP path and the score this is the probability-flow ODE, eq. 46 of Lipman et al. 2023. The network is called as
    ``network(t, x)`` with t of shape (B,) in the type of x. The conversion runs on float64 times.
    """

    def field(t: Tensor, x: Tensor) -> Tensor:
        return convert(prediction.ask(network, path, t, x), x, t, path, prediction, VELOCITY)

    return field


def rows_of(field: Any, which: Any) -> Any:
    """The field of some samples of a batch.

    Most fields are the same for all samples, and are returned as they are. A field that differs by sample, such as one with a
    condition, has a method ``rows``. Whoever evaluates a field on some samples of a batch alone takes their rows of it first.

    Args:
        which: indices or a mask of the samples.
    """
    return field.rows(which) if hasattr(field, "rows") else field


@dataclass(frozen=True)
class FieldOfSamples:
    """A field that differs by sample: each has a row of ``values``, such as its condition.

    Attributes:
        bind: from values (B, ...) to the field of B samples.
        values: a tuple of tensors, with a row for each sample of the batch.
    """

    bind: Callable[..., Field]
    values: tuple[Tensor, ...]

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return self.bind(*self.values)(t, x)

    def rows(self, which: Any) -> "FieldOfSamples":
        """The field of some of these samples."""
        return FieldOfSamples(self.bind, tuple(value[which] for value in self.values))


@dataclass(frozen=True)
class FieldOfAll:
    """A field that differs by sample, for samples 0, 1, 2, ... whose values are read as they are needed.

    Attributes:
        bind: from values (B, ...) to the field of B samples.
        read: from the indices of samples to their values.
    """

    bind: Callable[..., Field]
    read: Callable[[Sequence[int]], tuple[Tensor, ...]]

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        raise ValueError("this field differs by sample: take the rows of the samples to evaluate it on")

    def rows(self, which: Sequence[int]) -> FieldOfSamples:
        """The field of samples with these indices."""
        return FieldOfSamples(self.bind, self.read(which))


def guided(told: Field, untold: Field, scale: float) -> Field:
    """Classifier-free guidance (Ho & Salimans 2022): v = v(x) + scale (v(x | c) - v(x)), at twice the cost.

    Args:
        told, untold: the field given the condition, and the one without it.
        scale: 1 for the field given the condition, 0 for the other; their paper's w is scale - 1.
    """

    def field(t: Tensor, x: Tensor) -> Tensor:
        base = untold(t, x)
        return base + scale * (told(t, x) - base)

    return field


Value = TypeVar("Value")


@dataclass
class Count:
    """What a :class:`CountingField` and all rows of it have spent."""

    calls: int = 0
    evaluations: int = 0


class CountingField(Generic[Value]):
    """A field that counts its evaluations (NFE) and keeps t inside the interval on which the field is defined.

    Adaptive solvers step past the end, and their first-step probe can land far outside. The field is undefined there, so t is
    clamped here, in one place. The wrapped function may return more than the velocity, such as its divergence.

    Raises:
        ValueError: when called, if the velocity does not have the shape, type and device of x.

    Attributes:
        calls: how often the field was called: the NFE of a batch that shares its step size.
        evaluations: how many samples were evaluated in all; divided by the batch size, the mean NFE of a sample.

    Args:
        cost: evaluations of the network in one of the field, such as 2 with guidance. Each of them counts.
    """

    def __init__(self, field: Callable[[Tensor, Tensor], Value], t_min: float = 0.0, t_max: float = 1.0, cost: int = 1) -> None:
        self.field, self.t_min, self.t_max, self.cost = field, t_min, t_max, cost
        self.count = Count()

    @property
    def calls(self) -> int:
        return self.count.calls

    @property
    def evaluations(self) -> int:
        return self.count.evaluations

    def __call__(self, t: Tensor, x: Tensor) -> Value:
        self.count.calls += self.cost
        self.count.evaluations += self.cost * x.shape[0]
        value = self.field(t.clamp(self.t_min, self.t_max), x)
        check_alike("the velocity", value[0] if isinstance(value, tuple) else value, x)  # type: ignore[arg-type]
        return value

    def rows(self, which: Any) -> "CountingField[Value]":
        """The field of some samples, which counts together with this one."""
        some = CountingField(rows_of(self.field, which), self.t_min, self.t_max, self.cost)
        some.count = self.count
        return some


@dataclass(frozen=True)
class _Checked:
    field: Field

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        velocity = self.field(t, x)
        check_alike("the velocity", velocity, x)
        return velocity

    def rows(self, which: Any) -> "_Checked":
        return _Checked(rows_of(self.field, which))


def checked(field: Field) -> Field:
    """The field, checked as in a :class:`CountingField`, for solvers that somebody calls without one.

    Raises:
        ValueError: when called, if the velocity does not have the shape, type and device of x.
    """
    return field if isinstance(field, CountingField) else _Checked(field)
