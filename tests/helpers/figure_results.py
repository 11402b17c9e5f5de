"""A small results folder for the tests of figures, and what a figure written from it shows."""

import dataclasses
import xml.etree.ElementTree
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.parquet import read_table

from fmbench.config import names
from fmbench.config.hashing import canonical
from fmbench.config.method_settings import method_values
from fmbench.config.methods import METHODS, Method
from fmbench.report.figures import write_figure
from fmbench.store.parquet import write_table
from fmbench.store.previews import FEW_STEP_PREVIEWS, NFE, PREVIEW, TRAJECTORY, previews
from fmbench.store.records import Row, write_rows
from fmbench.store.tables import MODELS

REASON = "the loss became nan at iteration 17 (learning rate 0.002)"
FEATURES = "classifier(tall, 64 features)"
DRAWN = [name for name, files in names.FIGURES.items() if "theory" not in files[0] and name != "grid3x3"]
MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
TIMES, NFES = (0.0, 0.5, 1.0), (4, 8)


def frame(table: pa.Table, **columns: Any) -> pa.Table:
    """The table with constant columns."""
    for name, value in columns.items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    return table


def model_rows(dataset: str, method: str, seed: int, scale: float, gone: bool) -> dict[str, list[Row]]:
    """The rows of one model, by file. A smaller ``scale`` is a better model; ``gone``: its training diverged at the start."""
    primary, unit, features = ("energy_distance", "data units", "coordinates")
    if dataset == "tall":
        primary, unit, features = ("frechet", "squared features", FEATURES)
    skipped = {"status": "skipped", "reason": f"training diverged: {REASON}"}
    lost: dict[str, Any] = skipped if gone else {}

    def row(stage: str, metric: str, value: float, unit: str, **columns: Any) -> Row:
        return Row(dataset, method, seed, stage, metric, None if gone else value, unit, **columns, **lost)

    bad = {"status": "diverged", "reason": REASON} if gone else {}
    records = [
        Row(dataset, method, seed, "train", "final_loss", None if gone else 1.0, "loss", step=20, **bad),
        Row(dataset, method, seed, "train", "images_seen", 640.0, "samples", step=20),
        Row(dataset, method, seed, "train", "train_seconds", 10.0 + seed, "s", step=20),
        row("likelihood", "nll", 2.5, "bits/dim", n=9),
        row("sample", "nfe", 50.0 * scale, "evaluations", n=9, solver="dopri5"),
    ]
    for solver, nfe in product(("euler", "rk4"), (4.0, 8.0, 20.0)):
        columns: dict[str, Any] = {"solver": solver, "nfe": nfe, "n": 64}
        records.append(row("sweep", "mse", scale / nfe**2, "squared model units", reference="midpoint at 1000 NFE", **columns))
        records.append(row("sweep", "seconds", nfe / 1000, "s", **columns))
    reference = {"solver": "midpoint at 1000 NFE", "nfe": 300.0, "n": 16}
    records += [] if gone else [row("sweep", "reference_mse", 1e-12, "squared model units", **reference)]
    curves, few = [], []
    for step in (20,) if gone else (5, 10, 20):
        curves.append(row("learning_curve", "nfe", 30 + step + seed, "evaluations", step=step, n=9, solver="dopri5"))
        curves.append(row("learning_curve", "nfe_std_over_samples", 3.0, "evaluations", step=step, n=9, solver="dopri5"))
        curves.append(row("learning_curve", primary, scale * (20 / step + seed), unit, step=step, n=9, features=features))
    for solver, budgeted in product(("euler", "midpoint"), NFES):
        where: dict[str, Any] = {"solver": solver, "nfe": float(budgeted), "n": 9}
        few.append(row("few_step", primary, scale * (1 + seed) / budgeted, unit, features=features, **where))
        few.append(row("few_step", "seconds", budgeted / 1000, "s", **where))
    nfe = {} if gone else {"nfe": 50.0 * scale}
    few.append(row("few_step", primary, scale / 10, unit, features=features, solver="dopri5", n=9, **nfe))
    return {"records": records, "learning_curve": curves, "few_step": few}


def results_folder(
    folder: Path,
    lost: tuple[str, ...] = (),
    datasets: tuple[str, ...] = ("board", "tall"),
    methods: tuple[str, ...] = ("ddpm", "score_matching", "fm_ot", "mine"),
    seeds: tuple[int, ...] = (0, 1),
) -> Path:
    """A results folder with points (board) and upsampled images of 5 levels (tall); the methods in ``lost`` diverged."""
    g = np.random.default_rng(0)
    rows: dict[str, list[Row]] = {"records": [], "learning_curve": [], "few_step": []}
    shown: dict[str, list[pa.Table]] = {"previews": [], "trajectory": [], "few_step_previews": [], "nfe": []}

    for dataset in datasets:

        def draw(dataset: str = dataset) -> np.ndarray:
            return g.uniform(-2, 2, (40, 2)) if dataset == "board" else g.integers(0, 5, (40, 3, 6, 4))

        for (k, method), seed in product(enumerate(methods), seeds):
            for name, part in model_rows(dataset, method, seed, 10.0**-k, method in lost).items():
                rows[name] += part
            if method in lost:
                continue
            shown["previews"].append(previews(dataset, method, seed, draw(), range(40)))
            counts = [{"dataset": dataset, "method": method, "seed": seed, "index": i, "nfe": 20 + 6 * (i % 3)} for i in range(9)]
            shown["nfe"].append(pa.Table.from_pylist(counts, NFE))
            if seed == seeds[0]:
                for t in TIMES:
                    shown["trajectory"].append(frame(previews(dataset, method, seed, draw()[:8], range(8)), t=t))
                for solver, n in [*product(("euler", "midpoint"), NFES), ("dopri5", 0)]:
                    shown["few_step_previews"].append(
                        frame(previews(dataset, method, seed, draw()[:8], range(8)), solver=solver, nfe=n)
                    )
        shown["previews"].append(previews(dataset, "data", None, draw(), range(40)))
        if dataset == "tall":  # it is upsampled
            for method, shape in (("low_resolution", (40, 3, 3, 2)), ("bicubic", (40, 3, 6, 4))):
                images = np.random.default_rng(1).integers(0, 5, shape)
                shown["previews"].insert(0, previews(dataset, method, None, images, range(40)))
    for name, some in rows.items():
        write_rows(folder / f"{name}.parquet", some)
    known = [METHODS.get(method, dataclasses.replace(METHODS["fm_ot"], name=method)) for method in methods]
    write_models(folder, product(datasets, known, seeds))
    schemas = {"previews": PREVIEW, "trajectory": TRAJECTORY, "few_step_previews": FEW_STEP_PREVIEWS, "nfe": NFE}
    for name, tables in shown.items():
        write_table(
            folder / f"{name}.parquet",
            pa.concat_tables([schemas[name].empty_table(), *(part.cast(schemas[name]) for part in tables)]),
        )
    return folder


def write_models(folder: Path, models: Iterable[tuple[str, Method, int]]) -> None:
    """Write ``models.parquet``: data set, method and seed of each model."""
    found = []
    for dataset, method, seed in models:
        spec = {"dataset": dataset, "method": method_values(method), "seed": seed, "network": {"kind": "mlp"}}
        config = {"spec": spec, "spec_hash": "", "code_hash": "", "shape": [2], "parameters": 1, "step": 20, "reason": ""}
        found.append({"dataset": dataset, "method": method.name, "seed": seed, "config": canonical(config)})
    write_table(folder / "models.parquet", pa.Table.from_pylist(found, MODELS))


def texts(path: Path) -> str:
    """The text drawn in an SVG, which matplotlib also writes as comments."""
    parser = xml.etree.ElementTree.XMLParser(target=xml.etree.ElementTree.TreeBuilder(insert_comments=True))
    root = xml.etree.ElementTree.parse(path, parser).getroot()
    return "\n".join(e.text or "" for e in root.iter() if e.tag is xml.etree.ElementTree.Comment)


def drawn(name: str, results: Path, folder: Path, **options: Any) -> tuple[str, pd.DataFrame]:
    """The text on a figure and the data it shows, as written."""
    write_figure(name, results, [folder / "f.svg"], folder / "f.parquet", **options)
    return texts(folder / "f.svg"), read_table(folder / "f.parquet").to_pandas()
