"""A network on points for tests of losses."""

import torch
from torch import Tensor

from fmbench.flow.broadcast import expand_to
from fmbench.flow.fields import Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import Prediction


def network(t: Tensor, x: Tensor) -> Tensor:
    """A smooth function that is different in every argument and place."""
    t = t.reshape(-1, *([1] * (x.ndim - 1)))
    return torch.sin(2 * x) + (1 + t) * x.flip(-1) - t**2


def behind_inputs(prediction: Prediction, path: AffinePath, of_raw: Field) -> Field:
    """The network that gets what the prediction's inputs make of (t, x), and answers as ``of_raw`` does at (t, x)."""

    def answer(time: Tensor, seen: Tensor) -> Tensor:
        if prediction.inputs is None:
            return of_raw(time, seen)
        t = path.time_of_log_snr(-8 * time)  # the only other time is EDM's log(sigma) / 4
        factor, _ = prediction.inputs(path.coefficients(t), t)
        return of_raw(t, seen / expand_to(factor, seen))

    return answer
