"""The files of figures: formats, the data beside them, what they need, and the figures of theory."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from figure_results import DRAWN, MAGIC, texts
from pyarrow.parquet import read_table

from fmbench.config import names
from fmbench.errors import ConfigError, DataError
from fmbench.report.figures import write_figure
from fmbench.report.figures.registry import FIGURES


@pytest.mark.parametrize("name", ["fig06", "fig07", "cost"])
def test_a_figure_is_drawn_into_every_format_the_same_each_time(whole, tmp_path, name):
    for turn in ("a", "b"):
        outputs = [tmp_path / turn / f"f.{kind}" for kind in MAGIC]
        write_figure(name, whole, outputs, tmp_path / turn / "f.parquet")
    for kind, magic in MAGIC.items():
        content = (tmp_path / "a" / f"f.{kind}").read_bytes()
        assert content.startswith(magic) and len(content) > 3000
        assert content == (tmp_path / "b" / f"f.{kind}").read_bytes()
    assert (tmp_path / "a" / "f.parquet").read_bytes() == (tmp_path / "b" / "f.parquet").read_bytes()


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_needs_the_files_it_names_and_no_others(whole, tmp_path, name):
    """Shared results may hold only these."""
    for file in names.FIGURES[name]:
        (tmp_path / file).write_bytes((whole / file).read_bytes())
    data = FIGURES[name].select(tmp_path)
    assert len(data) > 0
    for file in names.FIGURES[name]:
        (tmp_path / file).rename(tmp_path / "away")
        with pytest.raises(DataError, match=rf"{re.escape(file)} is missing"):
            FIGURES[name].select(tmp_path)
        (tmp_path / "away").rename(tmp_path / file)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_an_empty_results_folder(tmp_path, name):
    with pytest.raises(DataError, match=r"\.parquet is missing"):
        write_figure(name, tmp_path, [tmp_path / "f.png"])


def test_a_figure_that_is_not_known(tmp_path):
    with pytest.raises(ConfigError, match=f"unknown figure 'fig99'; known: {', '.join(FIGURES)}"):
        write_figure("fig99", tmp_path, [tmp_path / "f.png"])


@pytest.mark.parametrize("name", ["f.jpg", "f", "f.txt"])
def test_a_format_that_cannot_be_drawn(whole, tmp_path, name):
    with pytest.raises(ConfigError, match=rf"cannot draw .*{re.escape(name)}: give a file that ends in \.png, \.svg or \.pdf"):
        write_figure("fig07", whole, [tmp_path / name])
    assert not (tmp_path / name).exists()


def test_figures_are_closed(whole, tmp_path):
    """They must not accumulate in memory."""
    before = plt.get_fignums()
    write_figure("fig11", whole, [tmp_path / "f.png"])
    with pytest.raises(ConfigError):
        write_figure("fig11", whole, [tmp_path / "f.gif"])
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("name", "shown_texts"),
    [
        ("fig02", ["diffusion path:", "conditional score", "OT path:", "t = 0", "t = 0.33", "t = 0.67", "t = 1", "magnitude"]),
        ("fig08", ["diffusion path:", "conditional field", "t = 1"]),
        ("fig03", ["VP diffusion path", "OT path"]),
        ("densities", ["OT path", "VP diffusion path", "cosine VP path", "VE diffusion path"]),
        ("samplers", ["energy distance to the data", "Euler", "DDIM", "Heun with churn", "adaptive, 1e-5", "OT path"]),
        ("noise_levels", ["DDPM", "ScoreFlow", "FM, OT path", "mine", "log SNR", "training times"]),
        (
            "equivalence",
            ["DDIM = Euler on the velocity", "Euler under rescaling", "vp as ve", "DDIM, form u", "order 2"],
        ),
    ],
)
def test_a_figure_of_the_theory_shows_its_parquet_and_names_what_it_shows(theory, tmp_path, name, shown_texts):
    """In every format, and the same each time. fig02 and fig08 are two parts of one table."""
    write_figure(name, theory, [tmp_path / f"f.{kind}" for kind in MAGIC], tmp_path / "f.parquet")
    for kind, magic in MAGIC.items():
        assert (tmp_path / f"f.{kind}").read_bytes().startswith(magic)
    write_figure(name, theory, [tmp_path / "again.svg"])
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "f.svg").read_bytes()
    found = texts(tmp_path / "f.svg")
    for text in shown_texts:
        assert text in found
    assert "Oracle" not in found
    (file,) = names.FIGURES[name]
    whole, shown = read_table(theory / file).to_pandas(), read_table(tmp_path / "f.parquet").to_pandas()
    expected = whole[whole.figure == name].reset_index(drop=True) if "figure" in whole else whole
    pd.testing.assert_frame_equal(shown, expected)
    assert len(shown) > 0
