"""A small U-Net's settings, and helpers for tests of networks."""

import torch
from torch import nn

SMALL = {"channels": 16, "channels_multiple": (1, 2), "depth": 1, "attention_resolutions": (4,), "head_channels": 8}


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter away from its start, so that the zero-initialised layers pass something on."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return network.eval()


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
