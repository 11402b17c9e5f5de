"""The numbers of Table 2: the paper's rows, and one row for each super-resolution data set and method of the records."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fmbench.report.causes import each_once
from fmbench.report.frames import first_known, of_metric
from fmbench.report.layout import paper

PAPER = "paper: ImageNet 64 to 256"
PAPERS_DATA = "imagenet64to256"
"""The name of a data set that is the paper's."""
REFERENCE, BICUBIC, REGRESSION = "reference", "bicubic", "regression"
FIRST = (REFERENCE, BICUBIC, REGRESSION)
"""The models that come first: the test images themselves, their interpolation, and the network that predicts their mean."""


@dataclass(frozen=True)
class Column:
    """A number of the table.

    Attributes:
        name: in print.
        metrics: its metrics in the records; a data set has one of them.
        digits: decimals in print.
        better: "lower", "higher", or "" if no number is the best.
        scale: what a number is multiplied by in print.
        expected: whether a super-resolution model without it is incomplete.
    """

    name: str
    metrics: tuple[str, ...]
    digits: int
    better: str
    scale: float = 1
    expected: bool = True


NUMBERS = {
    "fid": Column("FID", ("frechet",), 2, "lower"),
    "fid_test": Column("FID, test", ("frechet_test",), 2, "lower", expected=False),
    "inception_score": Column("IS", ("inception_score", "classifier_score"), 2, "higher", expected=False),
    "psnr": Column("PSNR", ("psnr",), 2, "higher"),
    "ssim": Column("SSIM", ("ssim",), 3, "higher"),
    "psnr_y": Column("PSNR, Y", ("psnr_y",), 2, "higher", expected=False),
    "ssim_y": Column("SSIM, Y", ("ssim_y",), 3, "higher", expected=False),
    "consistency": Column("Consistency (1e-5)", ("consistency",), 2, "lower", scale=1e5, expected=False),
    "nfe": Column("NFE", ("nfe",), 1, "", expected=False),
}
"""By column of the table."""
OF_ORIGINALS = ("psnr", "ssim")
"""Metrics that compare an image with its original. A data set with rows of them is a super-resolution data set."""
COLUMNS = ["source", "dataset", "model", "seeds", *(f"{name}_{what}" for name in NUMBERS for what in ("mean", "std", "stderr"))]
COLUMNS += ["features", "n", "status"]


def table2(records: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's rows, then one row for each super-resolution data set and model of the records.

    Means and standard deviations are over seeds. A standard error is that of one seed's number over its images, as the mean over
    seeds. ``n`` is the number of images that are compared with their originals. ``status`` says what is missing and why.
    """
    rows = [_printed(row) for row in paper("table2").to_dict("records")]
    for dataset in datasets(records):
        here = records[(records.dataset == dataset) & (records.method != "")]
        rows += [
            {"source": "ours", "dataset": dataset, "model": model} | _measured(here[here.method == model])
            for model in _in_order(list(here.method.unique()))
        ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seeds": "Int64", "n": "Int64"})


def datasets(records: pd.DataFrame) -> list[str]:
    """Return the super-resolution data sets of the records."""
    return list(records[records.metric.isin(OF_ORIGINALS) & (records.method != "")].dataset.unique())


def _in_order(models: list[str]) -> list[str]:
    return [m for m in FIRST if m in models] + [m for m in models if m not in FIRST]


def _printed(row: dict[Hashable, Any]) -> dict[str, Any]:
    values = {f"{name}_mean": row[name] for name in NUMBERS if name in row}
    return {"source": "paper", "dataset": PAPER, "model": row["model"], "status": "as printed", **values}


def _measured(mine: pd.DataFrame) -> dict[str, Any]:
    """The columns that come from the records of one model on one data set."""
    row: dict[str, Any] = {}
    absent, failed, seeds = [], [], set()
    reference = (mine.method == REFERENCE).all()
    for name, column in NUMBERS.items():
        found = mine[mine.metric.isin(column.metrics)]
        good = found[found.status == "ok"]
        errors = mine[mine.metric.isin([f"{metric}_stderr" for metric in column.metrics])]
        row |= {f"{name}_mean": good.value.mean(), f"{name}_std": good.value.std(), f"{name}_stderr": errors.value.mean()}
        if found.empty and column.expected and not (reference and name in OF_ORIGINALS):
            absent.append(f"no {column.name}")
        failed += [(r.seed, r.reason, column.name) for r in found[found.status != "ok"].itertuples()]
        seeds |= set(good.seed)
    distance, compared = of_metric(mine, "frechet"), mine[mine.metric.isin(OF_ORIGINALS)]
    row |= {"features": " and ".join(sorted(distance.features.unique())), "seeds": len(seeds)}
    row |= {"n": first_known((distance if reference else compared).n), "status": "; ".join([*absent, *_causes(failed)]) or "ok"}
    return row


def _causes(failed: list[tuple[Any, Any, str]]) -> list[str]:
    """Each seed and reason once, with the numbers that are missing for it."""
    names: dict[tuple[Any, Any], list[str]] = {}
    for seed, reason, name in failed:
        names.setdefault((seed, reason), []).append(name)
    return each_once((seed, f", {', '.join(found)}: {reason}") for (seed, reason), found in names.items())
