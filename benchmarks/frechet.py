"""The Frechet distance from statistics, against pytorch-fid's formula with scipy's general matrix root.

Float64, one thread. Full rank at 2048 dimensions (a spectrum that falls over four decades, as Inception's does), fewer samples
than dimensions on one side and on both, and the accumulation of statistics against numpy's covariance of everything at once.
"""

import warnings
from functools import partial
from typing import Any

import numpy as np
from _timing import arguments, in_turn, machine, show, write
from numpy.typing import NDArray
from pytorch_fid.fid_score import calculate_frechet_distance

from fmbench.metrics.frechet import FeatureAccumulator, FeatureStatistics, feature_statistics, frechet_distance

D = 2048


def features(n: int, seed: int) -> NDArray[np.float32]:
    g = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((D, D)))[0]
    scales = np.logspace(0.5, -1.5, D) * np.exp(0.1 * g.standard_normal(D))
    return ((g.standard_normal((n, D)) * scales) @ basis.T + 0.4 + 0.02 * g.standard_normal(D)).astype(np.float32)


def theirs(p: FeatureStatistics, q: FeatureStatistics) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, about an argument that pytorch-fid gives to sqrtm
        return float(calculate_frechet_distance(p.mean, p.covariance, q.mean, q.covariance))


def distances(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for n, m in ((5000, 5000), (1000, 5000), (1000, 1000)):
        p, q = feature_statistics(features(n, 1)), feature_statistics(features(m, 2))
        found, expected = frechet_distance(p, q), theirs(p, q)
        row: dict[str, Any] = {"n": f"{n}, {m}", "distance": found, "difference": abs(found - expected) / expected}
        rows.append({**row, **in_turn(partial(frechet_distance, p, q), partial(theirs, p, q), rounds)})
    return rows


def accumulation(rounds: int) -> list[dict[str, Any]]:
    x = features(5000, 3)
    rows = []
    for batch in (50, 500):

        def pieces(batch: int = batch) -> FeatureStatistics:
            accumulator = FeatureAccumulator()
            for start in range(0, len(x), batch):
                accumulator.update(x[start : start + batch])
            return accumulator.statistics()

        def whole() -> NDArray:
            return np.cov(x.astype(np.float64), rowvar=False)

        np.testing.assert_allclose(pieces().covariance, whole(), rtol=0, atol=1e-12)
        rows.append({"n": f"5000 in pieces of {batch}", **in_turn(pieces, whole, rounds)})
    return rows


def main() -> None:
    options = arguments(__doc__)
    before = machine()
    tables = {"distances": distances(options.rounds), "accumulation": accumulation(options.rounds)}
    for name, rows in tables.items():
        print(f"\n{name}\n")
        extra = ["distance", "difference"] if name == "distances" else []
        show(rows, ["n", *extra, "ours_ms", "theirs_ms", "ratio", "ratio_low", "ratio_high"])
    write(options.out, before, tables)


if __name__ == "__main__":
    main()
