"""Small results folders for tests, with invented numbers: the files that the stages write, gathered by the real ``collect``."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.config import selections, specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.reading import parse
from fmbench.config.specs import model_folder
from fmbench.config.stages import MODEL_STAGES
from fmbench.config.written_out import written_out
from fmbench.stages.collect import run as collect
from fmbench.store.documents import write_document
from fmbench.store.files import sha256
from fmbench.store.parquet import table, write_table
from fmbench.store.previews import previews
from fmbench.store.records import Row, write_rows
from fmbench.store.tables import CURVE
from fmbench.system.progress import Console

QUIET = Console("test", "none")
METHODS = ["ddpm", "fm_ot", "oracle_ot"]


def config(**changes: Any) -> Config:
    """A config with a data set of points (board) and one of images (digits).

    ``changes`` are top-level keys, or keys such as ``board__training`` for a section of a data set's settings.
    """
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


def number_for(*parts: Any) -> float:
    """A number in [1, 2) that depends on the parts alone."""
    return 1 + int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


Owner = tuple[str, str, int]
Found = tuple[str, float, str, dict[str, Any]]
"""Metric, value, unit and further columns of a row."""


@dataclass(frozen=True)
class Invented:
    """What is invented about the rows of a results folder.

    Attributes:
        code: the start of the code hashes.
        extractor: the hash of the feature extractor.
        data: what the hashes of the data depend on.
        change: gives the columns of a row that shall differ.
        optional_stages: the stages outside the main job that have rows.
    """

    code: str = "c0de"
    extractor: str = "aaaa"
    data: str = "d"
    change: Callable[[Row], dict[str, Any]] = lambda row: {}
    optional_stages: Sequence[str] = ("dequantisation",)

    def rows(self, stage: str, owner: Owner, found: Iterable[Found]) -> list[Row]:
        """Rows of one model (data set, method, seed)."""
        origin = {"config_hash": "h", "code_hash": f"{self.code}-{stage}", "commit": "c0ffee", "versions": '{"torch": "2.14"}'}
        origin["device"] = "cpu"
        made = [Row(*owner, stage, metric, value, unit, **(origin | columns)) for metric, value, unit, columns in found]
        return [Row(**(vars(row) | self.change(row))) for row in made]


def make_results(folder: Path, wanted: Config, **invented: Any) -> Path:
    """Make a results folder of the config ``wanted``, as a run leaves it, and return it.

    Args:
        invented: attributes of :class:`Invented`.
    """
    rules = Invented(**invented)
    for dataset in wanted.datasets:
        test = _write_data(folder, wanted, dataset, rules)
        floor = rules.rows("features", (dataset, "", 0), [("data_std", number_for(dataset), "model units", {})])
        write_rows(folder / "features" / dataset / "rows.parquet", floor)
        for method in wanted.methods:
            for seed in wanted.seeds:
                _write_model(folder, wanted, (dataset, method.name, seed), test, rules)
    collect(specs.collect(wanted), folder, QUIET, written_out(wanted))
    return folder


def _write_data(folder: Path, wanted: Config, dataset: str, rules: Invented) -> NDArray:
    """Write a data set's test split and manifest, and return the test split: a little of everything that figures draw."""
    shape, kind = ((2,), np.float32) if dataset == "board" else ((1, 4, 4), np.uint8)
    test = np.arange(5 * np.prod(shape)).reshape(5, *shape).astype(kind) % 17
    where = folder / "data" / dataset
    where.mkdir(parents=True)
    np.save(where / "test.npy", test)
    train = hashlib.sha256(f"{rules.data}/{dataset}".encode()).hexdigest()
    splits = {
        "test": {"n": 5, "std": 1.0, "sha256": sha256(where / "test.npy")},
        "train": {"n": 5, "std": 1.0, "sha256": train},
    }
    manifest = {"dataset": dataset, "shape": list(shape), "levels": None if dataset == "board" else 17, "splits": splits}
    manifest |= dict.fromkeys(("support", "entropy", "classes", "class_names"))
    write_document(
        where / "manifest.json", manifest | {"spec": specs.prepare(wanted, dataset), "scale": 1.0, "shift": 0.0, "warnings": []}
    )
    return test


def _write_model(folder: Path, wanted: Config, owner: Owner, test: NDArray, rules: Invented) -> None:
    """Write what training and evaluation of one model leave."""
    spec, at = specs.train(wanted, *owner), number_for(*owner)
    for stage, found in _measurements(owner, rules).items():
        if stage == "models" or MODEL_STAGES[stage].collected or stage in rules.optional_stages:
            rows = rules.rows("train" if stage == "models" else stage, owner, found)
            write_rows(folder / model_folder(stage, *owner) / "rows.parquet", rows)
    if owner[1] in selections.taught(wanted):
        pairs = [("pair_evaluations", 1000 * at, "evaluations", {"n": 20}), ("pair_seconds", 3 * at, "s", {"n": 20})]
        write_rows(folder / model_folder("pairs", *owner) / "rows.parquet", rules.rows("pairs", owner, pairs))
    model = folder / model_folder("models", *owner)
    steps = [] if owner[1].startswith("oracle") else [10, 20]
    curve = [{"step": s, "loss": at / s, "learning_rate": 1e-3} for s in steps]
    write_table(model / "loss_curve.parquet", table(curve, CURVE))
    values = {"spec": spec, "spec_hash": settings_hash(spec), "code_hash": rules.code, "shape": list(test.shape[1:])}
    write_document(model / "config.json", values | {"parameters": 1234, "step": 20, "reason": ""})
    samples = at * test[:3].astype(np.float32) / 2
    write_table(folder / model_folder("sample", *owner) / "preview.parquet", previews(*owner, samples, range(3)))


def _measurements(owner: Owner, rules: Invented) -> dict[str, list[Found]]:
    """The invented measurements of one model, by stage."""
    dataset, method, _ = owner
    at = number_for(*owner)
    points = dataset == "board"
    unit, distance = ("nats", "energy_distance") if points else ("bits/dim", "frechet")
    features = "coordinates" if points else f"classifier({dataset}, 64 features, {rules.extractor})"
    tight = {"rtol": 1e-5, "atol": 1e-5}
    found: dict[str, list[Found]] = {
        "models": [
            ("final_loss", at, "loss", {"step": 20}),
            ("train_seconds", 7 * at, "s", {"step": 20}),
            ("images_seen", 640.0, "samples", {"step": 20}),
        ],
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
    if not points and not method.startswith("oracle"):
        found["dequantisation"] = [
            (metric, at / k, unit, {"draws": k, "probes": 1, "n": 4})
            for metric in ("nll_paper", "nll_averaged")
            for k in (1, 5, 20)
        ]
    return found
