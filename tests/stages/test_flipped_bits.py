"""One flipped bit in any file that a number depends on: its reader stops, and names the file and what makes it again.

A cell of a cache is computed again instead. Files of every kind are also damaged bit by bit in ``tests/store/test_seal.py``.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sealed_files import flip
from tiny_benchmark import SEED, Bench
from user_code import Said, command

from fmbench.config import specs
from fmbench.config.hashing import canonical

FLIPS = 3
"""Bits flipped in each file, one after the other, at places that follow from its name."""


@pytest.fixture(scope="module")
def board(tmp_path_factory, healthy) -> Bench:
    """A copy of the results of points, in which files are damaged and mended again."""
    return copied(healthy, tmp_path_factory.mktemp("flips") / "results")


@pytest.fixture(scope="module")
def images(tmp_path_factory, bench) -> Bench:
    """A copy of the results of all data sets."""
    return copied(bench, tmp_path_factory.mktemp("flips") / "results")


def copied(made: Bench, results: Path) -> Bench:
    shutil.copytree(made.results, results)
    copy = Bench.__new__(Bench)
    copy.results, copy.config = results, made.config
    return copy


def refuses(path: Path, read: Callable[[], Said]) -> None:
    """Check that ``read`` stops with a message on ``path`` after each of :data:`FLIPS` flips, and works without."""
    good, dice = path.read_bytes(), random.Random(path.name)
    for _ in range(FLIPS):
        bit = dice.randrange(8 * len(good))
        flip(path, bit)
        said = read()
        path.write_bytes(good)
        assert said.code == 3 and str(path) in said.err and "run snakemake again" in said.err, (bit, said)
    assert read().code == 0


def stage(bench: Bench, name: str, dataset: str = "board") -> Callable[[], Said]:
    return lambda: bench.run(name, dataset, "fm_ot")


@pytest.mark.parametrize(
    ("reader", "file"),
    [
        ("sample", "data/board/manifest.json"),
        ("likelihood", "data/board/test.npy"),
        ("sample", f"models/board/fm_ot/{SEED}/model.safetensors"),
        ("sample", f"models/board/fm_ot/{SEED}/config.json"),
        ("learning_curve", f"models/board/fm_ot/{SEED}/snapshots.safetensors"),
        ("sample_quality", f"sample/board/fm_ot/{SEED}/samples.npy"),
        ("sample_quality", "features/board/extractor.json"),
        ("few_step", f"sample/board/fm_ot/{SEED}/rows.parquet"),
        ("few_step", f"sample/board/fm_ot/{SEED}/nfe.parquet"),
    ],
)
def test_a_stage_of_one_model_on_points(board, reader, file):
    refuses(board.results / file, stage(board, reader))


@pytest.mark.parametrize("file", ["classifier.safetensors", "extractor.json", "reference-*.safetensors"])
def test_the_evaluator_of_images(images, file):
    (path,) = (images.results / "features" / "tall").glob(file)
    refuses(path, stage(images, "sample_quality", "tall"))


def test_the_data_of_a_training(board):
    def train() -> Said:
        shutil.rmtree(board.results / "checkpoints")
        return board.run("train", "board", "fm_ot")

    refuses(board.results / "data" / "board" / "train.npy", train)


@pytest.mark.parametrize("split", ["train_labels", "test_labels"])
def test_the_labels_of_a_classifier(images, split, tmp_path):
    data = images.results / "data" / "tall"
    spec = canonical(specs.features(images.config, "tall"))
    refuses(data / f"{split}.npy", lambda: command("features", "--spec", spec, "--data", data, "--out", tmp_path / "features"))


@pytest.mark.parametrize(
    "file",
    [
        "data/board/manifest.json",
        "data/board/test.npy",
        "features/board/rows.parquet",
        *(f"{stage}/board/fm_ot/{SEED}/rows.parquet" for stage in ("models", "sample", "likelihood", "sweep", "sample_quality")),
        f"models/board/fm_ot/{SEED}/config.json",
        f"models/board/fm_ot/{SEED}/loss_curve.parquet",
        f"sample/board/fm_ot/{SEED}/preview.parquet",
    ],
)
def test_collect(board, file):
    refuses(board.results / file, lambda: board.whole("collect", "--results", board.results, "--tracking-uri", "off"))


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("nfe", "sample/{}/nfe.parquet"),
        ("learning_curve", "learning_curve/{}/rows.parquet"),
        ("few_step", "few_step/{}/rows.parquet"),
        ("few_step_previews", "few_step/{}/previews.parquet"),
        ("trajectory", "trajectory/{}/trajectory.parquet"),
    ],
)
def test_gather(board, kind, file):
    spec = canonical(specs.gather(kind, board.config))
    path = board.results / file.format(f"board/fm_ot/{SEED}")
    refuses(path, lambda: command("gather", "--spec", spec, "--results", board.results, "--progress", "lines"))


@pytest.mark.parametrize(
    ("reader", "file"),
    [
        ("table1 --records {r}/records.parquet --out {o}/table1.csv", "records.parquet"),
        ("table2 --records {r}/records.parquet --out {o}/table2.csv", "records.parquet"),
        ("table3 --settings {r}/settings.parquet --out {o}/table3.csv", "settings.parquet"),
        ("solvers --records {r}/records.parquet --few-step {r}/few_step.parquet --out {o}/solvers.csv", "few_step.parquet"),
        ("figure nfe_distribution --results {r} --out {o}/f.svg", "nfe.parquet"),
        ("figure fig04_densities --results {r} --out {o}/f.svg", "trajectory.parquet"),
        ("figure fig04 --results {r} --out {o}/f.svg", "previews.parquet"),
        ("figure fig04_few_step --results {r} --out {o}/f.svg", "few_step_previews.parquet"),
        ("claims --results {r} --out {o}/claims.csv", "learning_curve.parquet"),
        ("claims --results {r} --out {o}/claims.csv", "few_step.parquet"),
    ],
)
def test_reports(board, reader, file, tmp_path):
    def read() -> Said:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        words = reader.format(r=board.results, o=tmp_path / "out").split()
        if words[0] == "table1":
            words += ["--spec", canonical(specs.table1(board.config))]
        return command(*words)

    refuses(board.results / file, read)


@pytest.mark.parametrize("name", ["noise_levels", "fields", "trajectories", "densities", "samplers", "equivalence"])
def test_figures_of_theory(theory, tmp_path, name):
    results = tmp_path / "results"
    shutil.copytree(theory, results)
    figure = {"fields": "fig02", "trajectories": "fig03"}.get(name, name)
    refuses(
        results / "theory" / f"{name}.parquet",
        lambda: command("figure", figure, "--results", results, "--out", tmp_path / "f.svg"),
    )


@pytest.mark.parametrize("reader", ["sweep", "few_step", "learning_curve"])
def test_a_damaged_cell_is_computed_again_with_the_same_numbers(board, reader):
    timed = {"seconds"}
    before = [row for row in board.rows(reader, "board", "fm_ot") if row["metric"] not in timed]
    cells = sorted((board.results / "cache" / reader / "board" / "fm_ot").iterdir())
    good = {path: path.read_bytes() for path in cells}
    assert board.run(reader, "board", "fm_ot").err.count("cannot be used") == 0
    dice = random.Random(reader)
    for path in cells:
        flip(path, dice.randrange(8 * len(good[path])))
    said = board.run(reader, "board", "fm_ot")
    assert said.code == 0 and all(f"{path} cannot be used" in said.err for path in cells if path.suffix == ".json")
    assert "it is computed again" in said.err
    assert [row for row in board.rows(reader, "board", "fm_ot") if row["metric"] not in timed] == before
    mended = {path: path.read_bytes() for path in cells}
    assert all(mended[path] == good[path] for path in cells if path.suffix == ".npy" or b"seconds" not in good[path])
    assert board.run(reader, "board", "fm_ot").err.count("cannot be used") == 0


def test_a_damaged_checkpoint_or_snapshot_costs_no_number(board):
    """Checkpoints are passed over for the one before. Only the training's own snapshots are lost with their files."""
    model = board.folder("train", "board", "fm_ot") / "model.safetensors"
    good = model.read_bytes()
    (checkpoints,) = (board.results / "checkpoints").iterdir()
    newest = checkpoints / "checkpoint.pt"
    flip(newest, 4 * newest.stat().st_size)
    said = board.run("train", "board", "fm_ot")
    assert said.code == 0 and f"{newest} cannot be used" in said.err and model.read_bytes() == good
