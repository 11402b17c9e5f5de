"""Keep a finished run as a reference: copy its records, tables and figures, say where they come from, show them in a document.

    python tools/reference.py results default

writes results/reference/default/ and the README's section between the marks of the default run. The other names are those of
configs: `python tools/reference.py results/superres_digits superres_digits`. SECTIONS says which document shows what of each.
"""

import json
import os.path
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from fmbench.config.config import Config
from fmbench.config.names import FIGURES
from fmbench.config.outputs import drawn
from fmbench.report.figures.animation import NAME, write_animation
from fmbench.report.layout import Markup, markdown_table
from fmbench.store.benchmark import config_of
from fmbench.store.provenance import commit

ROOT = Path(__file__).parent.parent
KEPT = [
    *(
        f"{name}.{kind}"
        for name in ("table1", "table2", "table3", "table4", "solvers", "grid3x3", "pareto", "claims")
        for kind in ("csv", "md", "tex")
    ),
    "benchmark.json",
    *(f"{name}.parquet" for name in ("records", "dequantisation", "settings", "models", "loss_curves", "previews")),
    *(f"{name}.parquet" for name in ("learning_curve", "few_step", "few_step_previews", "trajectory", "half_way", "nfe")),
]


def keep(results: Path, out: Path) -> None:
    """Copy a run's outcome and write its provenance, as the rows themselves have it."""
    drawn_with = commit()  # before the copies change the working tree
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (results / name).exists():  # a config may leave a stage out
            shutil.copy(results / name, out / name)
    config = config_of(results)
    whole = out.name == "default"
    for old in (*out.glob("*.png"), *out.glob("*.svg")):
        old.unlink()
    for figure in drawn(config) if whole else _own(config, results):
        for kind in ("png", "svg") if whole else ("png",):
            shutil.copy(results / "figures" / f"{figure}.{kind}", out / f"{figure}.{kind}")
    if whole:
        shutil.copy(results / "equivalence.csv", out)
        write_animation(results, out / NAME)
        shutil.copytree(results / "theory", out / "theory", dirs_exist_ok=True)
    for manifest in sorted((results / "data").glob("*/manifest.json")):
        copy = out / "data" / manifest.parent.name / manifest.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(manifest, copy)
    rows = pq.read_table(results / "records.parquet").to_pylist()
    train = [row["value"] for row in rows if row["metric"] == "train_seconds"]
    provenance = {
        "commits": sorted({row["commit"] for row in rows}),
        "drawn_with": drawn_with,
        "versions": [json.loads(v) for v in sorted({row["versions"] for row in rows})],
        "devices": sorted({row["device"] for row in rows}),
        "threads": sorted({row["threads"] for row in rows}),
        "rows": len(rows),
        "train_seconds": round(sum(train)),
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2, sort_keys=True) + "\n")
    if not whole:  # the documentation site makes the page of the default run, its gallery
        (out / "README.md").write_text(_page(out))


def _own(config: Config, results: Path) -> list[str]:
    """The figures that were drawn and show something of this run. Those of ``theory/`` alone are the same in every run."""
    files = {figure: results / "figures" / f"{figure}.parquet" for figure in drawn(config)}
    there = [figure for figure, file in files.items() if file.exists()]
    measured = [figure for figure in there if not all(source.startswith("theory/") for source in FIGURES[figure])]
    return [figure for figure in measured if pq.read_metadata(files[figure]).num_rows]


def _page(reference: Path) -> str:
    """The first page of the folder of a reference run."""
    documents = ", ".join(f"[{path.stem}]({path.name})" for path in sorted(reference.glob("*.md")) if path.stem != "README")
    return f"# Reference run: {reference.name}\n\n{_source(reference).split('; its parquet')[0]}.\n\nTables: {documents}.\n"


def _seeds(reference: Path) -> int:
    return len(
        {seed for seed in pq.read_table(reference / "records.parquet", columns=["seed"])["seed"].to_pylist() if seed is not None}
    )


def section(reference: Path) -> str:
    """The part of a document on a reference run: where the run comes from, its tables and figures."""
    return f"{_source(reference)}\n\n{SECTIONS[reference.name].text(reference)}"


def _source(reference: Path) -> str:
    provenance = json.loads((reference / "provenance.json").read_text())
    name = reference.relative_to(ROOT).as_posix()
    versions, commits = provenance["versions"][0], [c[:12] for c in provenance["commits"]]
    seeds = _seeds(reference)
    config = "The default config" if reference.name == "default" else f"`configs/{reference.name}.yaml`"
    return (
        f"{config} with {seeds} seed{'s' * (seeds > 1)} (commit{'s' * (len(commits) > 1)} {' and '.join(commits)}, "
        f"torch {versions['torch']}, {' and '.join(provenance['devices'])}; tables and figures drawn with commit "
        f"{provenance['drawn_with'][:12]}); its parquet files, tables and figures are in [`{name}/`]({_folder(reference)}/)."
    )


def generation(reference: Path) -> str:
    """The claims, Table 1 and the figures of a run that generates."""
    forest = ("claims.png", "Every claim with its lines of evidence: interval, threshold and verdict")
    figures = [
        ("solver_budget.png", "The best solver for each method at each number of evaluations, by sample quality and by error"),
        ("fig07.png", "Error against NFE by solver, with each model's NLL"),
        ("fig07_quality.png", "Distance to the data against NFE"),
        ("fig06.png", "The same noise on its way to data"),
        ("fig04_densities.png", "Densities of checkerboard samples along t"),
    ]
    return "\n\n".join([_images(reference, forest), _claims(reference), _table1(reference), _images(reference, *figures)])


def images(reference: Path) -> str:
    """The claims, Table 1 without the further measures and the images of a run on real images."""
    figures = [
        ("fig11.png", "Samples of each model from the same noise, beside the data"),
        ("fig06.png", "The same noise on its way to images"),
        ("fig07.png", "Error against NFE by solver, with each model's NLL"),
    ]
    return "\n\n".join([_claims(reference), _table1(reference), _images(reference, *figures)])


def super_resolution(reference: Path) -> str:
    """Table 2, the claim on it and the upsampled images."""
    figures = [
        ("fig14.png", "Low-resolution images, upsampled by each model, and the originals"),
        ("fig15.png", "The part of an image with the most detail, from each model"),
    ]
    return "\n\n".join([_section(reference / "table2.md"), _images(reference, *figures), _verdict(reference, 11)])


def zoo(reference: Path) -> str:
    """The table and the picture of quality and cost, and which methods copy their training set."""
    figures = [("pareto.png", "Distance of samples to the data against NFE, and against the cost of training, for every method")]
    said = "What the [metrics of copies](docs/metrics.md#copies-of-the-training-set) say:"
    return "\n\n".join([_section(reference / "pareto.md"), _images(reference, *figures), said, "\n".join(_copies(reference))])


def marginal(reference: Path) -> str:
    """The columns of Table 1 and of the further measures that show what the marginal target changes."""
    columns = ["NLL (nats)", "Off support", "NFE", "Gradient variance", "Gradient variance, conditional target", "Loss floor"]
    return "\n".join(_chosen(reference / "table1.md", [*columns, "Final loss"]))


def grid3x3(reference: Path) -> str:
    """The squares of numbers and the heat map."""
    figures = [("grid3x3.png", "NLL, distance and NFE by what the network predicts and whose error the loss measures")]
    return "\n\n".join([_section(reference / "grid3x3.md").partition("\n")[2].strip(), _images(reference, *figures)])


def _chosen(path: Path, columns: Sequence[str]) -> list[str]:
    """One table with these columns of all tables of a file, a row for each method."""
    cells: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for line in path.read_text().splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if row[:1] == ["Method"]:
            header = row
        elif row and not row[0].startswith("---"):
            cells.setdefault(row[0], {}).update(zip(header, row, strict=True))
    whole = {method: mine for method, mine in cells.items() if set(columns) <= mine.keys()}
    rows = [[Markup(mine[column]) for column in ("Method", *columns)] for mine in whole.values()]
    return markdown_table(["Method", *columns], rows)


def _copies(reference: Path) -> list[str]:
    """The notes of Table 1 on methods whose samples are too near to the training set, each with its data set."""
    found, dataset = [], ""
    for line in (reference / "table1.md").read_text().splitlines():
        dataset = line.rpartition(" ")[2] if line.startswith("### Further measures of ") else dataset
        found += [f"* {dataset}: {line.removeprefix('* ')}"] if "its C_T is" in line else []
    return found


class Section(NamedTuple):
    """The document that shows a reference, and the function that writes what it shows after where the run comes from."""

    document: str
    text: Callable[[Path], str]


SECTIONS = {
    "default": Section("README.md", generation),
    "superres_digits": Section("README.md", super_resolution),
    "superres_fashion_mnist_cpu": Section("README.md", super_resolution),
    "fashion_mnist_cpu": Section("README.md", images),
    "zoo": Section("README.md", zoo),
    "marginal": Section("docs/methods.md", marginal),
    "grid3x3": Section("docs/methods.md", grid3x3),
}


def _claims(reference: Path) -> str:
    """The verdicts, not the evidence for each."""
    return _section(reference / "claims.md").split("\n#### ")[0].strip()


def _table1(reference: Path) -> str:
    """Table 1, with a link in place of the tables of further measures."""
    text = _section(reference / "table1.md")
    text = re.sub(r"^##### Further measures.*?(?=^#{3,4} |^In the paper's|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    return f"{text.strip()} [Further measures]({_folder(reference)}/table1.md) are in the table's own file."


def _verdict(reference: Path, number: int) -> str:
    """A claim's title with its verdict, and what was counted for the claim as a whole."""
    text = (reference / "claims.md").read_text().split(f"\n## {number}. ")[1].split("\n## ")[0]
    overall = next(line for line in text.splitlines() if line.startswith("Overall: "))
    return f"Claim {number}. {text.splitlines()[0]}. {overall.partition('. ')[2]}"


def _images(reference: Path, *figures: tuple[str, str]) -> str:
    return "\n\n".join(f"![{text}]({_folder(reference)}/{name})" for name, text in figures if (reference / name).exists())


def _folder(reference: Path) -> str:
    """The folder of a reference as the links of its document have it."""
    return Path(os.path.relpath(reference, (ROOT / SECTIONS[reference.name].document).parent)).as_posix()


def _section(path: Path) -> str:
    """A table's Markdown, its headings two levels down."""
    return re.sub(r"^(#+) ", r"\1## ", path.read_text(), flags=re.MULTILINE).strip()


def with_section(text: str, reference: Path) -> str:
    """The text of a document with the section of a reference between its marks."""
    before, after = around(text, reference.name)
    return f"{before}\n{section(reference)}\n{after}"


def around(text: str, name: str) -> tuple[str, str]:
    """The text of a document up to the first mark of a reference, and from the second on."""
    begin, end = (f"<!-- {name} run: {mark} -->" for mark in ("begin", "end"))
    if begin not in text or end not in text:
        raise ValueError(f"{SECTIONS[name].document} has no marks {begin} and {end}; add them where the run is to be shown")
    return text.partition(begin)[0] + begin, end + text.partition(begin)[2].partition(end)[2]


def main() -> None:
    results, name = Path(sys.argv[1]), sys.argv[2]
    if name not in SECTIONS:
        sys.exit(f"unknown reference {name}; known: {', '.join(SECTIONS)}")
    reference, document = ROOT / "results" / "reference" / name, ROOT / SECTIONS[name].document
    around(document.read_text(), name)  # fails before anything is copied
    keep(results, reference)
    document.write_text(with_section(document.read_text(), reference))
    print(f"{results} -> {reference}")


if __name__ == "__main__":
    main()
