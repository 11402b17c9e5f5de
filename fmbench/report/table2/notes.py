"""The notes below Table 2: the conventions of the numbers of one data set, one fact a note."""

import pandas as pd

from fmbench.report.frames import of_metric
from fmbench.report.style import is_inception, label
from fmbench.report.table2.numbers import NUMBERS, REFERENCE

CONVENTIONS = ("psnr", "ssim", "psnr_y", "ssim_y", "consistency")
"""The columns whose rows name the conventions of the number, in place of a feature extractor."""


def missing(table: pd.DataFrame) -> str:
    """Return the sentence that says that these results have no super-resolution; empty where they have."""
    if (table.source == "ours").any():
        return ""
    return "These results have no super-resolution: no data set has records of psnr or ssim."


def notes(part: pd.DataFrame, mine: pd.DataFrame) -> list[str]:
    """Return the notes of one data set.

    Args:
        part: its rows of the table, and the paper's.
        mine: its records.
    """
    ours = part[part.source == "ours"]
    found = []
    if len(ours):
        found += _seeds(ours, mine)
        found += _distance(mine)
        found += _conventions(mine)
        found += _evaluations(mine)
        found.append(
            "The paper's rows are of ImageNet, 64 to 256 pixels, with Inception's features. The first three are those of Saharia "
            "et al. (2021). The paper does not say how its numbers were measured; docs/metrics.md lists the open choices."
        )
    found.append("Bold is the best model. The reference is real data and is never bold.")
    return [*found, *(f"{text}." for text in statuses(part))]


def statuses(part: pd.DataFrame) -> list[str]:
    """Return what is missing of each model, and why."""
    return [f"{label(str(r.model))}: {r.status}" for r in part.itertuples() if r.status not in ("ok", "as printed")]


def _seeds(ours: pd.DataFrame, mine: pd.DataFrame) -> list[str]:
    n = int(ours.seeds.max())
    found = [f"Mean ± standard deviation over {n} seed{'s' if n != 1 else ''}. Reference and bicubic have no seed."]
    if ours[[f"{name}_stderr" for name in NUMBERS]].notna().any(axis=None):
        found.append("In square brackets: the standard error of one seed's number over its images.")
        found.append("All models have the same test images, so the errors of PSNR and SSIM largely cancel in differences.")
    if (of_metric(mine, "psnr").method == "bicubic").any():
        found.append("Bicubic is the interpolated low-resolution image, without a network.")
    if (ours.model == REFERENCE).any():
        found.append("The reference is the test images themselves.")
    return found


def _distance(mine: pd.DataFrame) -> list[str]:
    found = []
    for metric in ("frechet", "frechet_test"):
        for row in of_metric(mine, metric).drop_duplicates(["n", "features", "reference"]).itertuples():
            name = ("FID" if is_inception(row.features) else "Frechet") + (", test" if metric == "frechet_test" else "")
            found.append(f"{name}: {row.n:.0f} images against {row.reference}, in the features of the {row.features}.")
    if of_metric(mine, "classifier_score").value.notna().any():
        found.append("Score: the Inception Score's formula on the classes of the classifier. It does not compare with IS.")
    return found


def _conventions(mine: pd.DataFrame) -> list[str]:
    return [
        f"{NUMBERS[name].name.partition(' (')[0]}: mean over {row.n:.0f} images, {row.features}; {row.reference}."
        for name in CONVENTIONS
        for row in of_metric(mine, name).drop_duplicates(["n", "features", "reference"]).itertuples()
    ]


def _evaluations(mine: pd.DataFrame) -> list[str]:
    rows = of_metric(mine, "nfe").drop_duplicates(["solver", "rtol", "atol"])
    adaptive = [f"{r['solver']} at rtol = {r['rtol']:g}, atol = {r['atol']:g}" for _, r in rows.dropna(subset="rtol").iterrows()]
    return [f"NFE: evaluations of the network for one image, {' or '.join(adaptive)}."] if adaptive else []
