"""Names in print, colours and markers."""

import pytest
from figure_results import FEATURES

from fmbench.config import names
from fmbench.config.methods import METHODS
from fmbench.report.figures import panels
from fmbench.report.style import LABELS, colours, distance_label, label, markers, solver_label, wrap, wrap_name


def test_every_known_method_has_a_label_and_a_colour_of_its_own():
    methods = [m for m in LABELS if m != "data"]
    assert methods == list(METHODS)
    assert len({label(m) for m in methods}) == len({tuple(c) for c in colours(methods).values()}) == len(methods)
    assert len(set(markers(methods).values())) == len(methods)


def test_every_known_solver_has_a_label_and_a_grid_is_said():
    solvers = [*names.STEP_COSTS, *names.STOCHASTIC_SOLVERS]
    labels = [solver_label(s) for s in solvers]
    assert len(set(labels)) == len(solvers) and labels[:2] == ["Euler", "midpoint"]
    assert (solver_label("rk4/karras"), solver_label("my.solver")) == ("RK4/karras", "my.solver")


def test_a_method_keeps_its_colour_and_marker_whatever_else_is_shown():
    for table in (colours, markers):
        alone = {m: table([m])[m] for m in ("fm_ot", "ddpm", "mine", "yours")}
        for others in (["mine", "ddpm"], ["ddpm", "mine", "scoreflow"]):
            assert {m: table(others)[m] for m in ("mine", "ddpm")} == {m: alone[m] for m in ("mine", "ddpm")}
        assert table(["yours", "mine", "fm_ot"]) == {m: table(["fm_ot", "mine", "yours"])[m] for m in ("yours", "mine", "fm_ot")}


def test_own_methods_differ_from_each_other_and_from_the_known_ones():
    own = ["mine", "yours", "a", "b", "c"]
    looks = panels.looks([*METHODS, *own])
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(METHODS) + 5
    assert len({colours([*METHODS, *own[:3]])[m] for m in [*METHODS, *own[:3]]}) == len(METHODS) + 2
    assert label("mine") == "mine"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [("DDPM", 11, ["DDPM"]), ("FM, OT path", 11, ["FM, OT path"]), ("FM, diffusion path", 11, ["FM,", "diffusion", "path"])],
)
def test_long_names_are_wrapped(text, width, lines):
    assert wrap(text, width).split("\n") == lines


def test_only_inceptions_frechet_distance_is_called_fid():
    assert distance_label("frechet", "pytorch-fid InceptionV3(2048, sha256 6726825d)") == "FID"
    assert distance_label("frechet", FEATURES) == "Frechet distance"
    assert distance_label("energy_distance", "coordinates") == "energy distance"


@pytest.mark.parametrize(("name", "lines"), [("digits", ["digits"]), ("fashion_mnist_from_7x7", ["fashion_mnist_", "from_7x7"])])
def test_a_long_name_of_a_data_set_is_broken_after_underscores(name, lines):
    assert wrap_name(name).split("\n") == lines and "".join(lines) == name
