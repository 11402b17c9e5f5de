"""The Frechet distance between two Gaussians fitted to features (Heusel et al. 2017, eq. 6).

On the features of InceptionV3 it is the FID. On any other features it must be called a Frechet distance on these features. Its
bias falls as 1/n, so compare only distances at equal n (``fid_infinity`` shows the bias).

Everything is float64: sums of 50,000 features in float32 lose the small eigenvalues, and with them digits of the distance.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EPSILON = float(np.finfo(np.float64).eps)


class FeatureStatistics(NamedTuple):
    """Mean (D,), covariance (D, D) with n - 1 in the denominator, both float64, and the number of samples.

    ``factor`` is F (n, D) with F^T F = covariance, if n <= D and all samples were in memory; else None. With it the distance is
    faster, and keeps the digits that a covariance without full rank has lost.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int
    factor: NDArray[np.float64] | None = None


class FeatureAccumulator:
    """Computes the mean and covariance of any number of features in one pass over pieces of any size.

    It holds the mean and the scatter sum (x - mean)(x - mean)^T of all features so far, and updates both with a piece by

        mean' = mean + m / (n + m) d,   scatter' = scatter + scatter_piece + n m / (n + m) d d^T,   d = mean_piece - mean

    (Chan, Golub & LeVeque 1983). This never subtracts large numbers, as sum x x^T - n mean mean^T does. Rows are collected until
    there are D of them: one matrix product for all is faster than one for each small batch.

    Args:
        dimensions: D; by default, that of the first features.
    """

    def __init__(self, dimensions: int | None = None) -> None:
        self.n = 0
        self._dimensions = dimensions
        self._folded = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))
        self._rows: list[NDArray[np.float64]] = []
        self._waiting = 0

    def update(self, features: NDArray | Tensor) -> None:
        """Add features of shape (b, D), b >= 0, of any real type.

        Raises:
            ValueError: the shape is not (b, D), D differs from before, or a feature is not finite. Nothing is added then.
        """
        array = features.detach().cpu().numpy() if isinstance(features, Tensor) else np.asarray(features)
        if array.ndim != 2 or self._dimensions not in (None, array.shape[1]):
            wanted = "D" if self._dimensions is None else self._dimensions
            raise ValueError(f"features must have shape (n, {wanted}), not {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("features are not all finite; the samples they come from have diverged")
        self._dimensions = array.shape[1]
        block = max(array.shape[1], 512)
        for start in range(0, len(array), block):  # so that a million rows are not copied to float64 at once
            rows = np.array(array[start : start + block], dtype=np.float64)
            self._rows.append(rows)
            self._waiting += len(rows)
            self.n += len(rows)
            if self._waiting > block:
                self._fold()

    def statistics(self) -> FeatureStatistics:
        """Statistics of all features so far; more may be added afterwards.

        Raises:
            ValueError: there are fewer than two samples.
        """
        if self.n < 2 or self._dimensions is None:
            raise ValueError(f"features must have shape (n, D) with n >= 2, not {(self.n, self._dimensions or 0)}")
        if self._folded == 0:
            mean, centred = _centred(np.concatenate(self._rows))
            factor = centred / np.sqrt(self.n - 1) if self.n <= self._dimensions else None
            return FeatureStatistics(mean, centred.T @ centred / (self.n - 1), self.n, factor)
        self._fold()
        return FeatureStatistics(self._mean.copy(), self._scatter / (self.n - 1), self.n)

    def _fold(self) -> None:
        """Join the rows that wait to the mean and the scatter sum."""
        if not self._waiting:
            return
        mean, centred = _centred(np.concatenate(self._rows))
        n, m, scatter = self._folded, self._waiting, centred.T @ centred
        self._folded, self._rows, self._waiting = n + m, [], 0
        if n == 0:
            self._mean, self._scatter = mean, scatter
            return
        difference = mean - self._mean
        self._mean += m / (n + m) * difference
        self._scatter += scatter
        self._scatter += np.outer(n * m / (n + m) * difference, difference)


def _centred(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = rows.mean(0)
    return mean, rows - mean


def feature_statistics(features: NDArray | Tensor) -> FeatureStatistics:
    """Statistics of features (n, D), accumulated in float64.

    Raises:
        ValueError: there are fewer than two samples, or a feature is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must have shape (n, D) with n >= 2, not {tuple(features.shape)}")
    accumulator = FeatureAccumulator()
    accumulator.update(features)
    return accumulator.statistics()


def frechet_distance(p: FeatureStatistics, q: FeatureStatistics) -> float:
    """|m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^(1/2)), in squared units of the features.

    With roots C = R R^T of any shape, C_p C_q has the eigenvalues of (R_p^T R_q)(R_p^T R_q)^T, so the trace of its root is
    the sum of the singular values of R_p^T R_q. So there is never a square root of a matrix that is not symmetric.

    Raises:
        ValueError: the features have different dimensions.
    """
    if p.mean.shape != q.mean.shape:
        raise ValueError(f"features of {p.mean.shape[0]} and {q.mean.shape[0]} dimensions cannot be compared")
    difference = p.mean - q.mean
    traces = float(np.trace(p.covariance) + np.trace(q.covariance))
    return float(difference @ difference) + traces - 2 * _trace_of_root(p, q, 1e-9 * traces)


def _trace_of_root(p: FeatureStatistics, q: FeatureStatistics, tolerance: float) -> float:
    """tr (C_p C_q)^(1/2): by eigenvalues if they are accurate to ``tolerance``, else by singular values, in twice the time."""
    lower = _cholesky(p) if p.factor is None and q.factor is None else None
    if lower is not None:
        squares = torch.linalg.eigvalsh(lower.T @ torch.from_numpy(q.covariance) @ lower).clamp(min=0)
        # The error of each eigenvalue is about the last digit of the largest one. The root of a small eigenvalue magnifies it.
        error = (squares + EPSILON * squares[-1]).sqrt() - squares.sqrt()
        if float(error.sum()) <= tolerance:
            return float(squares.sqrt().sum())
    return float(torch.linalg.svdvals(_root(p).T @ _root(q)).sum())


def _root(p: FeatureStatistics) -> Tensor:
    """R of shape (D, r) with R R^T = C."""
    if p.factor is not None:
        return torch.from_numpy(p.factor).T
    lower = _cholesky(p)
    if lower is not None:
        return lower
    values, vectors = _eigh(p.covariance)
    # Eigenvalues below the rounding of the covariance are zero. Their roots, a thousand times larger, would be noise.
    kept = values > len(values) * EPSILON * values[-1]
    return vectors[:, kept] * values[kept].sqrt()


def _eigh(matrix: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, by QR iterations where torch's divide and conquer does not converge (many zeros)."""
    import scipy.linalg

    try:
        values, vectors = torch.linalg.eigh(torch.from_numpy(matrix))
    except RuntimeError:  # torch.linalg.LinAlgError
        values, vectors = map(torch.from_numpy, scipy.linalg.eigh(matrix, driver="ev"))
    return values, vectors


def _cholesky(p: FeatureStatistics) -> Tensor | None:
    """The lower triangular root of the covariance, or None if the covariance is singular up to rounding."""
    covariance = torch.from_numpy(p.covariance)
    lower, failed = torch.linalg.cholesky_ex(covariance)
    smallest = 10 * len(covariance) * EPSILON * covariance.diagonal().max()
    return None if int(failed) or lower.diagonal().square().min() <= smallest else lower
