"""Fixtures that several rooms share, and the order of the tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from result_sets import config, make_results
from user_code import command, tall_images

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.data.points import checkerboard
from fmbench.data.prepared import DataSet, read
from fmbench.data.writer import write
from fmbench.stages.theory import samplers
from fmbench.store.archive import export


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run whole workflows first. Otherwise one worker would still run them after the others have finished."""
    long = {item.path for item in items if item.get_closest_marker("workflow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def board(tmp_path_factory) -> DataSet:
    """50 points of the checkerboard."""
    folder = tmp_path_factory.mktemp("board")
    write(checkerboard(train=50, test=20), folder, {"dataset": "board"})
    return read(folder)


@pytest.fixture(scope="session")
def tall(tmp_path_factory) -> DataSet:
    """24 images that are not square."""
    folder = tmp_path_factory.mktemp("tall")
    write(tall_images(train=24, test=6), folder, {"dataset": "tall"})
    return read(folder)


THEORY_METHODS = ["ddpm", "scoreflow", "fm_ot", {"name": "mine", "path": "cosine_vp", "prediction": "v"}, "oracle_ot"]


@pytest.fixture(scope="session")
def theory(tmp_path_factory) -> Path:
    """A results folder with the output of the stage ``theory``. The stage takes seconds, so it runs once for all tests."""
    results = tmp_path_factory.mktemp("theory")
    board = {"data": "checkerboard", "network": {"kind": "mlp"}}
    spec = specs.theory(parse({"datasets": ["board"], "methods": THEORY_METHODS, "settings": {"board": board}}))
    arguments = ["--out", results / "theory", "--summary", results / "equivalence.csv", "--log", results / "theory.log"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "SAMPLES", 300)  # the cost of an energy distance is quadratic
        said = command("theory", "--spec", canonical(spec), *arguments, "--progress", "lines")
    assert said.code == 0, said.err
    return results


@pytest.fixture(scope="module")
def no_fsync() -> Iterator[None]:
    """No flushing to the disk: result sets are hundreds of small files, and none has to survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """The results folder of a small run. Tests must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        return make_results(tmp_path_factory.mktemp("whole") / "results", config())


@pytest.fixture(scope="session")
def archive(whole_run, tmp_path_factory) -> Path:
    """The archive of ``whole_run``."""
    out = tmp_path_factory.mktemp("archive") / "set.zip"
    export(whole_run, out)
    return out
