"""What tests of several files share."""

from pathlib import Path

import pytest
from outsider import command

from fmbench import specs
from fmbench.config import canonical, parse
from fmbench.stages import theory as stage

THEORY_METHODS = ["ddpm", "scoreflow", "fm_ot", {"name": "mine", "path": "cosine_vp", "prediction": "v"}, "oracle_ot"]


@pytest.fixture(scope="session")
def theory(tmp_path_factory) -> Path:
    """A results folder with what the stage ``theory`` writes; it takes seconds, so it is run once for all tests."""
    results = tmp_path_factory.mktemp("theory")
    board = {"data": "checkerboard", "network": {"kind": "mlp"}}
    spec = specs.theory(parse({"datasets": ["board"], "methods": THEORY_METHODS, "settings": {"board": board}}))
    arguments = ["--out", results / "theory", "--summary", results / "equivalence.csv", "--log", results / "theory.log"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SAMPLES", 300)  # the cost of an energy distance is quadratic
        said = command("theory", "--spec", canonical(spec), *arguments, "--progress", "lines")
    assert said.code == 0, said.err
    return results
