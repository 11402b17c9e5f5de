"""Verdicts on the numbers of a run: an equal run agrees, a changed method and a broken solver are off."""

import dataclasses
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from ode_fields import COUPLING
from scipy import stats

from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.tableaux import EULER, HEUN, MIDPOINT, RK4, Tableau
from fmbench.report.compare import all_records
from fmbench.report.reproduction import REFERENCE
from fmbench.report.reproduction.summary import with_one_classifier
from fmbench.report.reproduction.verdicts import AGREES, LEVEL, LOGARITHMIC, NOT_COMPARED, OFF, compare_runs
from fmbench.store.records import SCHEMA, Row

SAME_SETTINGS = SimpleNamespace(reason=lambda dataset, method, stage: "")


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    return pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], SCHEMA).to_pandas()


def nll(*values: float | None, method: str = "m", seeds: Iterable[int] = range(100), **columns) -> list[Row]:
    """The NLL at each seed; None is a seed that diverged."""
    failed = {"status": "diverged", "reason": "loss is nan"}
    return [
        Row("d", method, s, "likelihood", "nll", v, "nats", n=9, **({} if v is not None else failed), **columns)
        for s, v in zip(seeds, values, strict=False)
    ]


def verdict(reference: list[Row], run: list[Row]) -> tuple[str, str]:
    """The verdict on the only number, with its reason."""
    (row,) = compare_runs(frame(reference), frame(run), SAME_SETTINGS)[0].to_dict("records")
    return row["verdict"], row["why"]


def test_a_row_has_the_interval_z_and_p_of_a_calculation_by_hand():
    table, _ = compare_runs(frame(nll(1.0, 2.0, 3.0, 6.0)), frame(nll(4.0, 5.0, seeds=(7, 8))), SAME_SETTINGS)
    (row,) = table.to_dict("records")
    spread = np.sqrt(14 / 3)
    error = spread * np.sqrt(1 / 2 + 1 / 4)
    assert (row["reference_mean"], row["reference_seeds"], row["run_mean"], row["run_seeds"]) == (3.0, 4, 4.5, 2)
    assert row["reference_spread"] == pytest.approx(spread) and row["z"] == pytest.approx(1.5 / error)
    # One test: the level is LEVEL itself.
    half = stats.t(3).ppf(1 - LEVEL / 2) * error
    assert (row["low"], row["high"]) == pytest.approx((3 - half, 3 + half)) and row["same_values"] == 0
    assert row["p"] == pytest.approx(2 * stats.t(3).sf(1.5 / error)) and row["verdict"] == AGREES


def test_a_number_is_off_exactly_if_it_is_outside_its_interval():
    rng = np.random.default_rng(0)
    reference, run = [], []
    for i in range(60):
        reference += nll(*rng.normal(0, 1, 8), method=f"m{i}")
        run += nll(*rng.normal(40 * (i % 4 == 0), 1, 2), method=f"m{i}", seeds=(50, 51))
    table, _ = compare_runs(frame(reference), frame(run), SAME_SETTINGS)
    outside = (table.run_mean < table.low) | (table.run_mean > table.high)
    assert ((table.verdict == OFF) == outside).all() and 5 < outside.sum() <= 15


# An equal run


def many(values: NDArray, seeds: Iterable[int]) -> pd.DataFrame:
    """Numbers by row and seeds by column, as records."""
    count = len(values)
    seeds = list(seeds)
    rows = frame(nll(0.0)).iloc[np.zeros(values.size, int)].reset_index(drop=True)
    return rows.assign(
        method=np.repeat([f"m{i}" for i in range(count)], len(seeds)), seed=np.tile(seeds, count), value=values.ravel()
    )


def draws(rng: np.random.Generator, count: int, seeds: int) -> NDArray:
    """Numbers with noise that all share at a seed, noise that groups of ten share, and noise of their own."""
    groups = rng.standard_normal((count // 10, seeds)).repeat(10, axis=0)
    return np.sqrt(0.4) * (rng.standard_normal((1, seeds)) + groups) + np.sqrt(0.2) * rng.standard_normal((count, seeds))


@pytest.mark.parametrize(("correlation", "skew"), [(0.0, False), (0.0, True), (0.7, False)])
def test_the_sentence_on_an_equal_run_is_wrong_in_at_most_a_few_per_cent(correlation, skew):
    """Eight seeds against two, which may be seeds of the reference on another machine, with normal and with skew values.

    A rate of 5 % has a standard error of 2.2 % over 100 runs.
    """
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(100):
        x, y = draws(rng, 100, 8), draws(rng, 100, 2)
        y = correlation * x[:, :2] + np.sqrt(1 - correlation**2) * y
        if skew:
            x, y = np.exp(0.5 * x), np.exp(0.5 * y)
        table, joint = compare_runs(many(x, range(8)), many(y, range(2)), SAME_SETTINGS)
        wrong += bool((table.verdict == OFF).any() or joint <= LEVEL)
    assert wrong / 100 <= 0.05 + 2 * 0.022


def test_a_shift_of_all_numbers_shows_together_and_a_large_one_alone():
    rng, together, alone = np.random.default_rng(4), 0, 0
    for _ in range(20):
        x, y = draws(rng, 100, 8), draws(rng, 100, 2)
        _, joint = compare_runs(many(x, range(8)), many(y + 3, range(8, 10)), SAME_SETTINGS)
        y[:10] += 30
        table, _ = compare_runs(many(x, range(8)), many(y, range(8, 10)), SAME_SETTINGS)
        together += joint <= LEVEL
        alone += bool((table.verdict == OFF)[:10].all())
    assert together >= 18 and alone >= 18


# The shipped reference


def eight_seeds(rng: np.random.Generator, seeds: Iterable[int]) -> pd.DataFrame:
    """Records with the means and relative spreads of the shipped reference, drawn anew for other seeds."""
    shipped = all_records(REFERENCE)
    shipped = shipped[(shipped.method != "") & (shipped.unit != "s")]
    keys = ["dataset", "method", "stage", "metric", "solver", "step", "draws", "n", "budget"]
    fixed = shipped.stage.isin(("sweep", "few_step"))
    shipped = shipped.assign(budget=shipped.nfe.where(fixed))
    first = shipped.drop_duplicates(keys)
    centre = shipped.groupby(keys, dropna=False, sort=False).value.mean().to_numpy()
    spread = shipped.groupby(keys, dropna=False, sort=False).value.std().fillna(0).to_numpy()
    parts = []
    for seed in seeds:
        noise = rng.standard_normal(len(first))
        relative = np.minimum(spread / np.maximum(np.abs(centre), 1e-30), 0.5)
        positive = centre * np.exp(relative * noise - relative**2 / 2)
        value = np.where(first.metric.isin(LOGARITHMIC), positive, centre + spread * noise)
        parts.append(first.assign(seed=seed, value=value))
    return pd.concat(parts, ignore_index=True).drop(columns="budget")


def test_the_shipped_reference_agrees_with_itself():
    records = all_records(REFERENCE)
    table, joint = compare_runs(records, records, SAME_SETTINGS)
    compared = table[table.verdict != NOT_COMPARED]
    assert len(compared) > 1000 and set(compared.verdict) == {AGREES} and joint > 0.3
    assert set(table[table.verdict == NOT_COMPARED].unit) == {"s"}
    part = records[records.seed == records.seed.min()]
    table, _ = compare_runs(records, part, SAME_SETTINGS)
    assert set(table[table.unit != "s"].verdict) == {AGREES}


def test_a_method_that_another_one_replaced_is_off_and_the_others_agree():
    rng = np.random.default_rng(7)
    reference, run = eight_seeds(rng, range(8)), eight_seeds(rng, range(2))
    table, joint = compare_runs(reference, run, SAME_SETTINGS)
    assert set(table.verdict) == {AGREES} and joint > LEVEL
    changed = run[run.method != "fm_ot"]
    changed = pd.concat([changed, run[run.method == "fm_diffusion"].assign(method="fm_ot")])
    table, joint = compare_runs(reference, changed, SAME_SETTINGS)
    off = table[table.verdict == OFF]
    assert set(off.method) == {"fm_ot"} and {"nll", "nfe", "mse"} <= set(off.metric) and joint <= LEVEL


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    records = all_records(REFERENCE)
    return records[records.unit != "s"]


def offs(reference: pd.DataFrame, run: pd.DataFrame) -> pd.DataFrame:
    table, _ = compare_runs(reference, run, SAME_SETTINGS)
    return table[table.verdict == OFF]


def two_seeds(records: pd.DataFrame, first: int, second: int) -> pd.DataFrame:
    """Two seeds of the shipped reference, as a run with seeds of its own."""
    return records[records.seed.isin((first, second))].replace({"seed": {first: 50, second: 51}})


@pytest.mark.parametrize("pair", [(0, 1), (2, 5), (3, 7), (4, 6)])
def test_two_seeds_of_the_shipped_reference_agree_with_the_other_six(shipped, pair):
    """The error of an oracle depends on a few of its samples, so some of its hundreds of numbers may be off."""
    off = offs(shipped[~shipped.seed.isin(pair)], two_seeds(shipped, *pair))
    assert len(off) <= 3 and off.method.str.startswith("oracle").all() and set(off.metric) <= {"mse"}


@pytest.mark.parametrize("factors", [(2, 8), (10, 100), (1, 100)])
def test_a_method_whose_numbers_have_a_wrong_factor_at_one_or_both_of_two_seeds_is_off(shipped, factors):
    run = two_seeds(shipped, 0, 1)
    for seed, factor in zip((50, 51), factors, strict=True):
        run.loc[(run.method == "fm_ot") & (run.seed == seed), "value"] *= factor
    off = offs(shipped, run)
    assert set(off.method) == {"fm_ot"} and {"nll", "nfe", "energy_distance", "frechet"} <= set(off.metric)


def test_a_method_that_another_one_replaced_at_one_of_two_seeds_is_off(shipped):
    run = two_seeds(shipped, 0, 1)
    other = run[(run.method == "fm_diffusion") & (run.seed == 51)].assign(method="fm_ot")
    off = offs(shipped, pd.concat([run[(run.method != "fm_ot") | (run.seed != 51)], other]))
    assert set(off.method) == {"fm_ot"} and len(off) > 3


# A broken solver


def sweep(tableaux: Iterable[Tableau], seeds: Iterable[int]) -> list[Row]:
    """The error of solvers on a linear field from 64 starts of each seed, as rows of the stage sweep."""
    rows = []
    for seed in seeds:
        x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        exact = x @ torch.linalg.matrix_exp(COUPLING).T
        for tableau in tableaux:
            for steps in (4, 8, 16):
                grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
                found = integrate(lambda t, x: x @ COUPLING.T, x, grid, tableau)
                error, nfe = (found - exact).square().mean().item(), float(steps * tableau.stages)
                rows.append(Row("d", "m", seed, "sweep", "mse", error, "squared", solver=tableau.name, nfe=nfe, n=64))
    return rows


def test_a_solver_with_a_wrong_half_step_is_off_and_the_others_agree():
    solvers = [EULER, HEUN, RK4, MIDPOINT]
    broken = dataclasses.replace(MIDPOINT, a=((), (1.0,)), c=(0.0, 1.0))  # a whole step instead of a half
    reference = frame(sweep(solvers, range(8)))
    right, _ = compare_runs(reference, frame(sweep(solvers, (20, 21))), SAME_SETTINGS)
    assert set(right.verdict) == {AGREES}
    table, _ = compare_runs(reference, frame(sweep([*solvers[:3], broken], (20, 21))), SAME_SETTINGS)
    assert set(table[table.verdict == OFF].solver) == {"midpoint"} and set(table[table.solver == "midpoint"].verdict) == {OFF}
    assert (table[table.solver == "midpoint"].z > 10).all() and set(table.scale) == {"logarithmic"}


# Seeds, constants, counts


def test_the_same_values_at_the_same_seeds_agree_at_any_spread():
    assert verdict(nll(1.0, 5.0), nll(1.0)) == (AGREES, "the same values at the same seeds")
    assert verdict(nll(1.0), nll(1.0 + 1e-9)) == (AGREES, "the same values at the same seeds")
    # An extreme seed of a large reference is far from the mean of the others.
    assert verdict(nll(*np.linspace(0, 1e-3, 40), 50.0), nll(50.0, seeds=[40]))[0] == AGREES


def test_a_reference_of_one_seed_has_no_spread_to_compare_with():
    assert verdict(nll(1.0), nll(2.0)) == (NOT_COMPARED, "the reference has one seed, and so no spread")


def test_a_number_that_no_seed_changes_is_compared_with_a_tolerance():
    assert verdict(nll(2.25, 2.25, 2.25), nll(2.25 * (1 + 5e-5), 2.25))[0] == AGREES
    assert verdict(nll(2.25, 2.25, 2.25), nll(2.251, 2.251))[0] == OFF


def test_equal_counts_may_be_chance():
    def count(*values, metric="nfe_shared", n=256):
        return [Row("d", "m", s, "sample", metric, v, "evaluations", n=n) for s, v in enumerate(values)]

    assert verdict(count(62.0, 62.0), count(62.0, 68.0))[0] == AGREES
    assert verdict(count(*[62.0] * 8), count(62.0, 68.0))[0] == AGREES
    assert verdict(count(*[62.0] * 8), count(104.0, 104.0))[0] == OFF
    # A mean over many samples is finer than a step.
    assert verdict(count(*[62.0] * 8, metric="nfe", n=4000), count(63.0, 63.0, metric="nfe", n=4000))[0] == OFF


def test_a_seed_far_from_the_others_is_off_and_widens_the_interval_to_twice_the_width_at_most():
    values = np.random.default_rng(0).normal(0, 1, 8)
    for far in (30.0, 3000.0):
        assert verdict(nll(*values), nll(0.0, far, seeds=(8, 9)))[0] == OFF
    widths = []
    for run in ((0.0, 0.1), (0.0, 30.0)):
        table, _ = compare_runs(frame(nll(*values)), frame(nll(*run, seeds=(8, 9))), SAME_SETTINGS)
        widths.append(float(table.high[0] - table.low[0]))
    assert widths[1] == pytest.approx(2 * widths[0])


def test_one_sample_that_makes_most_of_a_mean_of_squares_is_not_a_difference_of_the_means():
    def errors(*values, seeds):
        return [Row("d", "m", s, "sweep", "mse", v, "squared", nfe=8, n=64) for s, v in zip(seeds, values, strict=True)]

    values = np.exp(np.random.default_rng(0).normal(0, 0.1, 8))
    assert verdict(errors(*values, seeds=range(8)), errors(1.0, 50.0, seeds=(8, 9)))[0] == AGREES
    assert verdict(errors(*values, seeds=range(8)), errors(49.0, 50.0, seeds=(8, 9)))[0] == OFF


# Failures and missing numbers


def test_a_run_that_diverged_where_the_reference_did_not_is_off_with_the_reason():
    assert verdict(nll(1.0, 2.0, 3.0), nll(2.0, None)) == (OFF, "no value at 1 of 2 seeds: loss is nan")
    assert verdict(nll(1.0, 2.0, 3.0), nll(None, None)) == (OFF, "no value at 2 of 2 seeds: loss is nan")
    assert verdict(nll(None, None), nll(2.0)) == (OFF, "the run has a value, the reference has none: loss is nan")


def test_seeds_that_diverged_in_both_are_left_out():
    assert verdict(nll(None, None), nll(None)) == (AGREES, "no value in both: loss is nan")
    assert verdict(nll(1.0, 2.0, 3.0, None), nll(2.0, None, seeds=(5, 6)))[0] == AGREES
    assert verdict(nll(1.0, 2.0, 3.0, None), nll(99.0, None, seeds=(5, 6)))[0] == OFF


def test_a_number_that_the_run_lacks_is_off_and_one_that_the_reference_lacks_is_not_compared():
    others = [dataclasses.replace(row, metric="nll_own") for row in nll(1.0, 2.0, 3.0)]
    table, _ = compare_runs(frame(nll(1.0, 2.0, 3.0) + others), frame(nll(2.0)), SAME_SETTINGS)
    assert dict(zip(table.metric, table.why, strict=True))["nll_own"] == "the run has no such number"
    assert dict(zip(table.metric, table.verdict, strict=True)) == {"nll": AGREES, "nll_own": OFF}
    table, _ = compare_runs(frame(nll(1.0, 2.0, 3.0)), frame(nll(2.0) + others[:1]), SAME_SETTINGS)
    assert dict(zip(table.metric, table.verdict, strict=True)) == {"nll": AGREES, "nll_own": NOT_COMPARED}
    # A job that the run has not done is not missing.
    later = [dataclasses.replace(row, stage="few_step") for row in nll(1.0, 2.0)]
    assert set(compare_runs(frame(nll(1.0, 2.0, 3.0) + later), frame(nll(2.0)), SAME_SETTINGS)[0].stage) == {"likelihood"}


def test_times_and_other_feature_extractors_are_not_compared():
    def with_features(name, *values):
        return [dataclasses.replace(row, features=f"classifier(d, {name})") for row in nll(*values)]

    seconds = [Row("d", "m", s, "sweep", "seconds", 1.0 + s, "s") for s in range(3)]
    assert verdict(seconds, seconds) == (NOT_COMPARED, "a time depends on the machine")
    kind, why = verdict(with_features("aa", 1.0, 2.0, 3.0), with_features("bb", 2.0))
    assert kind == NOT_COMPARED and "classifier(d, aa) in the reference, classifier(d, bb) here" in why
    assert verdict(with_features("aa", 1.0, 2.0, 3.0), with_features("aa", 2.0))[0] == AGREES


@pytest.mark.parametrize(("factor", "expected"), [(1 + 2e-5, AGREES), (1 + 5e-4, NOT_COMPARED)])
def test_a_classifier_that_measures_the_same_of_the_data_is_the_references(factor, expected):
    """Another processor trains it to other weights, by rounding, so its hash is another one."""

    def records(hash_: str, factor: float, seeds: Iterable[int]) -> pd.DataFrame:
        name = f"classifier(d, 64 features, {hash_})"
        floors = {"frechet_floor": 4.2, "kid_floor": -28.5, "recall_floor": 0.9, "classifier_accuracy": 0.98}
        rows = [Row("d", "", 0, "features", m, factor * v, "", features=name, n=50) for m, v in floors.items()]
        return frame([*rows, *(dataclasses.replace(row, features=name) for row in nll(1.0, 2.0, 3.0, seeds=seeds))])

    reference, run = records("aaaa", 1.0, range(3)), records("bbbb", factor, range(5, 8))
    table, _ = compare_runs(reference, with_one_classifier(reference, run), SAME_SETTINGS)
    assert set(table.verdict) == {expected}
