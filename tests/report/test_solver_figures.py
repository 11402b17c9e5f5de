"""Figures with many solvers: families, looks, the best of a family, and which solver at which budget."""

import itertools
import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from claim_rows import row
from figure_results import drawn
from matplotlib.colors import to_hex

from fmbench.config import names
from fmbench.report.figures.fig07_error import fig07
from fmbench.report.figures.solver_budget import FULL, PALE, solver_budget, solver_budget_data
from fmbench.report.figures.solver_families import (
    COLOURS,
    CONTEXT,
    MEMBERS,
    MOST,
    MULTISTEP,
    OWN,
    by_family,
    family,
    foremost,
    solver_looks,
    solver_styles,
)
from fmbench.store.records import write_rows


def test_every_built_in_solver_is_in_one_family():
    members = [solver for family in MEMBERS.values() for solver in family]
    assert sorted(members) == sorted(names.STEP_COSTS)
    assert family("unipc2/log_snr/full_order_final") == MULTISTEP and family("mine") == family("mine/karras") == OWN
    found = by_family(["mine", "unipc2", "rk4", "dpmpp_2m/log_snr", "euler", "rk4"])
    assert list(found.values()) == [["euler", "rk4"], ["dpmpp_2m/log_snr", "unipc2"], ["mine"]]


def test_solvers_differ_in_print_without_colours():
    """By dashes between families, by markers within one. The colours of families differ, too."""
    looks = solver_looks(list(names.STEP_COSTS))
    shapes = [(str(look["linestyle"]), look["marker"]) for look in looks.values()]
    assert len(set(shapes)) == len(shapes)
    dashes = {name: {str(looks[s]["linestyle"]) for s in members} for name, members in MEMBERS.items() if members}
    assert all(len(found) == 1 for found in dashes.values()) and len(set.union(*dashes.values())) == len(dashes)
    assert len(set(COLOURS.values())) == len(MEMBERS)


def test_of_too_many_solvers_the_best_ones_keep_a_look_and_the_others_are_grey():
    solvers = [f"s{i}" for i in range(MOST + 6)]
    rows = [
        {"dataset": "d", "method": m, "solver": s, "nfe": nfe, "mse": 1.0 if (s, nfe) != (f"s{MOST + 5}", 8) else 0.1}
        for m, s, nfe in itertools.product("ab", solvers, (4, 8))
    ]
    frame = pd.DataFrame(rows)
    assert foremost(frame, "mse")[:2] == ["s0", f"s{MOST + 5}"] and len(foremost(frame, "mse")) == MOST
    styles = solver_styles(frame, "mse")
    assert [s for s, look in styles.items() if look is CONTEXT] == [f"s{i}" for i in range(MOST - 1, MOST + 5)]
    few = frame[frame.solver.isin(solvers[:MOST])]
    assert foremost(few, "mse") == solvers[:MOST] and CONTEXT not in solver_styles(few, "mse").values()


def test_fig07_shows_the_papers_solvers_and_the_best_of_each_other_family():
    """Of AB2 and AB3 the one with the lower error at each NFE, whichever that is."""
    errors = {"euler": (9.0, 8.0), "ab2": (2.0, 0.9), "ab3": (3.0, 0.1), "unipc2": (5.0, 4.0)}
    rows = [
        {"dataset": "d", "method": "fm_ot", "seed": s, "metric": "mse", "solver": solver, "nfe": nfe, "mse": error * 10.0**s}
        for s, (solver, both) in itertools.product((0, 2), errors.items())
        for nfe, error in zip((4.0, 8.0), both, strict=True)
    ]
    figure = fig07(pd.DataFrame(rows).assign(status="ok", n=9, reference="r", nll=1.0, nll_unit="nats"))
    shown = {axis.get_title(): axis.get_lines()[0].get_ydata() for axis in figure.axes}
    assert list(shown) == ["Euler", "best of AB2, AB3", "UniPC 2"]
    np.testing.assert_allclose(shown["best of AB2, AB3"], [20.0, 1.0])
    plt.close(figure)


def budget_rows(lead: float) -> dict[str, Any]:
    """Eight seeds: by error AB2 leads, by quality it is ``lead`` better than Euler's method; an oracle with one solver."""
    found: dict[str, Any] = {"records": [row("oracle_ot", 0, "bandwidth", 0.1, stage="train")], "few_step": []}
    for seed in range(8):
        noise = 0.01 * math.sin(7.3 * seed)
        for solver, error in (("ab2", 0.1), ("euler", 1.0)):
            found["records"].append(row("fm_ot", seed, "mse", error * math.exp(noise), solver=solver, nfe=8.0, stage="sweep"))
            distance = 10 - (lead + noise if solver == "ab2" else 0)
            found["few_step"].append(row("fm_ot", seed, "frechet", distance, solver=solver, nfe=8.0, features="c"))
        columns: dict[str, Any] = {"solver": "midpoint/karras", "nfe": 40.0, "stage": "sweep"}
        found["records"].append(row("oracle_ot", seed, "mse", 0.5, **columns))
    return found


@pytest.fixture
def budgets(tmp_path):
    for name, rows in budget_rows(0.02).items():
        write_rows(tmp_path / f"{name}.parquet", rows)
    return tmp_path


def test_which_solver_at_which_budget(budgets, tmp_path):
    """A cell has the name of the best solver in the colour of its family, full where it leads."""
    text, data = drawn("solver_budget", budgets, tmp_path)
    assert data[["method", "about", "by", "nfe", "best"]].to_numpy().tolist() == [
        ["fm_ot", "trained", "sample quality", 8, "ab2"],
        ["fm_ot", "trained", "error", 8, "ab2"],
        ["oracle_ot", "oracle", "error", 40, "midpoint/karras"],
    ]
    for part in (
        "d, by sample quality (Frechet distance)",
        "d, by error (MSE)",
        "AB2",
        "karras",
        "FM, OT path",
        "Oracle, OT path",
    ):
        assert part in text
    figure = solver_budget(solver_budget_data(budgets))
    quality, error = (axis.patches for axis in figure.axes)
    assert (len(quality), len(error)) == (1, 2)
    leads, oracle = error
    assert to_hex(leads.get_facecolor()).upper() == COLOURS[family("ab2")] and leads.get_facecolor()[3] == FULL
    assert oracle.get_facecolor()[3] == PALE and oracle.get_y() - leads.get_y() > 1  # with a gap before the oracles
    assert (leads.get_x() // 1, oracle.get_x() // 1) == (2, 6)
    plt.close(figure)


def test_a_tie_is_pale_and_says_with_how_many(budgets):
    for name, rows in budget_rows(0.0001).items():
        write_rows(budgets / f"{name}.parquet", rows)
    data = solver_budget_data(budgets)
    assert data[data.by == "sample quality"].tied.tolist() == [1]
    figure = solver_budget(data)
    axis = figure.axes[0]
    assert axis.patches[0].get_facecolor()[3] == PALE and "+1" in [text.get_text() for text in axis.texts]
    plt.close(figure)
