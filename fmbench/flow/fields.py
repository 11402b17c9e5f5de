"""Velocity fields: the field of a network, and a wrapper that counts its evaluations (NFE).

A field is a function (t, x) -> velocity with x of shape (B, *) and t of shape () or (B,), float64. The velocity has the shape,
type and device of x. Solvers check this at each evaluation: torch would broadcast or convert another one without a word.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

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
        output = network(t.to(x.dtype).expand(x.shape[0]), x)
        return convert(output, x, t, path, prediction, VELOCITY)

    return field


Value = TypeVar("Value")


class CountingField(Generic[Value]):
    """A field that counts its evaluations (NFE) and keeps t inside the interval on which the field is defined.

    Adaptive solvers step past the end, and their first-step probe can land far outside. The field is undefined there, so t is
    clamped here, in one place. The wrapped function may return more than the velocity, such as its divergence.

    Raises:
        ValueError: when called, if the velocity does not have the shape, type and device of x.

    Attributes:
        calls: how often the field was called: the NFE of a batch that shares its step size.
        evaluations: how many samples were evaluated in all; divided by the batch size, the mean NFE of a sample.
    """

    def __init__(self, field: Callable[[Tensor, Tensor], Value], t_min: float = 0.0, t_max: float = 1.0) -> None:
        self.field, self.t_min, self.t_max = field, t_min, t_max
        self.calls = 0
        self.evaluations = 0

    def __call__(self, t: Tensor, x: Tensor) -> Value:
        self.calls += 1
        self.evaluations += x.shape[0]
        value = self.field(t.clamp(self.t_min, self.t_max), x)
        check_alike("the velocity", value[0] if isinstance(value, tuple) else value, x)  # type: ignore[arg-type]
        return value


def checked(field: Field) -> Field:
    """The field, checked as in a :class:`CountingField`, for solvers that somebody calls without one.

    Raises:
        ValueError: when called, if the velocity does not have the shape, type and device of x.
    """
    if isinstance(field, CountingField):
        return field

    def inner(t: Tensor, x: Tensor) -> Tensor:
        velocity = field(t, x)
        check_alike("the velocity", velocity, x)
        return velocity

    return inner
