"""Claim 1: FM-OT has the lowest NLL, FID and NFE (Table 1)."""

import functools

import pandas as pd

from fmbench.report.claims.claim import PATH_ALONE, SAMPLING, Claim, Drafts, Sources, short
from fmbench.report.claims.comparison import compared_by_seed
from fmbench.report.claims.rows import (
    DIFFUSION,
    OURS,
    TRAINED,
    Contest,
    by_dataset,
    contests,
    main_distance,
    metric_name,
    no_contest,
    no_distance,
)
from fmbench.report.layout import paper


def lowest(sources: Sources) -> Drafts:
    """Compares NLL, distance and NFE of FM-OT with each other method: paired differences, all of which must be below 0."""
    lines: Drafts = []
    for dataset, here in by_dataset(sources["records"]):
        found = contests(here)
        if TRAINED not in found:
            lines.append(no_contest(1, dataset))
        for contest in found:
            # Oracles differ only in their NFE, because both sample the training set.
            for metric in ("nll", main_distance(here), "nfe") if contest == TRAINED else ("nfe",):
                if metric is None:
                    lines.append(no_distance(1, dataset, "distance"))
                else:
                    lines += _lines(dataset, contest, metric, here)
    return lines


def _lines(dataset: str, contest: Contest, metric: str, here: pd.DataFrame) -> Drafts:
    of_metric = here[here.metric == metric]
    name = {"nll": "NLL", "nfe": "NFE"}.get(metric) or metric_name(here, metric)
    # A Frechet distance on other features cannot be compared with the paper's FID.
    comparable = contest == TRAINED and (metric != "frechet" or name == "FID")
    columns = {
        "claim": 1,
        "dataset": dataset,
        "part": name,
        "statistic": "difference to the other method",
        "unit": of_metric.unit.iloc[0] if len(of_metric) else "",
    }
    printed = {m: printed_difference(dataset, metric, (m,)) if comparable else None for m in contest.others}
    # All methods and seeds have the same test samples: the error of the NLL is in no spread, and largely cancels in differences.
    return compared_by_seed(here, metric, contest, columns, printed, sampled=metric != "nll")


@functools.cache
def printed_difference(dataset: str, metric: str, others: tuple[str, ...] = DIFFUSION) -> float | None:
    """FM-OT's number in the paper's Table 1 minus the lowest of the others; None if the paper does not print it."""
    column = {"nll": "nll_bpd", "frechet": "fid", "nfe": "nfe"}.get(metric)
    printed = paper("table1")
    values = printed[printed.dataset == dataset].set_index("method")
    if column is None or OURS not in values.index or not set(others) <= set(values.index):
        return None
    return float(values[column][OURS] - values[column][list(others)].min())


def _in_paper() -> str:
    parts = []
    for dataset in ("cifar10", "imagenet32", "imagenet64"):
        values = [printed_difference(dataset, metric) for metric in ("nll", "frechet", "nfe")]
        parts.append(f"{dataset} " + ", ".join(map(short, values)))
    return "difference to the closest other method in NLL (bits/dim), FID and NFE: " + "; ".join(parts)


CLAIM = Claim(
    number=1,
    title="FM-OT has the lowest NLL, FID and NFE",
    statement="Flow matching with the OT path has lower NLL, lower FID and fewer evaluations of the adaptive solver than "
    "every other trained method, on every data set.",
    where="Table 1",
    how="The test takes the mean of FM-OT minus each other method, paired by seed. All differences must be below 0. If FM-OT "
    "lost a seed, the claim cannot hold, because the remaining seeds are only those that succeeded. The distance of images is "
    "called FID only with Inception's features. Points use the energy distance instead. The intervals include all variation "
    "between seeds, also that of sampling. They do not include the choice of the test set." + SAMPLING + PATH_ALONE,
    needs=("records",),
    evaluate=lowest,
    in_paper=_in_paper,
)
