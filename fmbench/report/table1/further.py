"""The second table of every data set in Table 1's Markdown: measures that the paper's table does not have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fmbench.metrics.copying import C_T_BELOW, verdict
from fmbench.report.frames import first_known, of_metric
from fmbench.report.layout import NONE
from fmbench.report.style import is_inception, label


@dataclass(frozen=True)
class Measure:
    """One column: the mean over seeds of each method, and the value of real data (None if it is not measured).

    Attributes:
        form: the format of a number, such as ``.2f``.
    """

    heading: str
    means: dict[str, float]
    form: str
    real: float | None = None

    def text(self, value: float | None) -> str:
        return NONE if value is None or pd.isna(value) else format(value, self.form)


def further_measures(mine: pd.DataFrame) -> list[Measure]:
    """Return the measures that the records of one data set have, in the order of their columns."""
    distance = "FID" if _is_fid(mine) else "Frechet"
    floor_n = of_metric(mine, "frechet_floor").n
    # Published KIDs are in 1e-3. The scale of other features is not known beforehand.
    kid = ("KID (1e-3)", ".3f", 1e3) if _is_fid(mine) else ("Kernel distance", ".3g", 1)
    candidates = [
        _measure(mine, "nfe_shared", "NFE, shared step", ".0f"),
        _measure(mine, "straightness", "Straightness", ".3f"),
        _measure(mine, "path_length_ratio", "Path length", ".3f"),
        *(_measure(mine, "frechet_at_floor_n", f"{distance}, n = {n:.0f}", ".2f", floor="frechet_floor") for n in floor_n[:1]),
        _measure(mine, "kid", *kid),
        _measure(mine, "precision", "Precision", ".3f"),
        _measure(mine, "recall", "Recall", ".3f"),
        _measure(mine, "density", "Density", ".3f"),
        _measure(mine, "coverage", "Coverage", ".3f"),
        _measure(mine, "c_t", "C_T", ".1f"),
        _measure(mine, "train_distance_ratio", "Distance to train", ".2f"),
        _measure(mine, "authenticity", "Authenticity", ".3f"),
        _measure(mine, "inception_score", "Inception Score", ".2f"),
        _measure(mine, "frechet_infinity", f"{distance}, n → ∞", ".2f"),
        *(
            _measure(mine[mine.features == features], metric, f"{_called(features)}, {metric.partition('/')[2]}", ".2f")
            for metric, features in _other_distances(mine)
        ),
        _measure(mine, "sliced_wasserstein", "Sliced Wasserstein distance (1e-2)", ".2f", scale=1e2),
        _measure(mine, "mmd", "Squared MMD (1e-4)", ".2f", scale=1e4),
        _measure(mine, "gradient_variance", "Gradient variance", ".3g"),
        _measure(mine, "gradient_variance_conditional", "Gradient variance, conditional target", ".3g"),
        _measure(mine, "loss_floor", "Loss floor", ".3f"),
        _measure(mine, "final_loss", "Final loss", ".3f") if len(of_metric(mine, "loss_floor")) else None,
        _measure(mine, "nll_own", "Own NLL, solver", ".3f"),
        _measure(mine, "nll_own_closed_form", "Own NLL, closed form", ".3f"),
    ]
    return [measure for measure in candidates if measure is not None]


def further_rows(measures: Sequence[Measure], methods: Sequence[str]) -> list[list[str]]:
    """Return one row of text per method that has a measure, and a last one for real data if they have one."""
    rows = [
        [label(m), *(measure.text(measure.means.get(m)) for measure in measures)]
        for m in methods
        if any(m in measure.means for measure in measures)
    ]
    real = ["Real data", *(measure.text(measure.real) for measure in measures)]
    return [*rows, real] if set(real[1:]) != {NONE} else rows


def further_notes(mine: pd.DataFrame) -> list[str]:
    """Return the notes below the second table."""
    notes = ["Numbers are means over seeds.", *_real_data(mine)]
    shared = of_metric(mine, "nfe_shared")
    if len(shared):
        notes.append(f"NFE, shared step: dopri5 with one step size for a batch of {first_known(shared.batch):.0f} samples.")
    straight = of_metric(mine, "straightness")
    if straight.value.notna().any():
        n = straight.n.iloc[0]
        notes.append(f"Straightness: squared deviation of the velocity from that of a straight path, mean over {n:.0f} samples.")
        notes.append("Path length: the length of the path from noise to sample, over the distance between both.")
    kid = of_metric(mine, "kid")
    if kid.value.notna().any():
        name, scale, form = ("KID", 1e3, ".3f") if _is_fid(mine) else ("Kernel distance", 1, ".3g")
        subsets, spread = kid.reference.iloc[0].partition("; ")[2], scale * of_metric(mine, "kid_std").value.mean()
        notes.append(f"{name}: mean over {subsets} samples, in the same features. They spread by {spread:{form}} (std).")
        notes.append(f"{name} is unbiased at every n, so it may fall below 0.")
    covered = of_metric(mine, "precision")
    if covered.value.notna().any():
        notes.append(f"Precision and recall: {covered.iloc[0].n:.0f} samples against as many real ones.")
    notes += _copying(mine)
    if of_metric(mine, "frechet_infinity").value.notna().any():
        notes.append("n → ∞: extrapolated to infinitely many samples.")
    for metric, features in _other_distances(mine):
        measured = of_metric(mine, metric).dropna(subset="value")
        if len(measured):
            n = measured.n.iloc[0]
            notes.append(f"{_called(features)}, {metric.partition('/')[2]}: {n:.0f} samples, in features of the {features}.")
    if of_metric(mine, "gradient_variance").value.notna().any():
        notes.append(
            "Gradient variance: the trace of the covariance of a batch's gradient. Conditional target: that of each pair."
        )
        notes.append(
            "Loss floor: the final loss of a perfect network with the conditional target. With the marginal target it is 0."
        )
    if len(of_metric(mine, "nll_own")):
        notes.append("Own NLL: that of an oracle's own samples. The solver should agree with the closed form.")
    return notes


def _measure(
    mine: pd.DataFrame, metric: str, heading: str, form: str, scale: float = 1, floor: str | None = None
) -> Measure | None:
    """The measure of a metric and of its floor (``<metric>_floor``), each times ``scale``; None where no method has it.

    A Frechet distance falls with the number of samples, so a floor of another number is left out.
    """
    rows = of_metric(mine, metric)
    name, slash, extractor = metric.partition("/")
    floors = of_metric(mine, floor or f"{name}_floor{slash}{extractor}")
    real = floors[floors.n.isin(rows.n)].value if name == "frechet" else floors.value
    if not rows.value.notna().any() and (floor is None or real.isna().all()):
        return None
    means = {str(method): scale * mean for method, mean in rows.groupby("method", sort=False).value.mean().items()}
    return Measure(heading, means, form, scale * real.iloc[0] if len(real) and pd.notna(real.iloc[0]) else None)


def _real_data(mine: pd.DataFrame) -> list[str]:
    """What the row of real data compares."""
    images, points = of_metric(mine, "frechet_floor"), of_metric(mine, "sliced_wasserstein_floor")
    if len(images):
        notes = [f"Real data: {images.iloc[0].n:.0f} test samples against the training set."]
        accuracy = of_metric(mine, "classifier_accuracy")
        if (accuracy.features == images.iloc[0].features).any():
            notes.append("The classifier was trained on the same training set, so it knows that set better than the test set.")
        return notes
    return [f"Real data: {points.iloc[0].n:.0f} training points against the test points."] if len(points) else []


def _copying(mine: pd.DataFrame) -> list[str]:
    """What C_T means, and each method whose samples are too near to its training set."""
    found = of_metric(mine, "c_t")
    if found.value.isna().all():
        return []
    notes = [
        "C_T compares the distances of samples to the training set with those of test data, in standard deviations.",
        f"A model that draws fresh data has a C_T below {C_T_BELOW:.0f} in 0.13 % of all cases. That of copies is far below.",
        "Distance to train: the median distance of samples to the training set, over that of test data.",
    ]
    ratios = of_metric(mine, "train_distance_ratio").groupby("method").value.mean()
    for method, c_t in found.groupby("method", sort=False).value.mean().items():
        ratio = float(ratios.get(str(method), math.nan))
        if said := verdict(c_t, ratio):
            notes.append(f"{label(str(method))} {said}: its C_T is {c_t:.1f}, its distance to train {ratio:.2f}.")
    return notes


def _is_fid(mine: pd.DataFrame) -> bool:
    """Whether the main distance of a data set's records is in Inception's features."""
    return is_inception(first_known(of_metric(mine, "frechet").features))


def _called(features: str) -> str:
    return "FID" if is_inception(features) else "Frechet"


def _other_distances(mine: pd.DataFrame) -> list[tuple[str, str]]:
    """The distances of further extractors: metric (``frechet/<extractor>``) and features."""
    others = mine[mine.metric.str.startswith("frechet/")]
    return list(dict.fromkeys(zip(others.metric, others.features, strict=True)))
