"""Keep a finished run as a reference: copy its records, tables and figures, say where they come from, show them in the README.

    python tools/reference.py results default

writes results/reference/default/ and the README's section between the marks of the default run.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

from fmbench.report.figures.animation import NAME, write_animation
from fmbench.store.provenance import commit

ROOT = Path(__file__).parent.parent
KEPT = [
    *(
        f"{name}.{kind}"
        for name in ("table1", "table2", "table3", "table4", "solvers", "claims")
        for kind in ("csv", "md", "tex")
    ),
    "benchmark.json",
    "equivalence.csv",
    *(f"{name}.parquet" for name in ("records", "dequantisation", "settings", "models", "loss_curves", "previews")),
    *(f"{name}.parquet" for name in ("learning_curve", "few_step", "few_step_previews", "trajectory", "half_way", "nfe")),
]
BEGIN, END = "<!-- default run: begin -->", "<!-- default run: end -->"


def keep(results: Path, out: Path) -> None:
    """Copy a run's outcome and write its provenance, as the rows themselves have it."""
    drawn_with = commit()  # before the copies change the working tree
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(results / name, out / name)
    for figure in sorted((results / "figures").iterdir()):
        if figure.suffix in (".png", ".svg"):
            shutil.copy(figure, out / figure.name)
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


def _seeds(reference: Path) -> int:
    return len(
        {seed for seed in pq.read_table(reference / "records.parquet", columns=["seed"])["seed"].to_pylist() if seed is not None}
    )


def readme_section(reference: Path) -> str:
    """The README's part on a reference run: its table and figures, and where they come from."""
    provenance = json.loads((reference / "provenance.json").read_text())
    claims = _section(reference / "claims.md").split("\n#### ")[0].strip()  # the verdicts, not the evidence for each
    tables = f"{claims}\n\n{_section(reference / 'table1.md')}"
    folder = reference.relative_to(ROOT).as_posix()
    versions, commits = provenance["versions"][0], [c[:12] for c in provenance["commits"]]
    source = (
        f"The default config with {_seeds(reference)} seeds (commit{'s' * (len(commits) > 1)} {' and '.join(commits)}, "
        f"torch {versions['torch']}, {provenance['devices'][0]}; tables and figures drawn with commit "
        f"{provenance['drawn_with'][:12]}); its parquet files, tables and figures are in [`{folder}/`]({folder}/)."
    )
    figures = [
        ("solver_budget.png", "The best solver for each method at each number of evaluations, by sample quality and by error"),
        ("fig07.png", "Error against NFE by solver, with each model's NLL"),
        ("fig07_quality.png", "Distance to the data against NFE"),
        ("fig06.png", "The same noise on its way to data"),
        ("fig04_densities.png", "Densities of checkerboard samples along t"),
    ]
    images = "\n\n".join(f"![{text}]({folder}/{name})" for name, text in figures)
    forest = f"![Every claim with its lines of evidence: interval, threshold and verdict]({folder}/claims.png)"
    return f"{source}\n\n{forest}\n\n{tables}\n\n{images}"


def _section(path: Path) -> str:
    """A table's Markdown, its headings two levels down."""
    return re.sub(r"^(#+) ", r"\1## ", path.read_text(), flags=re.MULTILINE).strip()


def with_section(readme: str, section: str) -> str:
    """The README with the section between the marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def main() -> None:
    results, name = Path(sys.argv[1]), sys.argv[2]
    reference = ROOT / "results" / "reference" / name
    keep(results, reference)
    if name == "default":
        readme = ROOT / "README.md"
        readme.write_text(with_section(readme.read_text(), readme_section(reference)))
    print(f"{results} -> {reference}")


if __name__ == "__main__":
    main()
