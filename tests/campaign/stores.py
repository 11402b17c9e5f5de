"""Damage to MLflow's database: kills while it is made, full disks and flipped bits, then ``fmbench mlflow-rebuild``."""

from pathlib import Path

from store_killer import KINDS, campaign
from tiny_benchmark import SEED, Bench
from tries import Tries


def run(bench: Bench, work: Path, number: int, seed: int) -> Tries:
    """Damage ``number`` stores of a benchmark, in each of the ways of :data:`store_killer.KINDS` in turn."""
    tries = Tries("stores", "a store of MLflow recovers by itself from a kill, a full disk or a flipped bit")
    work.mkdir(parents=True)
    runs = sorted(f"{method.name}/{SEED}" for method in bench.config.methods for _ in bench.config.datasets)
    for found in campaign(KINDS, bench.results, work, number, seed):
        what = f"{found['kind']} at {found['at']}"
        if found["code"] or found["runs"] != runs:
            tries.fault(f"{what}: exit code {found['code']}, runs {found['runs']}: {found['said'][-300:]}")
        else:
            tries.count(f"{found['kind']}: whole again" if found["hurt"] else "not hurt")
    return tries
