"""The table of solvers on rows whose best solver is known."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from claim_rows import as_frame, row
from user_code import command

from fmbench.report.claims.student import student
from fmbench.report.solvers.choice import ALONE, LEADS, ONE_SEED, TIE, choose
from fmbench.report.solvers.numbers import INCOMPLETE, solvers
from fmbench.report.solvers.text import latex, markdown
from fmbench.store.records import Row, write_rows

SEEDS = range(8)


def wobble(seed: int, solver: str) -> float:
    """A spread over seeds that is never the same for two solvers."""
    return math.sin(7.3 * seed + 1.9 * sum(map(ord, solver)))


def sweep(
    errors: dict[str, float], method: str = "fm_ot", nfe: float = 8.0, seeds: Any = SEEDS, floor: float = 1e-12
) -> list[Row]:
    """Errors of solvers that differ by a factor, with a spread of two per cent that is not paired."""
    rows = [
        row(method, s, "mse", e * math.exp(0.02 * wobble(s, name)), solver=name, nfe=nfe, stage="sweep")
        for s in seeds
        for name, e in errors.items()
    ]
    return rows + [row(method, s, "reference_mse", floor, solver="midpoint at 1000 NFE", stage="sweep") for s in seeds]


def few(distances: dict[str, float], nfe: float = 8.0, seeds: Any = SEEDS) -> list[Row]:
    """Distances of solvers on models that differ a lot by seed, which pairing removes."""
    return [
        row("fm_ot", s, "frechet", d + 5 * math.cos(s) + 0.02 * wobble(s, name), solver=name, nfe=nfe, features="c")
        for s in seeds
        for name, d in distances.items()
    ]


def found(sweep_rows: list[Row], few_rows: list[Row] | None = None) -> pd.DataFrame:
    return solvers(as_frame(sweep_rows), as_frame(few_rows or few({"euler": 20.0}, nfe=5.0)))


def only(table: pd.DataFrame, **columns: Any) -> pd.Series:
    for name, value in columns.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_the_winner_by_error_is_the_lowest_geometric_mean_and_leads():
    rows = sweep({"euler": 1.0, "ab2": 0.1, "unipc2/log_snr": 0.05})
    best = only(found(rows), by="error", nfe=8)
    assert (best.best, best.runner_up, best.verdict, best.ties) == ("unipc2/log_snr", "ab2", LEADS, "")
    values = [r.value for r in rows if r.solver == "unipc2/log_snr"]
    assert best["mean"] == pytest.approx(np.exp(np.mean(np.log(values)))) and best.lead == pytest.approx(0.5, rel=0.03)
    assert (best.low, best.high) == pytest.approx(np.exp(student(np.log(values).tolist())))
    runner_up = [r.value for r in rows if r.solver == "ab2"]
    ratios = np.log(np.divide(values, runner_up)).tolist()
    assert (best.lead_low, best.lead_high) == pytest.approx(np.exp(student(ratios)))
    assert (best.seeds, best.candidates, best.cells, best.failed) == (8, 3, 24, 0)


def test_the_winner_by_quality_is_paired_by_seed():
    """Models differ by 5 over seeds, solvers by 1: only pairing shows it. At 20 the order is another one."""
    rows = few({"euler": 30.0, "ab2": 21.0, "midpoint": 20.0}) + few({"euler": 19.0, "ab2": 20.0}, nfe=20.0)
    table = found(sweep({"euler": 1.0}), rows)
    best = only(table, by="sample quality", nfe=8)
    assert (best.best, best.runner_up, best.verdict, best.ties, best.metric) == ("midpoint", "ab2", LEADS, "", "Frechet distance")
    assert best.lead == pytest.approx(-1, abs=0.03) and best.lead_high < 0 and best.high - best.low > 5
    assert only(table, by="sample quality", nfe=20).best == "euler"


def test_a_tie_names_every_solver_that_is_not_significantly_worse():
    """Two solvers at the same distance but for noise, one far away."""
    rows = few({"ab2": 20.0, "midpoint": 20.001, "euler": 30.0})
    best = only(found(sweep({"euler": 1.0}), rows), by="sample quality", nfe=8)
    assert (
        best.verdict == TIE and {best.best, best.ties} == {"ab2", "midpoint"} and best.lead_low < best.lead < 0 < best.lead_high
    )


def test_solvers_that_are_one_method_up_to_rounding_tie_with_each_other():
    """Euler and DDIM on the OT path: their difference has a sign at every seed, but is none."""
    rows = few({"euler": 20.0}) + few({"ab2": 25.0})
    rows += [replace(r, solver="ddim", value=r.value * (1 + 1e-7)) for r in rows if r.solver == "euler"]
    best = only(found(sweep({"euler": 1.0}), rows), by="sample quality", nfe=8)
    assert (best.best, best.verdict, best.ties) == ("euler", TIE, "ddim")


def test_errors_near_the_reference_s_own_are_a_tie():
    """Below 100 times the error of the reference no order means anything. The shown number is as measured."""
    rows = sweep({"rk4": 1e-8, "ab2": 9e-8, "euler": 1e-3}, floor=1e-9)
    best = only(found(rows), by="error", nfe=8)
    assert (best.best, best.verdict, best.ties, best.lead) == ("rk4", TIE, "ab2", 1.0)
    assert best["mean"] == pytest.approx(1e-8, rel=0.05)
    assert only(found(sweep({"rk4": 1e-8, "ab2": 9e-8, "euler": 1e-3})), by="error", nfe=8).verdict == LEADS


def test_a_solver_that_failed_at_a_seed_is_not_the_best_and_its_cells_are_counted():
    bad = {"value": None, "status": "diverged", "reason": "x"}
    rows = [replace(r, **bad) if (r.solver, r.seed) == ("ab2", 3) else r for r in sweep({"euler": 1.0, "ab2": 0.1, "heun": 0.5})]
    best = only(found(rows), by="error", nfe=8)
    assert (best.best, best.runner_up, best.verdict) == ("heun", "euler", LEADS)
    assert (best.seeds, best.cells, best.failed, best.failed_solvers) == (8, 24, 1, "ab2")
    assert "1 of 24 cells failed (AB2)" in markdown(found(rows))
    # A training that diverged takes its seed from every solver.
    lost = [replace(r, **(bad | {"status": "skipped"})) if r.seed == 5 else r for r in sweep({"euler": 1.0, "ab2": 0.1})]
    best = only(found(lost), by="error", nfe=8)
    assert (best.best, best.seeds, best.verdict, best.failed) == ("ab2", 7, LEADS, 2)
    none = only(found([replace(r, **bad) for r in rows]), by="error", nfe=8)
    assert (none.best, none.seeds, none.verdict, none.failed) == ("", 0, INCOMPLETE, 24) and math.isnan(none["mean"])
    assert "| FM, OT path | - | - | all failed | - |" in markdown(found([replace(r, **bad) for r in rows]))


def test_one_seed_has_no_interval_and_no_verdict():
    table = found(sweep({"euler": 1.0, "ab2": 0.1}, seeds=[0]), few({"euler": 2.0, "ab2": 1.0}, seeds=[0]))
    for by in ("error", "sample quality"):
        best = only(table, by=by, nfe=8)
        assert (best.best, best.verdict, best.ties, best.seeds) == ("ab2", ONE_SEED, "", 1)
        assert all(math.isnan(best[name]) for name in ("low", "high", "lead_low", "lead_high")) and best.lead < 1
    text = markdown(table)
    assert "One seed gives no interval" in text and "**" not in text and "nan" not in text and "Not beaten" not in text


def test_oracles_are_apart():
    rows = [*sweep({"euler": 1.0, "ab2": 0.1}), *sweep({"euler": 0.1, "ab2": 1.0}, method="oracle_mine")]
    rows.append(row("oracle_mine", 0, "bandwidth", 0.1, stage="train"))
    table = found(rows)
    assert {(r.method, r.about, r.best) for r in table[table.by == "error"].itertuples()} == {
        ("fm_ot", "trained", "ab2"),
        ("oracle_mine", "oracle", "euler"),
    }
    trained, _, oracles = markdown(table).partition("## d, by error (MSE), oracles\n")
    assert "oracle_mine" in oracles and "oracle_mine" not in trained


def test_budgets_of_other_numbers_and_adaptive_solvers_are_not_in_the_table():
    rows = sweep({"euler": 1.0}, nfe=8.0) + sweep({"euler": 0.1}, nfe=12.0) + sweep({"dopri5": 0.01}, nfe=8.0)
    table = found(rows, [*few({"euler": 2.0}), *few({"dopri5": 1.0})])
    assert list(zip(table.by, table.nfe, table.best, table.verdict, strict=True)) == [
        ("sample quality", 8, "euler", ALONE),
        ("error", 8, "euler", ALONE),
    ]


def test_the_set_of_the_best_misses_the_true_one_rarely():
    """Of six equal solvers, one given is outside the set in at most 2.5 % of the runs."""
    rng, missed = np.random.default_rng(0), 0
    for _ in range(2000):
        best = choose(pd.DataFrame(rng.normal(size=(4, 6)), columns=list("abcdef")), logs=True)
        missed += "a" not in (best.solver, *best.ties)
    assert missed <= 50 + 3 * 7  # three standard deviations of the count


def test_which_solver_most_methods_would_take():
    rows = []
    for method, errors in {
        "ddpm": {"ab2": 1.0, "euler": 2.0},
        "fm_ot": {"ab2": 1.0, "euler": 2.0},
        "mine": {"ab2": 2.0, "euler": 1.0},
    }.items():
        rows += sweep(errors, method=method)
    assert "| Not beaten on most methods | - | - | AB2 (2 of 3) | - |" in markdown(found(rows))


def test_text_of_rows_stays_text():
    """A solver of somebody's own may have any name."""
    table = found(sweep({"euler": 1.0, "my_solver.2": 0.1}, method="a|b_<x>"))
    assert "**my_solver.2**" in markdown(table) and r"a\|b\_\<x>" in markdown(table)
    assert r"\textbf{my\_solver.2}" in latex(table) and r"a|b\_$<$x$>$" in latex(table)


def test_the_command_writes_all_kinds(tmp_path: Path):
    for name, rows in (("records", sweep({"euler": 1.0, "ab2": 0.1})), ("few_step", few({"euler": 2.0, "ab2": 1.0}))):
        write_rows(tmp_path / f"{name}.parquet", rows)
    options = ["--records", tmp_path / "records.parquet", "--few-step", tmp_path / "few_step.parquet"]
    said = command("solvers", *options, "--out", tmp_path / "solvers.csv", "--progress", "lines")
    assert said.code == 0 and "2 rows -> " in said.err
    rows = list(csv.DictReader((tmp_path / "solvers.csv").read_text().splitlines()))
    assert [(r["by"], r["best"], r["verdict"]) for r in rows] == [("sample quality", "ab2", LEADS), ("error", "ab2", LEADS)]
    assert (tmp_path / "solvers.tex").read_text().count(r"\toprule") == 2
