"""The paths and the known data distributions that the tables of the theory are computed for."""

import torch

from fmbench.flow.oracle import MixtureOracle
from fmbench.flow.paths import AffinePath, CosineVP, OptimalTransport, VarianceExploding, VariancePreserving

PATHS: dict[str, AffinePath] = {
    "ot": OptimalTransport(),
    "vp": VariancePreserving(),
    "cosine_vp": CosineVP(),
    "ve": VarianceExploding(),
}


def mixture_1d() -> MixtureOracle:
    """Two narrow Gaussians and a broad one on the line."""
    means, variances = torch.tensor([[-1.2], [0.6], [1.4]]), torch.tensor([[[0.01]], [[0.01]], [[0.09]]])
    return MixtureOracle(means, variances, torch.tensor([0.4, 0.25, 0.35]))


def mixture_2d() -> MixtureOracle:
    """Three Gaussians in the plane: an isotropic, a correlated and an elongated one."""
    covariances = torch.tensor([[[0.05, 0.0], [0.0, 0.05]], [[0.2, 0.12], [0.12, 0.1]], [[0.02, 0.0], [0.0, 0.3]]])
    return MixtureOracle(torch.tensor([[1.2, 0.5], [-0.8, 0.9], [0.1, -1.1]]), covariances, torch.tensor([0.3, 0.4, 0.3]))
