"""Broadcasting times of shape (B,) against samples of shape (B, *)."""

from torch import Tensor


def expand_to(t: Tensor, x: Tensor) -> Tensor:
    """Reshape ``t`` of shape ``(B,)`` or ``()`` so that it broadcasts against ``x`` of shape ``(B, *)``.

    Raises:
        ValueError: ``t`` has another batch size than ``x``.
    """
    if t.ndim == 0:
        return t
    if t.ndim != 1 or t.shape[0] not in (1, x.shape[0]):
        raise ValueError(f"t must have shape () or ({x.shape[0]},) to go with x of shape {tuple(x.shape)}, not {tuple(t.shape)}")
    return t.reshape(-1, *([1] * (x.ndim - 1)))
