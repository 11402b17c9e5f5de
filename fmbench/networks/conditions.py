"""The check of what a network of images is told of each sample."""

from torch import Tensor


def check_condition(x: Tensor, condition: Tensor | None, channels: int, classes: bool) -> None:
    """Check that the condition of images (B, C, H, W) is one that a network was built for.

    Args:
        channels: of an image as the condition; 0 for none.
        classes: whether the condition is class numbers (B,).

    Raises:
        ValueError: the condition is missing, of another shape, or there should be none.
    """
    wanted: tuple[int, ...] | None = None
    if classes:
        wanted = x.shape[:1]
    elif channels:
        wanted = (x.shape[0], channels, *x.shape[2:])
    found = None if condition is None else tuple(condition.shape)
    if found != wanted:
        raise ValueError(f"this network takes a condition of {_words(wanted)}, not of {_words(found)}")


def _words(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"shape {tuple(shape)}"
