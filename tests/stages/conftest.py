"""The tiny benchmark, run once for all tests of a process."""

import json
import shutil

import pytest
from tiny_benchmark import VALUES, Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Bench:
    """The whole benchmark; tests must not change its files."""
    return Bench(tmp_path_factory.mktemp("results")).everything()


@pytest.fixture(scope="session")
def healthy(tmp_path_factory) -> Bench:
    """One data set and one method that does not diverge."""
    values = json.loads(json.dumps(VALUES))
    values |= {"methods": ["fm_ot"], "datasets": ["board"]}
    return Bench(tmp_path_factory.mktemp("healthy"), values).everything()


@pytest.fixture
def spoilable(healthy, tmp_path) -> Bench:
    """A copy of ``healthy`` for one test, which may change its files."""
    shutil.copytree(healthy.results, tmp_path / "results")
    copy = Bench.__new__(Bench)
    copy.results, copy.config = tmp_path / "results", healthy.config
    return copy
