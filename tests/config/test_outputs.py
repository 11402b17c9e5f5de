"""Which tables and figures a run has."""

from pathlib import Path

import pytest

from fmbench.config.names import FIGURES
from fmbench.config.outputs import OTHER_TABLES, absent, drawn, other_tables
from fmbench.config.reading import load

ROOT = Path(__file__).parent.parent.parent
WITHOUT = {
    "config.yaml": {"fig14", "fig15", "grid3x3", "pareto"},
    "configs/superres_digits.yaml": {"grid3x3"},
    "configs/grid3x3.yaml": {"fig14", "fig15"},
    "configs/zoo.yaml": {"fig14", "fig15", "grid3x3"},
}


@pytest.mark.parametrize("preset", WITHOUT)
def test_a_run_leaves_out_what_its_config_is_not_about(preset):
    config = load(str(ROOT / "config.yaml"), *([] if preset == "config.yaml" else [str(ROOT / preset)]))
    assert absent(config) == WITHOUT[preset]
    assert drawn(config) == [figure for figure in FIGURES if figure not in WITHOUT[preset]]
    assert other_tables(config) == [table for table in OTHER_TABLES if table not in WITHOUT[preset]]


def test_points_have_no_table_of_dequantisation():
    config = load(str(ROOT / "config.yaml"))
    points = config.model_copy(update={"datasets": ["checkerboard"]})
    assert "table4" in absent(points) and "table4" not in absent(config)
