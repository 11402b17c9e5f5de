"""What torch would broadcast without a word, refused: times against samples, and tensors that must have one shape."""

from torch import Tensor


def expand_to(t: Tensor, x: Tensor) -> Tensor:
    """Reshape ``t`` of shape ``(B,)`` or ``()`` so that it broadcasts against ``x`` of shape ``(B, *)``.

    Raises:
        ValueError: ``t`` has another batch size than ``x``. One time for all samples has the shape ``()``, not ``(1,)``.
    """
    if t.ndim == 0:
        return t
    if t.shape != x.shape[:1]:
        raise ValueError(f"t must have shape () or ({x.shape[0]},) to go with x of shape {tuple(x.shape)}, not {tuple(t.shape)}")
    return t.reshape(-1, *([1] * (x.ndim - 1)))


def check_shape(what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    """Check that a tensor has a shape exactly.

    Raises:
        ValueError: it has another shape.
    """
    if found.shape != shape:
        raise ValueError(f"{what} must have shape {tuple(shape)}, not {tuple(found.shape)}")


def check_alike(what: str, found: Tensor, x: Tensor) -> None:
    """Check that a tensor computed for ``x`` has its shape, type and device. This costs about a microsecond.

    Raises:
        ValueError: one of them differs.
    """
    if found.shape != x.shape or found.dtype != x.dtype or found.device != x.device:
        raise ValueError(
            f"{what} must have the shape, type and device of x, which are {tuple(x.shape)}, {x.dtype} and {x.device}; it has "
            f"{tuple(found.shape)}, {found.dtype} and {found.device}"
        )
