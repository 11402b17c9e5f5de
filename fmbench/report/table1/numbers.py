"""The numbers of Table 1: one row per data set and method."""

from typing import Any

import pandas as pd

from fmbench.report.causes import each_once
from fmbench.report.frames import first_known, of_metric
from fmbench.report.layout import paper

SPREADS = {"nll": "nll", "fid": "frechet"} | {m: m for m in ("kid", "energy_distance", "off_support", "nfe")}
"""Columns with a mean and a standard deviation over seeds (``<column>_mean``, ``<column>_std``), and their metric."""
ERRORS = {column: f"{metric}_stderr" for column, metric in SPREADS.items() if column != "kid"}
"""Columns with a standard error over samples (``<column>_stderr``), and their metric."""
COLUMNS = ["dataset", "method", "seeds", "nll_mean", "nll_std", "nll_stderr", "nll_unit"]
COLUMNS += ["fid_mean", "fid_std", "fid_stderr", "fid_features", "fid_n", "kid_mean", "kid_std"]
COLUMNS += ["energy_distance_mean", "energy_distance_std", "energy_distance_stderr"]
COLUMNS += ["off_support_mean", "off_support_std", "off_support_stderr", "nfe_mean", "nfe_std", "nfe_stderr"]
COLUMNS += ["sample_std", "paper_nll", "paper_fid", "paper_nfe", "status"]
PUBLISHED = {
    "mgan": "MGAN",
    "pacgan2": "PacGAN2",
    "logo_gan_ae": "Logo-GAN-AE",
    "self_cond_gan": "Self-cond. GAN",
    "uncond_biggan": "Uncond. BigGAN",
    "pgmgan": "PGMGAN",
}
"""Published GANs in the paper's Table 1 (right) that fmbench does not run, and their names in print."""
PAPER_ONLY = "paper only"
"""The status of a row that only the paper has."""


def table1(records: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """Return one row per data set and method, in the config's order.

    ``seeds`` counts the seeds whose training ended well. Means and standard deviations are over the seeds that have the
    number; a single seed has no standard deviation. A standard error is that of one seed's number over its samples, as the mean
    over seeds; results of earlier versions have none. ``status`` says what is missing and why. Below the methods of a data set
    come the published ones that the paper has for it (:data:`PUBLISHED`), without measured numbers.
    """
    printed = paper("table1").set_index(["dataset", "method"])
    rows = []
    for dataset in spec["datasets"]:
        for method in spec["methods"]:
            mine = records[(records.dataset == dataset) & (records.method == method) & records.seed.isin(spec["seeds"])]
            rows.append({"dataset": dataset, "method": method} | _measured(mine) | _printed(printed, dataset, method))
        rows += [
            {"dataset": dataset, "method": method, "status": PAPER_ONLY} | _printed(printed, dataset, method)
            for method in PUBLISHED
            if (dataset, method) in printed.index and method not in spec["methods"]
        ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seeds": "Int64", "fid_n": "Int64"})


def _measured(records: pd.DataFrame) -> dict[str, Any]:
    """The columns that come from the records of one method on one data set."""
    distances, nll = of_metric(records, "frechet"), of_metric(records, "nll")
    trained = records[(records.metric == "final_loss") & (records.status == "ok")]
    row: dict[str, Any] = {
        "seeds": trained.seed.nunique(),
        "nll_unit": first_known(nll.unit),
        "fid_features": " and ".join(sorted(distances.features.dropna().unique())) or None,
        "fid_n": first_known(distances.n),
        "sample_std": of_metric(records, "sample_std").value.mean(),
        "status": _status(records, distances),
    }
    for column, metric in SPREADS.items():
        values = of_metric(records, metric).value
        row |= {f"{column}_mean": values.mean(), f"{column}_std": values.std()}
    row |= {f"{column}_stderr": of_metric(records, metric).value.mean() for column, metric in ERRORS.items()}
    return row


def _printed(printed: pd.DataFrame, dataset: str, method: str) -> dict[str, Any]:
    """The columns that come from the paper; None where it has no such row."""
    key = (dataset, method)
    if key not in printed.index:
        return {"paper_nll": None, "paper_fid": None, "paper_nfe": None}
    return {"paper_nll": printed.nll_bpd[key], "paper_fid": printed.fid[key], "paper_nfe": printed.nfe[key]}


def _status(records: pd.DataFrame, distances: pd.DataFrame) -> str:
    """``ok``, or the first failure of every seed and whether distances of several extractors are mixed."""
    if records.empty:
        return "no records"
    # A solver of the sweep that blows up at few evaluations says nothing about the numbers of this table.
    bad = records[(records.status != "ok") & (records.stage != "sweep")]
    extractors = distances.features.nunique()
    mixed = f"its mean distance mixes {extractors} extractors, whose distances cannot be compared" if extractors > 1 else ""
    if bad.empty:
        return mixed or "ok"
    # A divergence is the cause; the rows skipped because of it only repeat it.
    causes = []
    for seed, rows in bad.groupby("seed"):
        diverged = rows[rows.status == "diverged"]
        first = (diverged if len(diverged) else rows).iloc[0]
        causes.append((seed, f" {first.status}: {first.reason}"))
    return "; ".join([*each_once(causes), *([mixed] if mixed else [])])
