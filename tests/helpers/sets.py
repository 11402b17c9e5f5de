"""Result sets for tests of sharing: what the stages leave for a small config, numbers made up, joined by the real collecting."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.reading import parse
from fmbench.config.specs import model_folder
from fmbench.stages.collect import EVALUATIONS
from fmbench.stages.collect import run as collect
from fmbench.stages.common import CURVE
from fmbench.store.files import write_json
from fmbench.store.records import Row, previews, table, write_rows, write_table
from fmbench.system.progress import Console

QUIET = Console("test", "none")
METHODS = ["ddpm", "fm_ot", "oracle_ot"]


def config(**changes: Any) -> Config:
    """Two data sets, points and images; ``changes`` are top-level keys, or ``board__training`` for one below settings."""
    settings: dict[str, Any] = {
        "board": {"data": "checkerboard", "network": {"kind": "mlp"}, "training": {"iterations": 100}},
        "digits": {"data": "digits", "network": {"kind": "unet", "channels": 8}, "training": {"iterations": 200}},
    }
    values: dict[str, Any] = {"seeds": [0, 1], "datasets": ["board", "digits"], "methods": METHODS}
    for key, value in changes.items():
        dataset, _, section = key.partition("__")
        if section:
            settings[dataset] |= {section: value}
        else:
            values[key] = value
    return parse(values | {"settings": settings})


def number(*parts: Any) -> float:
    """A number in [1, 2) that belongs to these parts."""
    return 1 + int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32


def make(
    folder: Path,
    wanted: Config,
    code: str = "c0de",
    judge: str = "aaaa",
    data: str = "d",
    change: Callable[[Row], dict[str, Any]] = lambda row: {},
    kept: Sequence[str] = ("dequantisation",),
) -> Path:
    """A results folder of ``wanted``, as a run leaves it.

    Args:
        code: hash of the stages' code; ``judge``: of the extractor; ``data``: told apart by the data's hashes.
        change: columns of a row that shall be other.
        kept: stages beside the main job's whose rows are there.
    """
    for dataset in wanted.datasets:
        shape = (2,) if dataset == "board" else (1, 4, 4)
        # A little of everything that figures draw.
        test = np.arange(5 * np.prod(shape)).reshape(5, *shape).astype(np.float32 if dataset == "board" else np.uint8) % 17
        where = folder / "data" / dataset
        where.mkdir(parents=True)
        np.save(where / "test.npy", test)
        hashes = {s: {"n": 5, "sha256": hashlib.sha256(f"{data}/{dataset}/{s}".encode()).hexdigest()} for s in ("test", "train")}
        manifest = {"dataset": dataset, "shape": list(shape), "levels": None if dataset == "board" else 17, "splits": hashes}
        write_json(where / "manifest.json", manifest | {"spec": specs.prepare(wanted, dataset), "scale": 1.0})

        def rows(
            stage: str, method: str, seed: int, *found: tuple[str, float, str, dict[str, Any]], d: str = dataset
        ) -> list[Row]:
            versions = '{"torch": "2.14"}'
            stamp = {
                "config_hash": "h",
                "code_hash": f"{code}-{stage}",
                "commit": "c0ffee",
                "versions": versions,
                "device": "cpu",
            }
            made = [
                Row(d, method, seed, stage, metric, value, unit, **(stamp | columns)) for metric, value, unit, columns in found
            ]
            return [Row(**(vars(row) | change(row))) for row in made]

        features = f"classifier({dataset}, 64 features, {judge})" if dataset == "digits" else "coordinates"
        floor = rows("features", "", 0, ("data_std", number(dataset), "model units", {}))
        write_rows(folder / "features" / dataset / "rows.parquet", floor)
        for method in wanted.methods:
            for seed in wanted.seeds:
                spec = specs.train(wanted, dataset, method.name, seed)
                owner = (dataset, method.name, seed)
                at = number(*owner)
                unit = "nats" if dataset == "board" else "bits/dim"
                tight = {"rtol": 1e-5, "atol": 1e-5}
                distance = "energy_distance" if dataset == "board" else "frechet"
                by_stage = {
                    "models": [("final_loss", at, "loss", {"step": 20}), ("train_seconds", 7 * at, "s", {"step": 20})],
                    "sample": [
                        ("nfe", 40 * at, "evaluations", {"solver": "dopri5", "nfe": 40 * at, "n": 50, **tight}),
                        ("nfe_shared", 44 * at, "evaluations", {"solver": "dopri5_shared", "nfe": 44 * at, "batch": 25, **tight}),
                    ],
                    "likelihood": [("nll", 2 * at, unit, {"solver": "dopri5_shared", "nfe": 30 * at, "n": 50, **tight})],
                    "sweep": [
                        ("mse", at / nfe, "squared", {"solver": s, "nfe": float(nfe), "n": 10})
                        for s in ("euler", "midpoint")
                        for nfe in (4, 8)
                    ],
                    "sample_quality": [(distance, 3 * at, "squared features", {"features": features, "n": 50})],
                }
                if dataset == "digits" and not method.name.startswith("oracle"):
                    by_stage["dequantisation"] = [
                        (metric, at / k, unit, {"draws": k, "probes": 1, "n": 4})
                        for metric in ("nll_paper", "nll_averaged")
                        for k in (1, 5, 20)
                    ]
                for stage, found in by_stage.items():
                    if stage in ("models", *EVALUATIONS, *kept):
                        named = "train" if stage == "models" else stage
                        write_rows(folder / model_folder(stage, *owner) / "rows.parquet", rows(named, method.name, seed, *found))
                model = folder / model_folder("models", *owner)
                steps = [] if method.name.startswith("oracle") else [10, 20]
                write_table(
                    model / "loss_curve.parquet",
                    table([{"step": s, "loss": at / s, "learning_rate": 1e-3} for s in steps], CURVE),
                )
                values = {"spec": spec, "spec_hash": settings_hash(spec), "code_hash": code, "shape": list(shape)}
                write_json(model / "config.json", values | {"parameters": 1234, "step": 20, "reason": ""})
                samples = at * test[:3].astype(np.float32) / 2
                write_table(folder / model_folder("sample", *owner) / "preview.parquet", previews(*owner, samples, range(3)))
    collect(specs.collect(wanted), folder, QUIET, specs.describe(wanted))
    return folder
