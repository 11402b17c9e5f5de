"""What minibatch OT does to trajectories: trainings of ours against torchcfm's, on the checkerboard. It measures no time.

Ours: the training loop's batches and step, with fm_ot and ot_cfm. Theirs: the step of torchcfm's 2-D examples, with its
ConditionalFlowMatcher and ExactOptimalTransportConditionalFlowMatcher, which draws its pairs from the plan with replacement. Both
have the same data, initial weights, steps, size of a batch, Adam and learning rate, which falls to 0. Weights are not averaged.
Each network is then solved from the same noise: NFE of dopri5 at 1e-5, the mean over samples, and straightness and path length
along a fine midpoint solve.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import machine, show, write
from torch import Tensor, nn
from torchcfm import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.points import checkerboard
from fmbench.data.prepared import DataSet, read
from fmbench.data.writer import write as write_data
from fmbench.flow.fields import CountingField
from fmbench.flow.objectives import build
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.registry import find_solver
from fmbench.flow.straightness import MeasuredField
from fmbench.networks.mlp import MLP
from fmbench.system.distributed import ALONE
from fmbench.training.batches import Batches
from fmbench.training.schedule import learning_rate
from fmbench.training.step import Step

COLUMNS = ["training", "nfe", "straightness", "path_length", "displacement"]
SETTINGS = TrainingSettings(iterations=2000, batch_size=256, learning_rate=1e-3, ema_decay=0.0)
SAMPLES, MIDPOINT_STEPS, SEEDS = 1000, 100, (0, 1, 2)
CPU = torch.device("cpu")


def network(seed: int) -> MLP:
    """The default benchmark's network for the checkerboard, with the weights of a seed."""
    torch.manual_seed(seed)
    return MLP((2,), width=192, depth=5)


def ours(method: str, dataset: DataSet, seed: int) -> nn.Module:
    """A network trained by our loop."""
    objective, trained = build(METHODS[method]), network(seed)
    step = Step(objective, trained, SETTINGS, CPU)
    batches = Batches(dataset, SETTINGS, seed, CPU, ALONE, objective.start, objective.coupling)
    for i in range(SETTINGS.iterations):
        step.set_rate(learning_rate(i, SETTINGS.iterations, SETTINGS.learning_rate, 0, SETTINGS.schedule))
        step(*batches(i))
    batches.close()
    return trained.eval()


def theirs(matcher: ConditionalFlowMatcher, dataset: DataSet, seed: int) -> nn.Module:
    """A network trained by the step of torchcfm's examples."""
    trained, points = network(seed), torch.from_numpy(np.array(dataset.train))
    data = dataset.to_model(points, torch.empty(0))
    optimiser = torch.optim.Adam(trained.parameters(), lr=SETTINGS.learning_rate)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, SETTINGS.iterations)
    for _ in range(SETTINGS.iterations):
        x1 = data[torch.randint(len(data), (SETTINGS.batch_size,))]
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        loss = (trained(t, x_t) - u_t).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
    return trained.eval()


@torch.no_grad()
def measured(trained: nn.Module) -> dict[str, float]:
    """NFE and straightness of a network's flow from the same noise for all."""
    noise = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0))
    path = build(METHODS["fm_ot"]).path

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = trained(t.to(x.dtype).expand(len(x)), x)
        return out

    nfe = dopri5(velocity, noise, 0.0, 1.0, rtol=1e-5, atol=1e-5).nfe.double().mean()
    along = MeasuredField(CountingField(velocity, 0.0, 1.0))
    end = find_solver("midpoint").spend(2 * MIDPOINT_STEPS, along, noise, lambda n: uniform_grid(0.0, 1.0, n), path)
    found = along.straightness(noise, end, 0.0, 1.0)
    displacement = (end - noise).square().sum(1).mean()
    numbers = (nfe, found.deviation.mean(), found.ratio.mean(), displacement)
    return dict(zip(COLUMNS[1:], map(float, numbers), strict=True))


def main() -> None:
    torch.set_num_threads(1)
    before = machine()
    trainings: dict[str, Callable[[DataSet, int], nn.Module]] = {
        "ours, fm_ot": lambda data, seed: ours("fm_ot", data, seed),
        "torchcfm, CFM": lambda data, seed: theirs(ConditionalFlowMatcher(sigma=0.0), data, seed),
        "ours, ot_cfm": lambda data, seed: ours("ot_cfm", data, seed),
        "torchcfm, OT-CFM": lambda data, seed: theirs(ExactOptimalTransportConditionalFlowMatcher(sigma=0.0), data, seed),
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_data(checkerboard(), Path(folder), {"dataset": "checkerboard"})
        dataset = read(Path(folder))
        for name, train in trainings.items():
            found = [measured(train(dataset, seed)) for seed in SEEDS]
            row: dict[str, Any] = {"training": name}
            for column in COLUMNS[1:]:
                values = [numbers[column] for numbers in found]
                row |= {column: statistics.mean(values), f"{column}_std": statistics.stdev(values)}
            rows.append(row)
    show(rows, [*COLUMNS, *(f"{column}_std" for column in COLUMNS[1:])])
    write(None, before, {"trainings": rows})


if __name__ == "__main__":
    main()
