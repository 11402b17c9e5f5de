"""Probability paths for tests that hold on every path."""

import pytest

from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving

EVERY_PATH = [
    OptimalTransport(0.1),
    OptimalTransport(0.0),
    VariancePreserving(),
    VarianceExploding(0.2, 5.0),
    CosineVP(),
    GeneralAffine(lambda t: t**2, lambda t: 1 - t**3),
    Rescaled(VariancePreserving(), lambda t: 1 + t),
]
every_path = pytest.mark.parametrize("path", EVERY_PATH, ids=lambda p: f"{type(p).__name__}{EVERY_PATH.index(p)}")
