"""The jobs of a tiny benchmark one by one, as Snakemake would call them, each with the files that it writes."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tiny_benchmark import FOR_FIGURES, SEED, STAGES, VALUES, Bench
from user_code import Said, command

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.names import FIGURES
from fmbench.config.stages import GATHERED
from fmbench.config.written_out import written_out
from fmbench.store.merge_tables import TIME_UNITS

SMALL: dict[str, Any] = VALUES | {"methods": ["fm_ot"], "datasets": ["board"]}
"""Points and one trained method: for a short campaign."""
WHOLE: dict[str, Any] = VALUES | {"methods": ["fm_ot", "oracle_ot"]}
"""Points and images, a trained method and an oracle."""


@dataclass(frozen=True)
class Job:
    """One call of the command line.

    Attributes:
        name: such as ``sample/board/fm_ot``.
        outputs: the files and folders that it writes, relative to the results folder.
        run: runs it on a results folder.
    """

    name: str
    outputs: tuple[str, ...]
    run: Callable[[Bench], Said]


def copy_of(bench: Bench, folder: Path) -> Bench:
    """The same benchmark with its files in another folder, as links. fmbench replaces files and never writes into them."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.results, folder, copy_function=os.link)
    return at(bench, folder)


def at(bench: Bench, folder: Path) -> Bench:
    """The same benchmark in another folder, whose files are there already."""
    other = Bench.__new__(Bench)
    other.results, other.config = folder, bench.config
    return other


def jobs(bench: Bench) -> dict[str, Job]:
    """The jobs of a benchmark by name, in an order in which they can run."""
    return {job.name: job for job in [*_of_data(bench), *_of_models(bench), *_of_all(bench)]}


def _of_data(bench: Bench) -> Iterator[Job]:
    for dataset in bench.config.datasets:

        def prepare(b: Bench, dataset: str = dataset) -> Said:
            return command(
                "prepare", "--spec", canonical(specs.prepare(b.config, dataset)), "--out", b.results / "data" / dataset
            )

        def features(b: Bench, dataset: str = dataset) -> Said:
            spec = canonical(specs.features(b.config, dataset))
            folders = ["--data", b.results / "data" / dataset, "--out", b.results / "features" / dataset]
            return command("features", "--spec", spec, *folders)

        yield Job(f"prepare/{dataset}", (f"data/{dataset}",), prepare)
        yield Job(f"features/{dataset}", (f"features/{dataset}",), features)


def _of_models(bench: Bench) -> Iterator[Job]:
    for dataset in bench.config.datasets:
        for method in (m.name for m in bench.config.methods):
            stages = ["train", *STAGES, *FOR_FIGURES]
            if dataset != "board" and method in specs.table4(bench.config)["methods"]:
                stages.append("dequantisation")
            for stage in stages:

                def run(b: Bench, stage: str = stage, dataset: str = dataset, method: str = method) -> Said:
                    return b.run(stage, dataset, method)

                folder = "models" if stage == "train" else stage
                yield Job(f"{stage}/{dataset}/{method}", (f"{folder}/{dataset}/{method}/{SEED}",), run)


COLLECTED = ("records.parquet", "previews.parquet", "settings.parquet", "models.parquet", "loss_curves.parquet", "benchmark.json")


def _of_all(bench: Bench) -> Iterator[Job]:
    def collect(b: Bench) -> Said:
        described = canonical(written_out(b.config))
        return b.whole("collect", "--results", b.results, "--config", described, "--tracking-uri", "off")

    yield Job("collect", COLLECTED, collect)
    for kind in GATHERED:

        def gather(b: Bench, kind: str = kind) -> Said:
            return command("gather", "--spec", canonical(specs.gather(kind, b.config)), "--results", b.results)

        yield Job(f"gather/{kind}", (f"{kind}.parquet",), gather)

    def table1(b: Bench) -> Said:
        return b.whole("table1", "--records", b.results / "records.parquet", "--out", b.results / "table1.csv")

    yield Job("table1", ("table1.csv", "table1.md", "table1.tex"), table1)

    shown = [(d, m) for d in bench.config.datasets if d != "board" for m in specs.table4(bench.config)["methods"]]
    if shown:

        def table4(b: Bench) -> Said:
            rows = [f"--rows={b.folder('dequantisation', *model) / 'rows.parquet'}" for model in shown]
            out = ["--out", b.results / "table4.csv", "--gathered", b.results / "dequantisation.parquet"]
            return command("table4", "--spec", canonical(specs.table4(b.config)), *rows, *out)

        yield Job("table4", ("table4.csv", "table4.md", "table4.tex", "dequantisation.parquet"), table4)

    def export(b: Bench) -> Said:
        return command("export", "--results", b.results, "--out", b.results / "set.zip")

    def unpack(b: Bench) -> Said:
        return command("unpack", b.results / "set.zip", "--out", b.results / "unpacked")

    yield Job("export", ("set.zip",), export)
    yield Job("unpack", ("unpacked",), unpack)
    for figure, files in FIGURES.items():
        if not any("theory" in file for file in files):

            def draw(b: Bench, figure: str = figure) -> Said:
                return command("figure", figure, "--results", b.results, "--out", b.results / f"{figure}.svg")

            yield Job(f"figure/{figure}", (f"{figure}.svg",), draw)


def clear(results: Path, job: Job, memory: bool) -> None:
    """Delete what a job wrote; with ``memory`` also its checkpoints and cells, as if it had never run."""
    remembered = [f"cache/{job.name}", *(["checkpoints"] if job.name.startswith("train/") else [])]
    for path in (results / name for name in (*job.outputs, *(remembered if memory else []))):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


# Results


def result(bench: Bench, job: Job) -> dict[str, Any]:
    """What a job wrote, by file, without what differs from run to run: times, commits, archives' and pictures' bytes."""
    found: dict[str, Any] = {}
    for output in job.outputs:
        path = bench.results / output
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not file.name.startswith(".") and file.suffix not in (".zip", ".svg", ".tex"):
                found[file.relative_to(bench.results).as_posix()] = _content(file)
    return found


def _content(file: Path) -> Any:
    if file.suffix == ".parquet":
        rows = pq.read_table(file).to_pylist()
        return [repr(row) for row in rows if row.get("unit") not in TIME_UNITS]
    if file.name in ("benchmark.json", "table1.md", "table1.csv"):
        return file.exists()
    return file.read_bytes()
