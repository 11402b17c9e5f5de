"""The numbers of Table 1 by other libraries' parts, in one process: ``python _peer_table.py CONFIG`` prints them as JSON.

torchcfm's matcher, step and U-Net; torchdiffeq's dopri5 for samples and likelihoods; pytorch-fid's distance. The data are
prepared in the results folder of the config.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _peer import SMALL, pair
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import Tensor, nn
from torchdiffeq import odeint
from train_step import in_memory, theirs_of

from fmbench.config.config import Config
from fmbench.config.evaluation_settings import LikelihoodSettings, SampleSettings
from fmbench.config.reading import load
from fmbench.data.prepared import DataSet, read


class Perceptron(nn.Module):
    """A network of t and x."""

    def __init__(self, dimensions: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [dimensions + 1, *[width] * depth]
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, dimensions))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat([x, t[:, None]], 1))
        return out


class Field:
    """A network as torchdiffeq calls it, with the number of its calls."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.calls = network, 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.network(t.expand(len(x)), x)
        return out


def table(config: Config) -> dict[str, dict[str, float]]:
    """Train and measure every model of a config."""
    found = {}
    for name in config.datasets:
        data = read(Path(config.results_dir) / "data" / name)
        for method in config.methods:
            for seed in config.seeds:
                torch.manual_seed(seed)
                found[f"{name}/{method.name}/{seed}"] = model(config, name, method.name, data)
    return found


def model(config: Config, name: str, method: str, data: DataSet) -> dict[str, float]:
    """Train a network and measure the NFE, the distance and the NLL (nats in model space)."""
    settings = config.dataset(name)
    wanted = settings.network.model_dump()
    network = pair(data.shape, SMALL)[1] if data.is_images else Perceptron(data.dimensions, wanted["width"], wanted["depth"])
    training = config.training(name, method)
    training = training.model_copy(update={"warmup_iterations": max(1, training.warmup_iterations)})
    step = theirs_of(network, data, training, torch.device("cpu"), in_memory)
    for _ in range(training.iterations):
        step()
    field = Field(network.eval().requires_grad_(False))
    drawn = samples(field, data, settings.evaluation.sample)
    nfe = field.calls
    return {"nfe": nfe, "distance": distance(data, drawn), "nll": nll(field, data, settings.evaluation.likelihood)}


@torch.no_grad()
def samples(field: Field, data: DataSet, settings: SampleSettings) -> Tensor:
    """Samples by dopri5, a batch at a time."""
    ends, found = torch.tensor([0.0, 1.0]), []
    for start in range(0, settings.n, settings.batch):
        noise = torch.randn(min(settings.batch, settings.n - start), *data.shape)
        found.append(odeint(field, noise, ends, rtol=settings.rtol, atol=settings.atol, method="dopri5")[-1])
    return torch.cat(found)


def distance(data: DataSet, drawn: Tensor) -> float:
    """pytorch-fid's distance, in the pixels of images and in the coordinates of points."""
    chosen = torch.from_numpy(np.array(data.train[: len(drawn)]))
    real = data.to_model(chosen, torch.rand(chosen.shape))
    moments = [f(x.flatten(1).double().numpy()) for x in (drawn, real) for f in (mean, covariance)]
    return float(calculate_frechet_distance(*moments))


def mean(x: Any) -> Any:
    return x.mean(0)


def covariance(x: Any) -> Any:
    return np.cov(x, rowvar=False)


def nll(field: Field, data: DataSet, settings: LikelihoodSettings) -> float:
    """The mean over the test split: state and log density back from t = 1, by dopri5."""
    test = torch.from_numpy(np.array(data.test[: settings.n]))
    x1, ends, total = data.to_model(test, torch.rand(test.shape)), torch.tensor([1.0, 0.0]), 0.0
    for x in x1.split(settings.batch):
        exact = data.dimensions <= settings.exact_up_to
        probes = torch.eye(data.dimensions) if exact else torch.randint(2, x.flatten(1).shape)[None] * 2.0 - 1

        def both(t: Tensor, state: tuple[Tensor, Tensor], probes: Tensor = probes) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                at = state[0].detach().requires_grad_()
                v = field(t, at)
                divergence = torch.zeros(len(at))
                for k, probe in enumerate(probes):
                    e = probe.expand(len(at), -1).reshape(at.shape)
                    (product,) = torch.autograd.grad((v * e).sum(), at, retain_graph=k + 1 < len(probes))
                    divergence = divergence + (product * e).flatten(1).sum(1)
            return v.detach(), divergence

        start = (x, torch.zeros(len(x)))
        with torch.no_grad():
            noise, change = (y[-1] for y in odeint(both, start, ends, rtol=settings.rtol, atol=settings.atol, method="dopri5"))
        log_p = -0.5 * noise.flatten(1).square().sum(1) - 0.5 * data.dimensions * float(np.log(2 * np.pi)) + change
        total -= float(log_p.sum())
    return total / len(x1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(table(load(sys.argv[1]))))
