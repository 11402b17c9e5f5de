"""The animation from noise to data: a frame for each saved time, in a loop, the same from the same parquet."""

import itertools

import numpy as np
import pytest
from figure_results import TIMES, results_folder
from PIL import Image

from fmbench.errors import DataError
from fmbench.report.figures.animation import FRAME, HOLD, METHODS, NAME, write_animation
from fmbench.report.figures.preview_rows import preview_rows

REFERENCE = "results/reference/default"


def test_a_frame_for_each_saved_time_that_stays_at_the_end(whole, tmp_path):
    for name in ("a.gif", "b.gif"):
        write_animation(whole, tmp_path / name)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with Image.open(tmp_path / "a.gif") as picture:
        durations, frames = [], []
        for k in range(picture.n_frames):
            picture.seek(k)
            durations.append(picture.info["duration"])
            frames.append(np.asarray(picture.convert("RGB")).astype(int))
        assert durations == [FRAME] * (len(TIMES) - 1) + [HOLD] and picture.info["loop"] == 0
    assert all((one != other).any() for one, other in itertools.pairwise(frames))


def test_both_methods_start_from_the_same_points(pytestconfig):
    """The README says so of its animation."""
    folder = pytestconfig.rootpath / REFERENCE
    states = preview_rows(folder, "trajectory.parquet", lambda shape: len(shape) == 1)
    first = [np.stack(states[(states.method == m) & (states.t == 0)]["values"].to_list()) for m in METHODS]
    np.testing.assert_array_equal(*first)
    assert (folder / NAME).stat().st_size < 1_500_000


def test_results_without_one_of_the_methods_have_no_animation(tmp_path):
    folder = results_folder(tmp_path / "results", methods=("fm_ot",))
    with pytest.raises(DataError, match="needs states of points of FM, OT path and DDPM"):
        write_animation(folder, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()
