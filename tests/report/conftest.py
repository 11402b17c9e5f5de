"""Fixtures of several test files of tables and figures."""

import pytest
from figure_results import results_folder
from table_rows import floors, image

from fmbench.store.records import Row


@pytest.fixture
def digits_rows() -> list[Row]:
    rows = floors("digits")
    rows += image("digits", "ddpm", 0, 2.6, 10.0, 100.0, 0.8) + image("digits", "ddpm", 1, 2.8, 14.0, 110.0, 0.9)
    rows += image("digits", "fm_ot", 0, 2.3, 8.0, 50.0) + image("digits", "fm_ot", 1, 2.3, 9.0, 60.0)
    return rows


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A results folder with everything that figures of trained models need. Tests only read it."""
    return results_folder(tmp_path_factory.mktemp("whole"))
