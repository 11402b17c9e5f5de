"""Networks, all called as network(t, x) with t of shape (B,) and x of shape (B, *)."""

from typing import Any

from torch import nn

from fmbench.config.plugins import resolve
from fmbench.networks.mlp import MLP
from fmbench.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"mlp": MLP, "unet": UNet}
"""Networks by the kinds a config uses."""


def build_network(kind: str, shape: tuple[int, ...], parameters: dict[str, Any]) -> nn.Module:
    """A new network of a kind for samples of ``shape``, which leaves out the batch.

    Raises:
        ValueError: an unknown kind, a parameter that the network does not take, or a shape that it cannot work on.
    """
    factory = resolve(NETWORKS, "network", kind)
    try:
        network: nn.Module = factory(shape, **parameters)
    except TypeError as error:
        raise ValueError(f"network {kind!r} does not take the parameters {parameters}: {error}") from None
    return network
