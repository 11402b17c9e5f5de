"""Networks, all called as network(t, x) with t of shape (B,) and x of shape (B, *).

A network of a data set with a condition is called as network(t, x, condition). Its constructor has a keyword about it:
``condition_channels`` of an image (B, condition_channels, H, W), or ``condition_classes`` of class numbers (B,), where the number
after the last class says that the label is not told.

A network of a method that learns to jump is built with the keyword ``spans=True`` and also called with times (B, 2): the time,
and the span to a later one (:mod:`fmbench.flow.mean_velocity`).
"""

from typing import Any

from torch import nn

from fmbench.config.plugins import resolve
from fmbench.networks.mlp import MLP
from fmbench.networks.transformer import Transformer
from fmbench.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"mlp": MLP, "unet": UNet, "transformer": Transformer}
"""Networks by the kinds a config uses."""


def build_network(
    kind: str, shape: tuple[int, ...], parameters: dict[str, Any], condition: dict[str, int] | None = None
) -> nn.Module:
    """A new network of a kind for samples of ``shape``, which leaves out the batch.

    Args:
        condition: the keyword about the condition, if there is one, and ``spans`` for a network whose times may have spans.

    Raises:
        ValueError: an unknown kind, a parameter that the network does not take, or a shape that it cannot work on.
    """
    factory = resolve(NETWORKS, "network", kind)
    try:
        network: nn.Module = factory(shape, **parameters, **(condition or {}))
    except TypeError as error:
        what = "a method that learns to jump" if list(condition or ()) == ["spans"] else "the condition of its data set"
        told = f"; {what} needs the keyword {', '.join(condition)}" if condition else ""
        raise ValueError(f"network {kind!r} does not take the parameters {parameters}: {error}{told}") from None
    return network
