"""The Frechet distance between two Gaussians fitted to features (Heusel et al. 2017, eq. 6).

With InceptionV3's features it is the FID; with any other extractor it is a Frechet distance on that extractor's
features and must be called so. Its bias falls as 1/n: compare at equal n only.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FeatureStatistics(NamedTuple):
    """Mean (D,), covariance (D, D) with n - 1 in the denominator, both float64, and the number of samples."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int


def feature_statistics(features: NDArray) -> FeatureStatistics:
    """Statistics of features of shape (n, D), accumulated in float64.

    Raises:
        ValueError: fewer than two samples, or features that are not finite.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must have shape (n, D) with n >= 2, not {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features are not all finite; the samples they come from have diverged")
    return FeatureStatistics(features.mean(0), np.cov(features, rowvar=False).reshape(2 * [features.shape[1]]), len(features))


def frechet_distance(p: FeatureStatistics, q: FeatureStatistics) -> float:
    """|m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^(1/2)).

    The trace of the root is the sum of square roots of the eigenvalues of R C_q R with R the symmetric root of C_p: two
    symmetric eigenproblems, exact for singular covariances too, where a general matrix root loses digits.
    """
    if p.mean.shape != q.mean.shape:
        raise ValueError(f"features of {p.mean.shape[0]} and {q.mean.shape[0]} dimensions cannot be compared")
    values, vectors = np.linalg.eigh(p.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ q.covariance @ root
    trace_root = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    difference = p.mean - q.mean
    return float(difference @ difference + np.trace(p.covariance) + np.trace(q.covariance) - 2 * trace_root)
