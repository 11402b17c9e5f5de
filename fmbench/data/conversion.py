"""Points to float32: their shift is subtracted first, and a conversion that loses what they vary in is refused."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.data.statistics import Columns
from fmbench.errors import DataError

LARGEST_ROUNDING = 1e-3
"""The largest rounding to float32 that is allowed, as a share of the column's standard deviation."""
LEAST_KEPT = 0.9
"""The smallest share of a column's different values, among :data:`SAMPLE` of each piece, that must still differ in float32."""
SAMPLE = 500
"""Points of each piece whose values are compared with each other. Among very many values, some always become equal."""
NOISE = 16
"""Values differ if they are further apart than this number of steps of their own type: less is noise of their computation."""


class Conversion:
    """Converts the points of one split to float32, piece by piece, and measures what is lost.

    The shift is subtracted in float64, or in the type of the points if that has more digits.

    Args:
        name: the split, for messages.
        shift: float64, of shape () or (D,).
    """

    def __init__(self, name: str, shift: NDArray[np.float64]) -> None:
        self.name, self.shift = name, shift
        self.exact = True  # whether no value was shifted or had more digits than float32
        self.step = 0.0  # the relative distance of neighbouring values in the coarsest type that was met
        self.columns = Columns()
        self.rounding: Any = 0.0  # (D,), the largest so far
        self.different: Any = 0  # (2, D), how many different values the compared points have, before and after
        self.middle: NDArray[np.float64] | None = None  # (D,), the median of the first piece

    def __call__(self, values: NDArray) -> NDArray[np.float32]:
        """Points (n, D) of any floating type as float32.

        Raises:
            DataError: they are not such points, some are not finite, or some are beyond float32's range.
        """
        self._check(values)
        self.step = max(self.step, float(np.finfo(values.dtype).eps))
        if values.dtype.itemsize <= 4 and not self.shift.any():
            return values.astype(np.float32, copy=False)
        self.exact = False
        with np.errstate(over="ignore", under="ignore"):
            wide = values.astype(np.result_type(values.dtype, np.float64), copy=False) - self.shift
            narrow = wide.astype(np.float32)
        if not (fits := np.isfinite(narrow)).all():
            column = int(np.flatnonzero(~fits.all(0))[0])
            largest = values[:, column][np.abs(wide[:, column]).argmax()]
            raise DataError(
                f"{self.name}, column {column}: the value {largest:.6g} is beyond the range of float32, which fmbench computes "
                f"in (up to {np.finfo(np.float32).max:.2g}); divide the values in the file"
            )
        if len(values):
            self._measure(wide, narrow)
        return narrow

    def _check(self, values: NDArray) -> None:
        if values.dtype.kind != "f" or values.ndim != 2:
            remedy = "; convert them to float64 first" if values.dtype.kind in "iub" else ""
            raise DataError(
                f"{self.name}: expected points (N, D) of floats, found shape {values.shape} of {values.dtype}{remedy}"
            )
        if self.shift.shape not in ((), values.shape[1:]):
            raise DataError(f"shift has {self.shift.size} numbers, but the points have {values.shape[1]} columns")
        if not (finite := np.isfinite(values)).all():
            row, column = np.argwhere(~finite)[0]
            raise DataError(
                f"{self.name}: some points are not finite, such as {values[row, column]} in column {column} "
                f"({int((~finite).sum())} numbers in these {len(values)} points); remove these points"
            )

    def _measure(self, wide: NDArray, narrow: NDArray[np.float32]) -> None:
        self.columns.add(wide)
        self.rounding = np.maximum(self.rounding, np.abs(wide - narrow).max(0).astype(np.float64))
        if self.middle is None:
            self.middle = np.median(wide, axis=0).astype(np.float64)
        ordered = np.sort(wide[:: -(-len(wide) // SAMPLE)], axis=0)
        apart = np.diff(ordered, axis=0) > NOISE * np.finfo(wide.dtype).eps * np.abs(ordered[1:])
        still = np.diff(ordered.astype(np.float32), axis=0) > 0
        self.different = self.different + np.stack([apart.sum(0) + 1, still.sum(0) + 1])

    def check(self) -> None:
        """Check that float32 has kept what the points vary in.

        Raises:
            DataError: in some column it has not; the message names the first one and gives a shift that helps.
        """
        if self.exact or self.middle is None:
            return
        std, reach = self.columns.std, np.maximum(np.abs(self.columns.low), np.abs(self.columns.high))
        varies = self.columns.high - self.columns.low > NOISE * np.finfo(np.float64).eps * reach
        before, after = self.different
        lost = varies & ((self.rounding > LARGEST_ROUNDING * std) | (after < LEAST_KEPT * before))
        if not lost.any():
            return
        column = int(np.flatnonzero(lost)[0])
        if reach[column] < 1e-30:
            remedy = "multiply the values in the file by a power of ten"
        else:
            shift = rounded(self.shift + self.middle, std)
            remedy = f"give the parameter shift, which is subtracted in float64 before: shift: {listed(shift)}"
        others = f" ({int(lost.sum())} of {len(lost)} columns are so)" if lost.sum() > 1 else ""
        raise DataError(
            f"{self.name}, column {column}: the conversion to float32, which fmbench computes in, loses what the values vary in. "
            f"Their standard deviation is {std[column]:.3g}, and rounding moves them by up to {self.rounding[column]:.3g}; "
            f"{before[column]} different values become {after[column]}{others}. To keep them, {remedy}. "
            "To accept the loss, save the values as float32"
        )


def rounded(values: NDArray[np.float64], std: NDArray[np.float64]) -> list[float]:
    """Values (D,), each to the power of ten nearest to its column's standard deviation: a number to write into a config."""
    out = []
    for value, spread in zip(*np.broadcast_arrays(values, std), strict=True):
        size = spread if spread > 0 else max(abs(value), 1e-300)
        digits = -round(float(np.log10(size)))
        out.append(round(float(value), digits) + 0.0)
    return out


def listed(values: list[float]) -> str:
    """Numbers as YAML reads them: one number if all are equal, else a list. At most 16, then an ellipsis in words."""
    texts = [number(value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    return f"[{', '.join(texts[:16])}{' and so on' if len(texts) > 16 else ''}]"


def number(value: float) -> str:
    """A float that YAML 1.1 reads as one: with a point before any exponent."""
    mantissa, e, exponent = repr(float(value)).partition("e")
    if e and "." not in mantissa:
        mantissa += ".0"
    return mantissa + e + exponent
