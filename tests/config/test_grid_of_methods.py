"""Which methods make a grid of predictions and losses."""

import dataclasses
import itertools
from pathlib import Path

import pytest

import fmbench
from fmbench.config.grid3x3 import KINDS, Cell, cell_of, gridded, grids
from fmbench.config.methods import METHODS, Method, Part
from fmbench.config.reading import load
from fmbench.flow.objectives import build

ROOT = Path(fmbench.__file__).parent.parent
PRESET = [method.resolve() for method in load(str(ROOT / "config.yaml"), str(ROOT / "configs" / "grid3x3.yaml")).methods]


def test_the_preset_has_every_cell_once_under_its_name():
    (grid,) = grids(PRESET)
    assert grid.methods == {Cell(*pair): "_".join(pair) for pair in itertools.product(KINDS, KINDS)}
    assert gridded(PRESET) == [method.name for method in PRESET]


def test_the_three_losses_of_a_prediction_of_the_preset_are_weights_of_one_error():
    """The error of x is (1 - t)^2 times that of the velocity, and (1 - t)^2 / t^2 times that of the noise: x = z + (1 - t) v."""
    import torch

    t = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)
    ratios = {"x": 1 / (1 - t) ** 2, "epsilon": 1 / t**2, "velocity": torch.ones(3, dtype=torch.float64)}
    for method in PRESET:
        objective, cell = build(method), cell_of(method)
        assert cell is not None
        expected = ratios[cell.predicted] / ratios[cell.measured]
        torch.testing.assert_close(objective.weighting(t, objective.path, objective.prediction), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("method", "cell"),
    [
        (METHODS["fm_ot"], Cell("velocity", "velocity")),
        (METHODS["ddpm"], Cell("epsilon", "epsilon")),
        (METHODS["x_velocity"], Cell("x", "velocity")),
        (METHODS["score_matching"], None),
        (METHODS["scoreflow"], None),
        (METHODS["regression"], None),
        (METHODS["oracle_ot"], None),
        (METHODS["edm"], None),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_cell_of_a_method(method, cell):
    assert cell_of(method) == cell


def test_known_methods_alone_make_no_grid():
    """Two of the VP path share its times, but neither a prediction nor a loss."""
    assert grids(METHODS.values()) == []


def test_methods_that_differ_in_more_are_not_of_one_grid():
    def method(name: str, prediction: str, weighting: str, **others: Part) -> Method:
        return Method(
            name, others.get("path", Part("ot")), Part(prediction), Part(weighting), others.get("time", Part("uniform"))
        )

    corner = [method("a", "x", "uniform"), method("b", "x", "velocity"), method("c", "epsilon", "velocity")]
    late = dataclasses.replace(corner[2], time=Part("logit_normal"))
    assert gridded(corner) == ["a", "b", "c"] and gridded([*corner[:2], late]) == []
    again = [dataclasses.replace(m, name=m.name * 2, path=Part("ot", {"sigma_min": 0.1})) for m in corner]
    first, second = grids([*corner, *again])
    assert list(first.methods.values()) == ["a", "b", "c"] and list(second.methods.values()) == ["aa", "bb", "cc"]
    # A plain loss and the weight that changes nothing are one cell; the first counts.
    assert gridded([*corner, method("d", "x", "x")]) == ["a", "b", "c"]
