"""The table and the picture of every prediction with every loss."""

import itertools

import pandas as pd
import pytest
from figure_results import drawn
from result_sets import config, make_results, number_for
from user_code import command

from fmbench.config.grid3x3 import KINDS
from fmbench.errors import DataError
from fmbench.report.grid3x3 import ABSENT, NO_GRID, grid_table, write_grid3x3

MISSING, LOST = ("epsilon", "x"), ("velocity", "epsilon")
METHODS = [
    {"name": f"{p}_by_{m}", "path": "ot", "prediction": p, "weighting": m}
    for p, m in itertools.product(KINDS, KINDS)
    if (p, m) != MISSING
]


def diverged(row):
    if row.method == "_by_".join(LOST) and row.seed == 1 and row.stage != "train":
        return {"value": None, "status": "skipped", "reason": "training diverged: the loss became nan"}
    return {}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid") / "results"
    return make_results(folder, config(methods=["ddpm", *METHODS]), change=diverged)


def test_each_cell_is_a_row_with_its_mean_over_seeds_or_the_reason(results):
    table = grid_table(results)
    assert len(table) == 2 * 9 and set(table.path) == {"ot"} and set(table.time) == {"uniform"}
    for row in table.itertuples():
        cell = (row.predicted, row.measured)
        if cell == MISSING:
            assert (row.method, row.status, row.seeds) == ("", ABSENT, 0) and pd.isna(row.nll_mean)
            continue
        seeds = [0] if cell == LOST else [0, 1]
        at = [number_for(row.dataset, row.method, seed) for seed in seeds]
        distance = row.energy_distance_mean if row.dataset == "board" else row.fid_mean
        found = (row.nll_mean, distance, row.nfe_mean)
        assert found == pytest.approx([factor * sum(at) / len(at) for factor in (2, 3, 40)])
        assert ("training diverged" in row.status) == (cell == LOST)


def test_the_text_has_a_square_for_each_measure_with_the_lowest_in_bold(results, tmp_path):
    table = write_grid3x3(results, tmp_path / "grid3x3.csv")
    text = (tmp_path / "grid3x3.md").read_text()
    assert text.count("| Predicts | x loss | epsilon loss | velocity loss |") == 6
    board = table[table.dataset == "board"].set_index(["predicted", "measured"]).nll_mean
    section = text.split("## board")[1].split("### Energy distance")[0]
    assert section.count("**") == 2 and f"**{board.min():.3f} ±" in section
    for predicted in KINDS:
        (line,) = [line for line in section.splitlines() if line.startswith(f"| {predicted} |")]
        for measured, cell in zip(KINDS, line.split("|")[2:5], strict=True):
            value = board[(predicted, measured)]
            assert cell.strip() == "-" if pd.isna(value) else f"{value:.3f}" in cell
    assert f"* Predicts epsilon, x loss: {ABSENT}." in text
    assert "* Predicts velocity, epsilon loss: seed 1 skipped: training diverged: the loss became nan." in text
    latex = (tmp_path / "grid3x3.tex").read_text()
    assert latex.count(r"\begin{tabular}{lrrr}") == 6 and latex.count(r"\textbf") == 5


def test_the_picture_shows_every_number_and_says_why_one_is_missing(results, tmp_path):
    shown, data = drawn("grid3x3", results, tmp_path)
    assert len(data) == 2 * 3 * 9
    for row in data[data["mean"].notna()].itertuples():
        digits = {"NFE": 1, "Frechet": 2}.get(row.name, 2 if "Energy" in row.name else 3)
        assert f"{row.mean:.{digits if row.mean < 1000 else 0}f}" in shown
    assert shown.count("not run") == 6


def test_a_cell_whose_seeds_all_diverged_says_so(tmp_path):
    folder = make_results(
        tmp_path / "results",
        config(methods=METHODS, seeds=[1], datasets=["board"]),
        change=diverged,
    )
    assert drawn("grid3x3", folder, tmp_path)[0].count("diverged") == 3


def test_a_run_without_a_grid_has_an_empty_table(tmp_path):
    folder = make_results(tmp_path / "results", config())
    assert write_grid3x3(folder, tmp_path / "grid3x3.csv").empty and NO_GRID in (tmp_path / "grid3x3.md").read_text()
    assert "no methods that differ in prediction and loss alone" in drawn("grid3x3", folder, tmp_path)[0]
    (folder / "models.parquet").unlink()
    with pytest.raises(DataError, match=r"models\.parquet is missing"):
        grid_table(folder)


def test_the_command_writes_the_table_and_the_page_shows_it(results, tmp_path):
    said = command("grid3x3", "--results", results, "--out", tmp_path / "grid3x3.csv")
    assert said.code == 0 and "18 rows, 14 ok -> " in said.err
    command("page", "--results", results, "--out", tmp_path / "page.html")
    assert "Every prediction with every loss" in (tmp_path / "page.html").read_text()
