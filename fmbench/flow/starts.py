"""Where the path of a sample starts: at noise, or at its condition with some noise (a data-dependent coupling).

With the condition as the start, x0 = c + sigma z with z ~ N(0, I) takes the place of the noise in x_t = a x1 + s x0. Given c, x0
and x1 are independent, so flow matching learns a field that carries N(c, sigma^2 I) to the data given c (Albergo et al. 2023,
*Stochastic interpolants with data-dependent couplings*). Training, sampling and likelihood take the same start.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


class Start(ABC):
    """Where the paths of samples start.

    Attributes:
        std: the standard deviation of the start around :meth:`mean`, in units of the noise.
    """

    std: float

    @abstractmethod
    def place(self, noise: Tensor, *condition: Tensor) -> Tensor:
        """x0 from noise (B, *), and from the condition of these samples if there is one."""

    @abstractmethod
    def mean(self, *condition: Tensor) -> Tensor | float:
        """The mean of x0 given the condition: (B, *), or 0."""


@dataclass(frozen=True)
class Noise(Start):
    """x0 is noise."""

    std: float = 1.0

    def place(self, noise: Tensor, *condition: Tensor) -> Tensor:
        return noise

    def mean(self, *condition: Tensor) -> Tensor | float:
        return 0.0


NOISE = Noise()


@dataclass(frozen=True)
class ConditionStart(Start):
    """x0 = c + std z: the condition, such as the upsampled low-resolution image, with noise.

    Raises:
        ValueError: the standard deviation is negative or not finite.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf:
            raise ValueError(f"std must be zero or more, not {self.std}")

    def place(self, noise: Tensor, *condition: Tensor) -> Tensor:
        (image,) = condition
        return image + self.std * noise

    def mean(self, *condition: Tensor) -> Tensor | float:
        (image,) = condition
        return image


STARTS: dict[str, type[Start]] = {"noise": Noise, "condition": ConditionStart}
"""Starts by the names a config uses."""
