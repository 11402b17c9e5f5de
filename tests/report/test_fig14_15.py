"""Fig. 14 and 15: which images are shown, in which columns, and the zoomed part."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from figure_results import results_folder, texts

from fmbench.report.figures import write_figure
from fmbench.report.figures.fig14_15_super_resolution import IMAGES, ZOOMED, enlarged, most_detail, upsampled_data
from fmbench.store.parquet import write_table
from fmbench.store.previews import PREVIEW, previews
from fmbench.store.records import Row, write_rows

METHODS = ("fm_ot", "regression")


def upsampled_folder(folder: Path, lost: str = "") -> Path:
    """Grey images of 8 x 8 pixels, made from 2 x 2, by two models with two seeds; and points."""
    g = np.random.default_rng(0)

    def images(side: int) -> np.ndarray:
        return g.integers(0, 17, (10, 1, side, side))

    tables = [previews("digits", "low_resolution", None, images(2), range(10))]
    tables.append(previews("digits", "bicubic", None, images(8), range(10)))
    tables += [previews("digits", m, seed, images(8), range(10)) for m in METHODS if m != lost for seed in (0, 1)]
    tables.append(previews("digits", "data", None, images(8), range(10)))
    tables.append(previews("board", "fm_ot", 0, g.uniform(-1, 1, (5, 2)), range(5)))
    write_table(folder / "previews.parquet", pa.concat_tables([table.cast(PREVIEW) for table in tables]))
    bad = {"status": "diverged", "reason": "the loss became nan"}
    rows = [
        Row("digits", m, 0, "train", "final_loss", None if m == lost else 1.0, "loss", **(bad if m == lost else {}))
        for m in METHODS
    ]
    write_rows(folder / "records.parquet", rows)
    return folder


def test_the_first_images_of_the_first_seed_are_shown(tmp_path):
    data = upsampled_data(upsampled_folder(tmp_path))
    assert set(data.dataset) == {"digits"} and set(data["index"]) == set(range(IMAGES))
    assert set(data.method) == {"low_resolution", "bicubic", "data", *METHODS}
    assert set(data.seed.dropna()) == {0} and len(data) == 5 * IMAGES
    assert set(upsampled_data(tmp_path, ZOOMED)["index"]) == set(range(ZOOMED))


@pytest.mark.parametrize(("name", "rows"), [("fig14", IMAGES), ("fig15", ZOOMED)])
def test_a_row_per_image_and_a_column_per_model(name, rows, tmp_path):
    write_figure(name, upsampled_folder(tmp_path), [tmp_path / "f.svg"], tmp_path / "f.parquet")
    said = texts(tmp_path / "f.svg")
    titles = [said.index(text) for text in ("Low", "Bicubic", "FM, OT", "Original")]
    assert titles == sorted(titles) and said.lower().index("regression") < titles[2]
    assert [f"image {i}" in said for i in range(rows + 1)] == rows * [True] + [False]


def test_a_model_that_diverged_keeps_its_column(tmp_path):
    write_figure("fig15", upsampled_folder(tmp_path, lost="fm_ot"), [tmp_path / "f.svg"])
    assert texts(tmp_path / "f.svg").count("diverged") == ZOOMED


def test_chosen_methods_stay_beside_what_they_are_made_from(tmp_path):
    write_figure("fig14", upsampled_folder(tmp_path), [tmp_path / "f.svg"], methods=["fm_ot"])
    said = texts(tmp_path / "f.svg")
    assert "Bicubic" in said and "Original" in said and "egression" not in said


@pytest.mark.parametrize("name", ["fig14", "fig15"])
def test_results_without_super_resolution_have_an_empty_figure(name, tmp_path):
    write_figure(name, results_folder(tmp_path, datasets=("board",)), [tmp_path / "f.svg"])
    assert "no upsampled images" in texts(tmp_path / "f.svg")


def test_the_zoomed_part_is_where_the_original_varies_most():
    image = np.zeros((3, 32, 32))
    image[:, 9:15:2, 17:23] = 5
    assert most_detail(image) == (8, (8, 16))
    assert most_detail(np.zeros((1, 8, 8)))[0] == 4 and most_detail(np.zeros((1, 6, 4)))[0] == 2
    assert most_detail(np.zeros((1, 28, 28)))[0] == 7 and most_detail(np.zeros((3, 256, 256)))[0] == 64


def test_enlarged_pixels_are_squares():
    np.testing.assert_array_equal(enlarged(np.array([[[1, 2]]]), 2), [[[1, 1, 2, 2], [1, 1, 2, 2]]])
