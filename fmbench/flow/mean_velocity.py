"""The mean velocity between two times, by which a sample jumps (MeanFlow: Geng et al. 2025, arXiv:2505.13447).

With v the velocity field and x_s its trajectory through x_t, the mean velocity from t to a later time r is

    m(x_t, t, r) = 1 / (r - t)  integral of v(x_s, s) ds from t to r,      so that      x_r = x_t + (r - t) m(x_t, t, r).

At r = t it is the velocity itself. The derivative of (r - t) m by t along the trajectory gives the identity that trains it,

    m = v + (r - t) (d/dt) m,      where      (d/dt) m = (dm/dx) v + dm/dt

(their eq. 6; their time runs the other way, which turns the sign). For v in it, training takes the conditional velocity. A
network that predicts m is called with times of shape (B, 2): t, and the span r - t. Called with times (B,), its span is 0.

The weight of the loss, :attr:`MeanVelocity.power`, moves its optimum. At power 0 the optimum is m. At power p it is where
E(|D|^2 + offset)^(1 - p) has no gradient: this is m only if |D| hardly varies, as with images, or if D is symmetric about 0. In
few dimensions it is nearer to the most likely velocity than to the mean.
"""

import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmbench.flow.broadcast import check_shape, expand_to
from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath


@dataclass(frozen=True)
class MeanVelocity:
    """How a network learns the mean velocity. The defaults are those of the paper's CIFAR-10 experiment (appendix A).

    Attributes:
        share: the part of each batch with r > t. The rest learns the velocity, r = t.
        power, offset: a sample's loss is |D|^2 / (|D|^2 + offset)^power, whose denominator has no gradient (their eq. 22).

    Raises:
        ValueError: the share is not in [0, 1], the power not in [0, 1], or the offset not positive and finite.
    """

    share: float = 0.75
    power: float = 0.75
    offset: float = 1e-3

    def __post_init__(self) -> None:
        for what, value in (("share", self.share), ("power", self.power)):
            if not 0 <= value <= 1:
                raise ValueError(f"{what} must be between 0 and 1, not {value}")
        if not 0 < self.offset < math.inf:
            raise ValueError(f"offset must be positive and finite, not {self.offset}")

    def ends(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """t and r (B,) of a batch from its training times (B,): r = t for its first samples, which are in random order.

        The two times of a sample are its own and that of the sample before it, in their order. They are independent of each other
        and of the sample.
        """
        before = times.roll(1)
        t, r = torch.minimum(times, before), torch.maximum(times, before)
        alike = torch.arange(len(times), device=times.device) < round((1 - self.share) * len(times))
        return t, torch.where(alike, t, r)

    def loss(
        self,
        network: nn.Module | Callable[[Tensor, Tensor], Tensor],
        path: AffinePath,
        ends: tuple[Tensor, Tensor],
        x0: Tensor,
        x1: Tensor,
    ) -> Tensor:
        """The loss of each sample, shape (B,), in the type of x1.

        Args:
            network: called once, as network((t, r - t), x_t) with times (B, 2) in the type of x1.
            ends: t and r, float64 (B,).
            x0, x1: noise and data, shape (B, *).

        Raises:
            ValueError: the network's output does not have the shape of x1.
        """
        t, r = (end.to(x1.dtype) for end in ends)
        x_t, v = path.interpolate(x0, x1, ends[0])
        # The fused attention kernels have no forward-mode derivative.
        with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            with warnings.catch_warnings():
                # torch's own code for its first derivative of this kind.
                warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
                moving = forward_ad.make_dual(t, torch.ones_like(t))
            output = network(torch.stack([moving, r - moving], 1), forward_ad.make_dual(x_t, v))
            check_shape("the network's output", output, x1.shape)
            predicted, slope = forward_ad.unpack_dual(output)
        target = v if slope is None else v + expand_to(r - t, x1) * slope.detach()
        square = (predicted - target).flatten(1).square().sum(1)
        return square / (square.detach() + self.offset) ** self.power


def check_jumps(jumps: object, plain: bool) -> None:
    """Check that jumps go with the other parts of a method; None goes with all.

    Args:
        plain: whether it predicts the velocity, whose target is that of each pair, without a weight or a correction of times.

    Raises:
        ValueError: they do not, or this is no :class:`MeanVelocity`.
    """
    if jumps is None:
        return
    if not isinstance(jumps, MeanVelocity):
        raise ValueError(f"jumps must be a fmbench.flow.mean_velocity.MeanVelocity, not a {type(jumps).__name__}")
    if not plain:
        raise ValueError(
            "jumps go with prediction: velocity, weighting: uniform and target: conditional, at times that are not corrected; "
            "the mean velocity has a target and a weight of its own. Change these, or set jumps: none"
        )


JUMPS: dict[str, type[MeanVelocity]] = {"mean_velocity": MeanVelocity}
"""Ways to learn jumps, by the names a config uses."""


def jump_field(network: nn.Module | Field) -> Field:
    """The mean velocity of a network as a field of two times: float64 of shape (2,), t and r, in the place of t."""

    def field(ends: Tensor, x: Tensor) -> Tensor:
        t, r = ends.to(x.dtype).expand(2)
        out: Tensor = network(torch.stack([t, r - t]).expand(x.shape[0], 2), x)
        return out

    return field


def jump(field: Field, x: Tensor, grid: Tensor, path: AffinePath) -> Tensor:
    """Jump along ``grid`` (N + 1 times) from x (B, *), with one evaluation of a :func:`jump_field` a jump."""
    for ends in itertools.pairwise(grid):
        x = x + (ends[1] - ends[0]).to(x.dtype) * field(torch.stack(ends), x)
    return x
