"""The Inception Score (Salimans et al. 2016): how confident and how varied a classifier's predictions on samples are.

    IS = exp( mean over x of KL( p(y | x) || p(y) ) ),   p(y) = mean over x of p(y | x)

The score is between 1 and the number of classes. It uses the samples alone and no real data. It is
meaningful only for images of ImageNet's classes.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits. The deviation has n in the denominator, as in published scores."""

    mean: float
    std: float


def inception_score(logits: NDArray | Tensor, splits: int = 10) -> InceptionScore:
    """The score of predictions, given as logits (n, K), over ``splits`` consecutive parts whose sizes differ by at most one.

    Logits may be -inf. The score of few samples is too low, so the size of a split is part of the number: 5,000 at the usual
    n = 50,000. Samples that are sorted by class must be shuffled first, because splits are consecutive.

    Raises:
        ValueError: the shape is not (n, K), there are fewer samples than splits, or a row of logits defines no distribution.
    """
    rows = torch.as_tensor(logits)
    if rows.ndim != 2 or not 1 <= splits <= len(rows):
        raise ValueError(f"logits must have shape (n, K) with n >= {splits} for {splits} splits, not {tuple(rows.shape)}")
    scores = []
    for i in range(splits):
        p = rows[i * len(rows) // splits : (i + 1) * len(rows) // splits].to(torch.float64).softmax(1)
        if not bool(p.isfinite().all()):
            raise ValueError("logits are not finite; the samples they come from have diverged")
        # xlogy: a class of probability 0 adds 0, where 0 log 0 would add nan.
        divergence = torch.xlogy(p, p).sum(1).mean() - torch.xlogy(p.mean(0), p.mean(0)).sum()
        scores.append(float(divergence.exp()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))
