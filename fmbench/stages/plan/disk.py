"""What a data set's part of a run takes on disk."""

from fmbench.config.config import Config
from fmbench.stages.plan.workload import Sizes, dimensions, trained_methods


def disk_bytes(config: Config, name: str, shape: tuple[int, ...], parameters: int, sizes: Sizes | None = None) -> int:
    """Bytes of checkpoints, snapshots, averages, weights, samples, and of the prepared data if ``sizes`` are given.

    Each training has two checkpoints: weights, two moments and the averages. Snapshots are kept in two places.
    """
    copies = 0  # of the weights
    for method in trained_methods(config):
        training = config.training(name, method)
        averages = len(training.more_ema_decays)
        copies += 2 * (4 + averages) + 1 + averages + 2 * len(training.snapshot_steps())
    samples = 4 * config.dataset(name).evaluation.sample.n * dimensions(shape)
    data = 0 if sizes is None else split_bytes(sum(sizes), shape)
    return data + len(config.seeds) * (4 * parameters * copies + len(config.methods) * samples)


def split_bytes(n: int, shape: tuple[int, ...]) -> int:
    """Bytes of n prepared samples: images are kept as bytes, points as float32."""
    return n * dimensions(shape) * (1 if len(shape) == 3 else 4)
