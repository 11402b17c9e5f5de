"""Table 1 from the records: tidy CSV, and the paper's layout in Markdown and LaTeX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fmbench.report.layout import (
    LATEX,
    MARKDOWN,
    Style,
    beside,
    latex_table,
    markdown_table,
    paper,
    spread,
    tex,
    to_csv,
    write_all,
)
from fmbench.report.layout import notes as note_lines
from fmbench.report.style import label
from fmbench.store.records import read_rows

COLUMNS = [
    "dataset",
    "method",
    "seeds",
    "nll_mean",
    "nll_std",
    "nll_unit",
    "fid_mean",
    "fid_std",
    "fid_features",
    "fid_n",
    "kid_mean",
    "kid_std",
    "energy_distance_mean",
    "energy_distance_std",
    "off_support_mean",
    "off_support_std",
    "nfe_mean",
    "nfe_std",
    "sample_std",
    "paper_nll",
    "paper_fid",
    "paper_nfe",
    "status",
]
PUBLISHED = {
    "mgan": "MGAN",
    "pacgan2": "PacGAN2",
    "logo_gan_ae": "Logo-GAN-AE",
    "self_cond_gan": "Self-cond. GAN",
    "uncond_biggan": "Uncond. BigGAN",
    "pgmgan": "PGMGAN",
}
"""Methods of others in the paper's Table 1 (right), which stand beside ours and are not run: their names in print."""
PAPER_ONLY = "paper only"
"""The status of a row of theirs."""


def records_frame(path: Path) -> pd.DataFrame:
    """The records as a data frame."""
    return read_rows([path]).to_pandas()


def table1(records: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """One row per data set and method, in the config's order.

    ``seeds`` counts the seeds whose training went well; means and spreads (standard deviation over seeds, empty for
    one seed) are over the seeds that have the number, and ``status`` says what is missing and why. After a data set's
    methods come those of others that the paper has for it (:data:`PUBLISHED`), with no number of ours.
    """
    printed = paper("table1").set_index(["dataset", "method"])
    rows = []
    for dataset in spec["datasets"]:
        for method in spec["methods"]:
            mine = records[(records.dataset == dataset) & (records.method == method) & records.seed.isin(spec["seeds"])]
            nll, fid, kid, nfe = (_metric(mine, m) for m in ("nll", "frechet", "kid", "nfe"))
            energy, outside = (_metric(mine, m) for m in ("energy_distance", "off_support"))
            std = _metric(mine, "sample_std")
            in_paper = (dataset, method) in printed.index
            numbers = printed.loc[(dataset, method)] if in_paper else {"nll_bpd": None, "fid": None, "nfe": None}
            trained = mine[(mine.metric == "final_loss") & (mine.status == "ok")]
            rows.append(
                {
                    "dataset": dataset,
                    "method": method,
                    "seeds": trained.seed.nunique(),
                    "nll_mean": nll.value.mean(),
                    "nll_std": nll.value.std(),
                    "nll_unit": _only(nll.unit),
                    "fid_mean": fid.value.mean(),
                    "fid_std": fid.value.std(),
                    "fid_features": " and ".join(sorted(fid.features.dropna().unique())) or None,
                    "fid_n": _only(fid.n),
                    "kid_mean": kid.value.mean(),
                    "kid_std": kid.value.std(),
                    "energy_distance_mean": energy.value.mean(),
                    "energy_distance_std": energy.value.std(),
                    "off_support_mean": outside.value.mean(),
                    "off_support_std": outside.value.std(),
                    "nfe_mean": nfe.value.mean(),
                    "nfe_std": nfe.value.std(),
                    "sample_std": std.value.mean(),
                    "paper_nll": numbers["nll_bpd"],
                    "paper_fid": numbers["fid"],
                    "paper_nfe": numbers["nfe"],
                    "status": _status(mine, fid),
                }
            )
        rows += [
            {
                "dataset": dataset,
                "method": method,
                "paper_nll": printed.nll_bpd[dataset, method],
                "paper_fid": printed.fid[dataset, method],
                "paper_nfe": printed.nfe[dataset, method],
                "status": PAPER_ONLY,
            }
            for method in PUBLISHED
            if (dataset, method) in printed.index and method not in spec["methods"]
        ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seeds": "Int64", "fid_n": "Int64"})


def _metric(records: pd.DataFrame, metric: str) -> pd.DataFrame:
    return records[records.metric == metric]


def _only(values: pd.Series) -> Any:
    found = values.dropna().unique()
    return found[0] if len(found) else None


def _status(records: pd.DataFrame, distances: pd.DataFrame) -> str:
    if records.empty:
        return "no records"
    bad = records[(records.status != "ok") & (records.stage != "sweep")]
    extractors = distances.features.nunique()
    mixed = f"its distances are of {extractors} extractors, which are not of one measure" if extractors > 1 else ""
    if bad.empty:
        return mixed or "ok"
    # The first thing that went wrong with each seed; what was skipped because of it says the same again.
    causes = []
    for seed, rows in bad.groupby("seed"):
        diverged = rows[rows.status == "diverged"]
        first = (diverged if len(diverged) else rows).iloc[0]
        causes.append(f"seed {seed} {first.status}: {first.reason}")
    return "; ".join([*causes, *([mixed] if mixed else [])])


class Shown(NamedTuple):
    """A number in print: its column (without ``_mean``), what it is multiplied by, digits, and whether the lowest is bold."""

    column: str
    scale: float
    digits: int
    bold: bool = True


ENERGY_SCALE = 1e4
SHOWN = {
    "nll": Shown("nll", 1, 3),
    "fid": Shown("fid", 1, 2),
    # Estimates without bias fall on both sides of 0 for equal distributions: the lowest of them is not the best.
    "energy_distance": Shown("energy_distance", ENERGY_SCALE, 2, bold=False),
    "off_support": Shown("off_support", 1, 3),
    "nfe": Shown("nfe", 1, 1),
}


def _is_points(part: pd.DataFrame) -> bool:
    """Whether the rows of a data set are of points, whose distance is the energy distance."""
    return bool(part.energy_distance_mean.notna().any() or (part.fid_features.isna().all() and _only(part.nll_unit) == "nats"))


def _name(method: str) -> str:
    return PUBLISHED.get(method, label(method))


def _layout(table: pd.DataFrame, dataset: str, oracles: list[str], style: Style, columns: Sequence[str]) -> list[list[str]]:
    """Rows of text: method, ``columns`` (of :data:`SHOWN`), sample std and status; beside a number the paper's, where it has one.

    Oracles have learnt nothing, so they do not compete for the lowest mean.
    """
    rows = []
    part = table[table.dataset == dataset]
    trained, features = part[~part.method.isin(oracles)], _only(part.fid_features)
    for _, row in part.iterrows():
        cells = [_name(row.method)]
        for column, scale, digits, bold in (SHOWN[c] for c in columns):
            mean = row[f"{column}_mean"]
            best = bold and row.method not in oracles and bool(pd.notna(mean) and mean == trained[f"{column}_mean"].min())
            text = spread(scale * mean, scale * row[f"{column}_std"], digits, style, best)
            another = column == "fid" and bool(features) and not _is_inception(features)
            cells.append(beside(text, row.get(f"paper_{column}"), 2 if column == "nll" else None, "FID" if another else ""))
        cells.append("-" if pd.isna(row.sample_std) else f"{row.sample_std:.3f}")
        cells.append(row.status)
        rows.append(cells)
    return rows


INCEPTION = "pytorch-fid InceptionV3("
"""How the name of the one extractor begins whose Frechet distance may be called FID."""


def _is_inception(features: Any) -> bool:
    return str(features).startswith(INCEPTION)


def _distance_name(table: pd.DataFrame, dataset: str) -> str:
    return "FID" if _is_inception(_only(table[table.dataset == dataset].fid_features)) else "Frechet"


def markdown(table: pd.DataFrame, records: pd.DataFrame, spec: dict[str, Any]) -> str:
    """Table 1 for reading: a section per data set, the paper's number in brackets, what the numbers stand on below."""
    lines = ["# Table 1", ""]
    for dataset in spec["datasets"]:
        part = table[table.dataset == dataset]
        unit, distance = _only(part.nll_unit) or "nats", _distance_name(table, dataset)
        header = ["Method", f"NLL ({unit})", distance, "NFE", "Sample std", "Status"]
        columns = ["nll", "fid", "nfe"]
        if _is_points(part):
            # Points have no Frechet column; energy distance and support take its place.
            header[2:3] = ["Energy distance (1e-4)", "Off support"]
            columns[1:2] = ["energy_distance", "off_support"]
        rows = _layout(table, dataset, spec["oracles"], MARKDOWN, columns)
        lines += [f"## {dataset}", "", *markdown_table(header, rows)]
        lines += note_lines(_notes(table, records, dataset, spec))
    if absent := _not_run(spec):
        lines += [f"Of the paper's Table 1 these are not in this run: {absent}.", ""]
    return "\n".join(lines)


def _not_run(spec: dict[str, Any]) -> str:
    """What the paper's table has and this run does not: data sets, and methods of its five."""
    printed = paper("table1")
    datasets = [d for d in printed.dataset.unique() if d not in spec["datasets"]]
    five = printed[printed.dataset == "cifar10"].method
    return ", ".join([*datasets, *(label(str(m)) for m in five if m not in spec["methods"])])


def _tolerance(row: Any) -> str:
    return f"rtol = atol = {row.rtol:g}" if row.rtol == row.atol else f"rtol = {row.rtol:g}, atol = {row.atol:g}"


def _by_method(rows: pd.DataFrame, form: int | str) -> str:
    """The mean over seeds of each method; ``form`` is a number of digits or a format."""
    groups = rows.groupby("method", sort=False).value.mean().items()
    form = f".{form}f" if isinstance(form, int) else form
    return ", ".join(f"{label(str(m))} {'-' if pd.isna(v) else format(v, form)}" for m, v in groups)


def _notes(table: pd.DataFrame, records: pd.DataFrame, dataset: str, spec: dict[str, Any]) -> list[str]:
    mine = records[records.dataset == dataset]
    n = len(spec["seeds"])
    notes = [f"Mean ± standard deviation over {n} seed{'s' if n > 1 else ''}; bold is the lowest mean."]
    part = table[table.dataset == dataset]
    if _is_points(part):
        notes[0] += " No energy distance is bold: of unbiased estimates around 0 the lowest is not the best."
    if (part.seeds < n).any():
        notes[0] += " Where the status names a seed, it is over the others."
    nll = _metric(mine[~mine.method.isin(spec["oracles"])], "nll")
    if len(nll):
        row = nll.iloc[0]
        stderr = _metric(mine[~mine.method.isin(spec["oracles"])], "nll_stderr").value.mean()
        notes.append(
            f"NLL over {row.n:.0f} test samples, {row.solver}, {_tolerance(row)}; "
            f"its standard error over test samples is {stderr:.3f}."
        )
        probes = _metric(mine, "nll_probe_std")
        if len(probes):
            notes[-1] += f" Of one sample's number the probes alone leave a standard deviation of {probes.value.mean():.3f}."
        if not _is_points(part):
            notes.append(
                "NLL here is for K = 1 dequantisation draw; the paper's column is at its largest K (Table 4 has NLL over K)."
            )
    nfe = _metric(mine, "nfe")
    if len(nfe):
        shared = _metric(mine, "nfe_shared")
        batch = _only(shared.batch)
        notes.append(
            f"NFE: dopri5 at {_tolerance(nfe.iloc[0])} with a step size per sample, mean over {nfe.iloc[0].n:.0f} samples. "
            f"With one step size for a batch of {batch:.0f}: {_by_method(shared, 0)}."
        )
    if len(_metric(mine, "frechet")):
        notes += _distance_notes(mine)
    energy = _metric(mine, "energy_distance_floor")
    if len(energy):
        floor_value = energy.value.iloc[0] * ENERGY_SCALE
        text = f"Energy distance of as many real train points to test, in the same units: {floor_value:.2f}; "
        text += "the estimate is unbiased, so it falls on both sides of 0 for equal distributions."
        entropy = _metric(mine, "nll_floor")
        if len(entropy):
            text += f" The true density's NLL is {entropy.value.iloc[0]:.3f} {entropy.unit.iloc[0]}."
        notes.append(text)
    for metric, what, scale in (
        ("sliced_wasserstein", "Sliced Wasserstein distance (1e-2)", 1e2),
        ("mmd", "Squared MMD (1e-4)", 1e4),
    ):
        rows, real = _metric(mine, metric), _metric(mine, f"{metric}_floor")
        if rows.value.notna().any() and len(real):
            values = _by_method(rows.assign(value=scale * rows.value), 2)
            notes.append(f"{what}: {values}; real train against test {scale * real.value.iloc[0]:.2f}.")
    real = _metric(mine, "data_std")
    if len(real):
        notes.append(f"Sample std is of unclamped samples, in the network's units; the data's is {real.value.iloc[0]:.3f}.")
    own, own_closed = (_metric(mine, m) for m in ("nll_own", "nll_own_closed_form"))
    if len(own):
        names = ", ".join(label(m) for m in own.method.unique())
        notes.append(
            f"{names}: the closed-form field of {_oracle_points(mine)}, no network and nothing learnt; not in bold. It knows "
            "these points and no test point; its NLL of the test set is in closed form, without a solver. NLL of its own draws "
            f"by the solver: {_by_method(own, 3)}; in closed form: {_by_method(own_closed, 3)}."
        )
    for method, values in spec["overrides"].items():
        notes.append(f"{label(method)} does not train under the common settings: {values}.")
    return notes


def _oracle_points(mine: pd.DataFrame) -> str:
    """What the oracles of a data set know: an oracle has seen each of its points once, and has a bandwidth for a weight."""
    widths = _metric(mine, "bandwidth")
    counts = _metric(mine[mine.method.isin(widths.method)], "images_seen").value.dropna().unique()
    if not len(counts):
        return "points of the training set, a Gaussian about each"
    text = f"{' or '.join(f'{count:.0f}' for count in sorted(counts))} points of the training set, a Gaussian about each"
    return text + f" (standard deviation {' or '.join(f'{w:.3g}' for w in sorted(widths.value.dropna().unique()))})"


def _distance_notes(mine: pd.DataFrame) -> list[str]:
    """What the distances of images are of, what real data have, and what stands beside them."""
    main = _metric(mine, "frechet").iloc[0]
    proper = _is_inception(main.features)
    name, kernel = ("FID", "KID") if proper else ("Frechet", "Kernel distance")
    accuracy = _metric(mine, "classifier_accuracy")
    own = accuracy[accuracy.features == main.features]
    text = f"{name}: features of the {main.features}"
    if len(own):
        text += f", test accuracy {own.value.iloc[0]:.1%}"
    text += f"; {main.n:.0f} samples against {main.reference}."
    if not proper:
        text += " This is not an Inception FID."
    notes = [text]
    floor = _metric(mine, "frechet_floor")
    if len(floor):
        row, at_floor = floor.iloc[0], _metric(mine, "frechet_at_floor_n")
        text = f"Real test against train is {row.value:.2f} at n = {row.n:.0f}"
        text += ", the classifier having seen train" if len(own) else ""
        text += f"; at that n the methods have: {_by_method(at_floor, 2)}." if at_floor.value.notna().any() else "."
        notes.append(text)
    kid = _metric(mine, "kid")
    if kid.value.notna().any():
        real, spread = _metric(mine, "kid_floor"), _metric(mine, "kid_std").value.mean()
        against = kid.reference.iloc[0].partition("; ")[2]
        # Published values are in 1e-3; of other features, whose scale is anybody's, no unit can be foretold.
        scale, form = (1e3, ".3f") if proper else (1, ".3g")
        text = f"{kernel} on the same features{', 1e-3' if proper else ''}, unbiased at every n ({against}, which spread by "
        text += f"{scale * spread:{form}}): {_by_method(kid.assign(value=scale * kid.value), form)}"
        notes.append(text + (f"; real test against train {scale * real.value.iloc[0]:{form}}." if len(real) else "."))
    covered = [_metric(mine, m) for m in ("precision", "recall")]
    if all(rows.value.notna().any() for rows in covered):
        row = covered[0].iloc[0]
        texts = [_by_method(rows, 3) for rows in covered]
        floors = [_metric(mine, m) for m in ("precision_floor", "recall_floor")]
        beside = "."
        if all(map(len, floors)):
            found = [f"{rows.value.iloc[0]:.3f}" for rows in floors]
            beside += f" Real test has {found[0]} and {found[1]} at n = {floors[0].n.iloc[0]:.0f}."
        notes.append(f"Precision and recall at n = {row.n:.0f} on either side. Precision: {texts[0]}; recall: {texts[1]}{beside}")
    for metric, what in (("inception_score", "Inception Score"), ("frechet_infinity", f"{name} extrapolated to infinite n")):
        rows = _metric(mine, metric)
        if rows.value.notna().any():
            notes.append(f"{what}: {_by_method(rows, 2)}.")
    others = mine[mine.metric.str.startswith("frechet/")]
    for features, rows in others.groupby("features", sort=False):
        called = "FID" if _is_inception(features) else "Frechet distance"
        notes.append(f"{called} on features of the {features}: {_by_method(rows, 2)}.")
    return notes


def latex(table: pd.DataFrame, spec: dict[str, Any]) -> str:
    """Table 1 in the paper's layout: a row per method, three columns per data set; needs booktabs.

    Below a rule are methods of others that only the paper has. What is missing is said below the table, a line for each
    training that went wrong.
    """
    datasets = spec["datasets"]
    parts = {d: table[table.dataset == d] for d in datasets}
    points = [d for d in datasets if _is_points(parts[d])]
    bodies = {}
    for d in datasets:
        columns = ["nll", "energy_distance" if d in points else "fid", "nfe"]
        cells = _layout(table, d, spec["oracles"], LATEX, columns)
        bodies[d] = {method: row[1:4] for method, row in zip(parts[d].method, cells, strict=True)}
    distances = {d: r"Energy ($10^{-4}$)" if d in points else _distance_name(table, d) for d in datasets}
    header = [
        " & ".join(["", *(rf"\multicolumn{{3}}{{c}}{{{tex(d)}}}" for d in datasets)]) + r" \\",
        "".join(rf"\cmidrule(lr){{{2 + 3 * i}-{4 + 3 * i}}}" for i in range(len(datasets))),
        " & ".join(["Method", *(f"NLL & {distances[d]} & NFE" for d in datasets)]) + r" \\",
    ]
    others = [m for m in PUBLISHED if ((table.method == m) & (table.status == PAPER_ONLY)).any()]
    rows: list[list[str] | None] = [
        None if method is None else [tex(_name(method)), *(c for d in datasets for c in bodies[d].get(method, ["-"] * 3))]
        for method in [*spec["methods"], *([None, *others] if others else [])]
    ]
    bad = table[~table.status.isin(["ok", PAPER_ONLY])]
    footnotes = [tex(f"{row.dataset}, {label(str(row.method))}: {row.status}") for row in bad.itertuples()]
    units = ", ".join(f"{d}: {_only(table[table.dataset == d].nll_unit)}" for d in datasets)
    features = ", ".join(f"{d}: {_only(table[table.dataset == d].fid_features) or 'none'}" for d in datasets)
    own = "".join(f"% {label(m)} does not train under the common settings: {v}.\n" for m, v in spec["overrides"].items())
    remarks = f"% NLL in {units}. Features of the distance: {features}. In brackets: the paper.\n"
    if points:
        remarks += f"% {', '.join(points)}: the energy distance, in 1e-4, in the place of the Frechet distance; none in bold: "
        remarks += "of unbiased estimates around 0 the lowest is not the best.\n"
    if len(points) < len(datasets):
        remarks += "% NLL of images is for K = 1 dequantisation draw; the paper's is at its largest K.\n"
    remarks += own
    return remarks + "\n".join(latex_table("l" + "rrr" * len(datasets), header, rows, footnotes))


def write_table1(records_path: Path, spec: dict[str, Any], out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``."""
    records = records_frame(records_path)
    table = table1(records, spec)
    write_all(out, to_csv(table), markdown(table, records, spec), latex(table, spec))
    return table
