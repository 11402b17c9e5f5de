"""The notes below Table 1: what the numbers of one data set are based on, one fact a note."""

from typing import Any

import pandas as pd

from fmbench.report.frames import first_known, of_metric
from fmbench.report.layout import spread
from fmbench.report.style import is_inception, label
from fmbench.report.table1.cells import ENERGY_NOTE, ENERGY_SCALE, is_points
from fmbench.report.table1.numbers import ERRORS

ERROR_NOTE = "In square brackets: the standard error of one seed's number over its samples."
SPREAD_NOTE = (
    "Every seed draws its own samples, so the ± of distances and NFE already contains this error. There, a smaller ± is the luck "
    "of few seeds."
)
SHARED_NOTE = "All seeds and methods have the same test samples, so the ± of NLL does not contain its standard error."


def notes(part: pd.DataFrame, mine: pd.DataFrame, spec: dict[str, Any]) -> list[str]:
    """Return the notes of one data set.

    Args:
        part: its rows of the table.
        mine: its records.
    """
    found = [*_seeds(part, spec), *_likelihood(mine, spec["oracles"], is_points(part)), *_evaluations(mine)]
    found += [*_image_distance(mine), *_point_distance(mine)]
    data = of_metric(mine, "data_std")
    if len(data):
        found.append(f"Sample std: of unclamped samples, in the network's units. That of the data is {data.value.iloc[0]:.3f}.")
    return [*found, *_oracles(mine, is_points(part)), *override_notes(spec)]


def override_notes(spec: dict[str, Any]) -> list[str]:
    """Return a note for each method that overrides training settings."""
    return [
        f"{label(method)} does not train under the common settings: {', '.join(f'{k} = {v}' for k, v in values.items())}."
        for method, values in spec["overrides"].items()
    ]


def _seeds(part: pd.DataFrame, spec: dict[str, Any]) -> list[str]:
    n = len(spec["seeds"])
    over = f"{n} seeds" if n > 1 else "1 seed"
    found = [f"Mean ± standard deviation over {over}. Bold is the lowest mean of the trained methods."]
    if part[[f"{column}_stderr" for column in ERRORS]].notna().any(axis=None):
        found += [ERROR_NOTE, SPREAD_NOTE] if n > 1 else [ERROR_NOTE]
    if (part.seeds < n).any():
        found.append("Where a status names a seed, the numbers are over the other seeds.")
    if is_points(part):
        found.append(ENERGY_NOTE)
    return found


def _likelihood(mine: pd.DataFrame, oracles: list[str], points: bool) -> list[str]:
    trained = mine[~mine.method.isin(oracles)]
    nll = of_metric(trained, "nll")
    if nll.empty:
        return []
    row = nll.iloc[0]
    found = [f"NLL: {row.n:.0f} test samples, {row.solver}, {_tolerance(row)}."]
    if of_metric(mine, "nll_stderr").value.notna().any():
        found.append(SHARED_NOTE)
    probes = of_metric(mine, "nll_probe_std")
    if len(probes):
        found.append(f"The probes alone give the NLL of one sample a standard deviation of {probes.value.mean():.3f} {row.unit}.")
    if not points:
        found.append(
            "NLL is for K = 1 dequantisation draw. The paper's is for its largest K, which gives a lower NLL (see Table 4)."
        )
    return found


def _evaluations(mine: pd.DataFrame) -> list[str]:
    nfe = of_metric(mine, "nfe")
    if nfe.empty:
        return []
    row = nfe.iloc[0]
    return [f"NFE: dopri5 at {_tolerance(row)} with a step size for each sample, mean over {row.n:.0f} samples."]


def _tolerance(row: Any) -> str:
    return f"rtol = atol = {row.rtol:g}" if row.rtol == row.atol else f"rtol = {row.rtol:g}, atol = {row.atol:g}"


def _image_distance(mine: pd.DataFrame) -> list[str]:
    distances = of_metric(mine, "frechet")
    if distances.empty:
        return []
    row = distances.iloc[0]
    name = "FID" if is_inception(row.features) else "Frechet"
    found = [f"{name}: {row.n:.0f} samples against {row.reference}, in the features of the {row.features}."]
    if name != "FID":
        found.append("Frechet does not compare with FID, which uses Inception's features.")
    accuracy = of_metric(mine, "classifier_accuracy")
    own = accuracy[accuracy.features == row.features]
    if len(own):
        found.append(f"The classifier's test accuracy is {own.value.iloc[0]:.1%}.")
    return found


def _point_distance(mine: pd.DataFrame) -> list[str]:
    found = []
    floor, entropy = of_metric(mine, "energy_distance_floor"), of_metric(mine, "nll_floor")
    if len(floor):
        error = first_known(of_metric(mine, "energy_distance_stderr_floor").value)
        value = spread(floor.value.iloc[0] * ENERGY_SCALE, None, 2, stderr=None if error is None else error * ENERGY_SCALE)
        found.append(f"The energy distance of as many real training points to the test points is {value}, in the same unit.")
    if len(floor) and len(entropy):
        found.append(f"The NLL of the true density is {entropy.value.iloc[0]:.3f} {entropy.unit.iloc[0]}.")
    return found


def _oracles(mine: pd.DataFrame, points: bool) -> list[str]:
    own = of_metric(mine, "nll_own")
    if own.empty:
        return []
    names = "; ".join(label(str(m)) for m in own.method.unique())
    return [
        f"Oracles ({names}): the closed-form field of {_oracle_points(mine)}.",
        "An oracle has no network, learns nothing and is never bold.",
        "An oracle is a sum of narrow Gaussians, one at each training point. Its NLL of the test set is in closed form.",
        *([] if points else ["Test images lie far from all training images, so an oracle's NLL of images is large."]),
    ]


def _oracle_points(mine: pd.DataFrame) -> str:
    """The points that a data set's oracles know. ``images_seen`` counts them, since an oracle sees each point once."""
    widths = of_metric(mine, "bandwidth")
    counts = of_metric(mine[mine.method.isin(widths.method)], "images_seen").value.dropna().unique()
    if not len(counts):
        return "points of the training set, with a Gaussian around each"
    points = " or ".join(f"{count:.0f}" for count in sorted(counts))
    width = " or ".join(f"{w:.3g}" for w in sorted(widths.value.dropna().unique()))
    return f"{points} points of the training set, with a Gaussian of standard deviation {width} around each"
