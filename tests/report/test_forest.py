"""The forest plot of the claims: what it shows, and that its texts and marks can be read."""

import matplotlib.pyplot as plt
import pytest
from contrast import contrast
from figure_results import texts
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text
from pyarrow.parquet import read_table

from fmbench.report.claims import CLAIMS
from fmbench.report.claims.scale import COLOURS, on_scale
from fmbench.report.claims.verdicts import VERDICTS
from fmbench.report.figures import write_figure
from fmbench.report.figures.forest import MARKERS, forest, forest_data
from fmbench.report.style import SMALL


def test_it_shows_every_claim_data_set_part_and_verdict(whole, tmp_path):
    write_figure("claims", whole, [tmp_path / "f.svg"], tmp_path / "f.parquet")
    found = " ".join(texts(tmp_path / "f.svg").split())
    data = read_table(tmp_path / "f.parquet").to_pandas()
    for claim in CLAIMS:
        assert f"{claim.number}. {claim.title.split()[0]}" in found
    for text in [*on_scale(data).part, *data.verdict, "board", "tall", "against the claim", "as claimed"]:
        assert text in found
    assert len(MARKERS) == len(set(MARKERS.values())) == len(VERDICTS)  # a verdict never differs by colour alone


@pytest.fixture
def drawn(whole):
    figure = forest(forest_data(whole))
    yield figure
    plt.close(figure)


def test_every_line_with_a_threshold_is_drawn_once_in_the_colour_of_its_verdict(whole, drawn):
    lines = on_scale(forest_data(whole))
    marks = [line for axis in drawn.axes[1:] for line in axis.get_lines() if line.get_marker() not in ("None", "", None)]
    assert sorted(to_hex(mark.get_color()) for mark in marks) == sorted(lines.verdict.map(COLOURS))
    assert sorted(round(float(mark.get_xdata()[0]), 9) for mark in marks) == sorted(lines["at"].round(9))


def test_texts_and_marks_can_be_read_on_white(drawn):
    """Contrast AA: 4.5 to 1 for text, 3 to 1 for marks and intervals."""
    shown = [text for text in drawn.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert len(shown) > 20 and min(contrast(text.get_color()) for text in shown) >= 4.5
    assert min(text.get_fontsize() for text in shown) >= SMALL
    separators = {to_hex("0.8")}
    lines = [line for line in drawn.findobj(Line2D) if line.get_visible() and to_hex(line.get_color()) not in separators]
    assert min(contrast(line.get_color()) for line in lines) >= 3
