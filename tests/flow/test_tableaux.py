"""Runge-Kutta tableaux."""

import dataclasses

import numpy as np
import pytest
from ode_fields import (
    every_tableau,
)

from fmbench.flow.solvers.tableaux import FIXED, MIDPOINT


def test_stages_and_orders_of_the_fixed_solvers():
    stages = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}
    assert {name: t.stages for name, t in FIXED.items()} == stages
    assert {name: t.order for name, t in FIXED.items()} == stages  # below five stages the order equals the number of stages


@every_tableau
def test_order_conditions(tableau):
    """One for each rooted tree up to the order, to 4 (Hairer, Norsett & Wanner, II.2): they hold up to it and not beyond."""
    a = np.array([list(row) + [0.0] * (tableau.stages - len(row)) for row in tableau.a])
    b, c = np.array(tableau.b), np.array(tableau.c)
    conditions = {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ a @ c - 1 / 6],
        4: [b @ c**3 - 1 / 4, (b * c) @ a @ c - 1 / 8, b @ a @ c**2 - 1 / 12, b @ a @ a @ c - 1 / 24],
        5: [b @ c**4 - 1 / 5, b @ a @ a @ a @ c - 1 / 120],
    }
    for order, defects in conditions.items():
        if order <= tableau.order:
            assert np.abs(defects).max() < 1e-14
    if tableau.order < 5:
        assert np.abs(conditions[tableau.order + 1]).max() > 1e-4


def test_ralston_has_the_smallest_bound_on_its_error_among_two_stages():
    """Node c leaves |1/6 - c/4| and 1/6 in the third-order terms; only the first depends on c, and it vanishes at 2/3."""
    defects = {name: FIXED[name].b[1] * FIXED[name].c[1] ** 2 - 1 / 3 for name in ("midpoint", "heun", "ralston")}
    assert defects["ralston"] == pytest.approx(0, abs=1e-15)
    assert min(abs(defects["midpoint"]), abs(defects["heun"])) > 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": (0.5, 0.4)}, "sum to"),
        ({"b_low": (0.5, 0.4)}, "sum to"),
        ({"a": ((), (0.6,))}, "node"),
        ({"a": ((), (0.3, 0.2))}, "entries"),
        ({"c": (0.0,)}, "rows"),
    ],
)
def test_tableaux_check_themselves(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MIDPOINT, **change)
