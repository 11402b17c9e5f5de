"""What a network is told of each sample: an image, behind the channels of its own, or a class number, by its embedding."""

import torch
from torch import Tensor, nn


def told(x: Tensor, condition: Tensor | None, channels: int, label: nn.Embedding | None) -> tuple[Tensor, list[Tensor]]:
    """The samples with the images that are their conditions, and the embeddings of their class numbers.

    Args:
        x: samples (B, *).
        condition: as the network was built for: images (B, channels, H, W), class numbers, int64 (B,), or None.
        channels: of an image as the condition; 0 for none.
        label: the embedding of class numbers; None for none.

    Returns:
        The samples, (B, C + channels, H, W) with an image; a list of what is to be added to an embedding (B, width), empty
        without class numbers.

    Raises:
        ValueError: the condition is missing, of another shape, or there should be none.
    """
    wanted: tuple[int, ...] | None = None
    if label is not None:
        wanted = x.shape[:1]
    elif channels:
        wanted = (x.shape[0], channels, *x.shape[2:])
    found = None if condition is None else tuple(condition.shape)
    if found != wanted:
        raise ValueError(f"this network takes a condition of {_words(wanted)}, not of {_words(found)}")
    if condition is None:
        return x, []
    return (x, [label(condition)]) if label is not None else (torch.cat([x, condition.to(x.dtype)], 1), [])


def _words(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"shape {tuple(shape)}"
