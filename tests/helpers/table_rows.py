"""Hand-made records for the tests of tables, and the spec of Table 1."""

from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.report.frames import records_frame
from fmbench.store.records import Row, write_rows

FEATURES = "classifier(digits, 64 features)"
REASON = "the loss became nan at iteration 17 (learning rate 0.002)"

# By metric: stage, unit and further columns.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "final_loss": ("train", "loss", {"step": 100}),
    "nll": (
        "likelihood",
        "bits/dim",
        {"n": 360, "rtol": 1e-5, "atol": 1e-5, "solver": "dopri5_shared, hutchinson rademacher x1"},
    ),
    "nll_stderr": ("likelihood", "bits/dim", {"n": 360}),
    "nfe": ("sample", "evaluations", {"n": 720, "batch": 360, "rtol": 1e-5, "atol": 1e-5, "solver": "dopri5"}),
    "nfe_shared": ("sample", "evaluations", {"n": 128, "batch": 128, "solver": "dopri5_shared"}),
    "sample_std": ("sample", "model units", {"n": 720}),
    "frechet": (
        "sample_quality",
        "squared features",
        {"n": 720, "features": FEATURES, "reference": "train, n = 1437, sha256 abc"},
    ),
    "frechet_at_floor_n": ("sample_quality", "squared features", {"n": 360, "features": FEATURES}),
    "energy_distance": ("sample_quality", "data units", {"n": 4000, "features": "coordinates"}),
    "off_support": ("sample_quality", "fraction", {"n": 4000, "features": "coordinates"}),
}


def model(dataset: str, method: str, seed: int, unit: str = "bits/dim", **values: float | None) -> list[Row]:
    """The rows of one trained model; None stands for a diverged training or a row skipped because of it."""
    rows = []
    for metric, value in values.items():
        stage, own, columns = KINDS[metric]
        own = unit if metric.startswith("nll") else own
        if value is None:
            status = "diverged" if stage == "train" else "skipped"
            reason = REASON if stage == "train" else f"training diverged: {REASON}"
            columns = columns | {"status": status, "reason": reason}
        rows.append(Row(dataset, method, seed, stage, metric, value, own, **columns))
    return rows


def image(dataset: str, method: str, seed: int, nll: float | None, fid: float | None, nfe: float | None, std: float | None = 0.7):
    common = {"final_loss": 0.1 if nll is not None else None, "nll_stderr": 0.01 if nll is not None else None}
    shared = None if nfe is None else nfe + 10
    at_floor = None if fid is None else fid + 1
    values = {"nll": nll, "frechet": fid, "nfe": nfe, "sample_std": std, "nfe_shared": shared, "frechet_at_floor_n": at_floor}
    return model(dataset, method, seed, **common, **values)


def points(method: str, seed: int, nll: float, energy: float, nfe: float):
    values = {
        "nll": nll,
        "nll_stderr": 0.02,
        "energy_distance": energy,
        "off_support": 0.25,
        "nfe": nfe,
        "nfe_shared": nfe,
        "sample_std": 2.0,
    }
    return model("board", method, seed, "nats", final_loss=0.1, **values)


def floors(dataset: str, images: bool = True) -> list[Row]:
    if images:
        return [
            Row(dataset, "", 0, "features", "data_std", 0.71, "model units", n=1437),
            Row(dataset, "", 0, "features", "classifier_accuracy", 0.975, "fraction", n=360, features=FEATURES),
            Row(
                dataset,
                "",
                0,
                "features",
                "frechet_floor",
                0.5,
                "squared features",
                n=360,
                features=FEATURES,
                reference="train, n = 9",
            ),
        ]
    return [
        Row(dataset, "", 0, "features", "data_std", 2.3, "model units", n=100),
        Row(dataset, "", 0, "features", "energy_distance_floor", 0.00123, "data units", n=4000),
        Row(dataset, "", 0, "features", "nll_floor", 2.0794415, "nats"),
    ]


SPEC: dict[str, Any] = {
    "stage": "table1",
    "datasets": ["digits"],
    "methods": ["ddpm", "fm_ot"],
    "seeds": [0, 1],
    "overrides": {},
    "oracles": [],
}


def frame(rows: list[Row], folder: Path) -> pd.DataFrame:
    write_rows(folder / "records.parquet", rows)
    return records_frame(folder / "records.parquet")


def oracle(dataset: str, method: str, seed: int, nll: float, fid: float, nfe: float) -> list[Row]:
    """The rows of an oracle: NLL in closed form, and the NLL of its own samples by the solver too."""
    rows = [r for r in image(dataset, method, seed, nll, fid, nfe) if not r.metric.startswith("nll")]
    closed: dict[str, Any] = {"n": 360, "solver": "closed form"}
    solved: dict[str, Any] = {"n": 360, "solver": "dopri5_shared, exact divergence", "rtol": 1e-5, "atol": 1e-5, "probes": 0}
    rows.append(Row(dataset, method, seed, "train", "images_seen", 1437, "samples", step=0))
    rows.append(Row(dataset, method, seed, "train", "bandwidth", 0.03396, "model units", step=0))
    rows.append(Row(dataset, method, seed, "likelihood", "nll", nll, "bits/dim", **closed))
    rows.append(Row(dataset, method, seed, "likelihood", "nll_stderr", 99.0, "bits/dim", **closed))
    rows.append(Row(dataset, method, seed, "likelihood", "nll_own", 0.25 + seed, "bits/dim", **solved))
    rows.append(Row(dataset, method, seed, "likelihood", "nfe_likelihood", 44.0, "evaluations", **solved))
    rows.append(Row(dataset, method, seed, "likelihood", "nll_own_closed_form", 0.125 + seed, "bits/dim", **closed))
    return rows
