"""Claim 11: FM-OT's upsampled images have better FID and IS, and lower PSNR and SSIM than regression's (Table 2)."""

import functools
from typing import Any

import pandas as pd

from fmbench.report.claims.claim import SAMPLING, SUPER_RESOLUTION, Claim, Drafts, Finding, Sources, short
from fmbench.report.claims.comparison import compared_by_seed
from fmbench.report.claims.rows import OURS, Contest, by_dataset, metric_name, no_contest
from fmbench.report.claims.verdicts import NOT_TESTED
from fmbench.report.layout import paper
from fmbench.report.table2.numbers import OF_ORIGINALS, PAPERS_DATA, REGRESSION

SR3 = "ddpm"
"""The method that stands for SR3: its objective, noise prediction on a diffusion path, with the network and the budget of all."""
AGAINST_BOTH, AGAINST_REGRESSION = (Contest("trained", OURS, others) for others in ((REGRESSION, SR3), (REGRESSION,)))
SCORES = ("inception_score", "classifier_score")


def sharper(sources: Sources) -> Drafts:
    """Compares FM-OT with regression and SR3 in FID and IS, and with regression in PSNR and SSIM: paired differences."""
    lines: Drafts = []
    for dataset, here in by_dataset(sources["records"]):
        if not (here.method == OURS).any():
            lines.append(no_contest(11, dataset))
            continue
        lines += _lines(dataset, AGAINST_BOTH, "frechet", here)
        lines += _lines(dataset, AGAINST_BOTH, _score(here), here, lower=False)
        for metric in OF_ORIGINALS:
            lines += _lines(dataset, AGAINST_REGRESSION, metric, here)
    return lines


def _score(here: pd.DataFrame) -> str:
    """The score of the extractor's classes: the Inception Score only with Inception."""
    return next((metric for metric in SCORES if (here.metric == metric).any()), SCORES[0])


def _lines(dataset: str, contest: Contest, metric: str, here: pd.DataFrame, lower: bool = True) -> Drafts:
    of_metric = here[here.metric == metric]
    names = {"inception_score": "IS", "classifier_score": "classifier score", "psnr": "PSNR", "ssim": "SSIM"}
    part = names.get(metric) or metric_name(here, metric)
    columns: dict[str, Any] = {"claim": 11, "dataset": dataset, "part": part, "statistic": "difference to the other method"}
    if of_metric.empty:
        return [Finding(about=contest.about, verdict=NOT_TESTED, why=f"There are no rows of {part}", **columns)]
    columns["unit"] = of_metric.unit.iloc[0]
    printed = {other: printed_difference(dataset, part, other) for other in contest.others}
    # The errors of PSNR and SSIM are those of the test images, which all methods share.
    return compared_by_seed(here, metric, contest, columns, printed, sampled=metric == "frechet", below=lower)


@functools.cache
def printed_difference(dataset: str, part: str, other: str) -> float | None:
    """FM-OT's number in the paper's Table 2 minus another model's; None if the paper does not print it."""
    column = {"FID": "fid", "IS": "inception_score", "PSNR": "psnr", "SSIM": "ssim"}.get(part)
    if dataset != PAPERS_DATA or column is None:
        return None
    values = paper("table2").set_index("model")[column]
    return float(values[OURS] - values["sr3" if other == SR3 else other])


def _in_paper() -> str:
    parts = [(part, other) for part in ("FID", "IS") for other in (REGRESSION, SR3)] + [
        ("PSNR", REGRESSION),
        ("SSIM", REGRESSION),
    ]
    names = {SR3: "SR3"}
    said = [f"{part} {short(printed_difference(PAPERS_DATA, part, other))} to {names.get(other, other)}" for part, other in parts]
    return "difference on ImageNet, 64 to 256: " + "; ".join(said)


CLAIM = Claim(
    number=11,
    title="FM-OT upsamples with better FID and IS, and with lower PSNR and SSIM than regression",
    statement="In super-resolution, flow matching with the OT path has lower FID and higher IS than regression and SR3. It has "
    "lower PSNR and SSIM than regression.",
    where="Table 2",
    how="The test takes the mean of FM-OT minus the other method, paired by seed, on every data set whose condition is the "
    "low-resolution image. DDPM stands for SR3: it has SR3's objective, with the network and the budget of all methods. The "
    "distance is called FID, and the score IS, only with Inception's features. All models have the same test images, so the "
    "error of PSNR and SSIM over images largely cancels in a difference. A verdict on them is conditional on the test "
    "images." + SAMPLING,
    needs=("records",),
    evaluate=sharper,
    in_paper=_in_paper,
    about=SUPER_RESOLUTION,
)
