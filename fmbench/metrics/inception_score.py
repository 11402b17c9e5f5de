"""The Inception Score (Salimans et al. 2016): how sure and how varied a classifier's predictions on samples are.

    IS = exp( mean over x of KL( p(y | x) || p(y) ) ),   p(y) = mean over x of p(y | x)

Between 1 and the number of classes. It never looks at the data, and means something for images of ImageNet's classes only.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class InceptionScore(NamedTuple):
    """Mean over the splits, and their standard deviation with n in the denominator, as everyone publishes it."""

    mean: float
    std: float


def inception_score(logits: NDArray | Tensor, splits: int = 10) -> InceptionScore:
    """The score of predictions given as logits (n, K), -inf allowed, over ``splits`` consecutive parts of equal size up to one.

    The score of few samples is too low, so the splits' size is part of the number: 5,000 at the usual n = 50,000. The order
    of the samples decides who is in which split, so samples ordered by class must be shuffled before.

    Raises:
        ValueError: not (n, K), fewer samples than splits, or a row without a distribution.
    """
    rows = torch.as_tensor(logits)
    if rows.ndim != 2 or not 1 <= splits <= len(rows):
        raise ValueError(f"logits must have shape (n, K) with n >= {splits} for {splits} splits, not {tuple(rows.shape)}")
    scores = []
    for i in range(splits):
        p = rows[i * len(rows) // splits : (i + 1) * len(rows) // splits].to(torch.float64).softmax(1)
        if not bool(p.isfinite().all()):
            raise ValueError("logits are not finite; the samples they come from have diverged")
        # xlogy: a class of probability 0 adds nothing, where 0 log 0 would add nan.
        divergence = torch.xlogy(p, p).sum(1).mean() - torch.xlogy(p.mean(0), p.mean(0)).sum()
        scores.append(float(divergence.exp()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))
