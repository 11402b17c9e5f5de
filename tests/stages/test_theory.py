"""The stage ``theory``: the tables that it writes, and their numbers by hand."""

import csv
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pyarrow.parquet import read_table
from user_code import command

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.stages import theory as stage
from fmbench.stages.theory.problems import PATHS
from fmbench.store.tables import THEORY

SLOW = ("equivalence_rows", "density_rows", "sampler_rows")
"""The functions of the stage that take seconds."""


def frame(results: Path, name: str) -> pd.DataFrame:
    return read_table(results / "theory" / f"{name}.parquet").to_pandas()


def summary(results: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((results / "equivalence.csv").read_text(encoding="utf-8").splitlines(), strict=True))


def test_every_table_has_its_schema_and_rows(theory):
    assert {path.stem for path in (theory / "theory").iterdir()} == set(THEORY)
    for name, schema in THEORY.items():
        table = read_table(theory / "theory" / f"{name}.parquet")
        assert table.schema.equals(schema) and table.num_rows > 0


def test_the_log_counts_the_rows_and_the_equivalences_that_are_not_as_expected(theory):
    log = (theory / "theory.log").read_text()
    for name in THEORY:
        assert f"{name} {len(frame(theory, name))}" in log
    assert "; 0 equivalences not as expected" in log


# Equivalences


def test_every_equivalence_is_as_expected(theory):
    """Relative to the samples, the largest difference is rounding where two samplers are the same, and not elsewhere."""
    rows = frame(theory, "equivalence")
    claims = rows[rows.check != "error"]
    assert (claims.expected == claims.found).all()
    relative = claims.max_difference / claims.scale
    assert (relative[claims.expected == "rounding"] < 1e-9).all() and (relative[claims.expected == "different"] > 1e-6).all()
    assert set(claims.expected) == {"rounding", "different"}
    assert (rows[rows.check == "error"][["expected", "found"]] == "").all(axis=None)


def test_every_schedule_and_prediction_is_compared(theory):
    """DDIM is Euler on the velocity on the straight path and the OT path, and only there."""
    rows = frame(theory, "equivalence")
    assert Counter(rows.check) == {
        "DDIM = Euler on the velocity": 5 * 5,
        "forms of DDIM agree": 5 * 5 * 3,
        "DDIM under rescaling": 6 * 2,
        "Euler under rescaling": 6 * 2,
        "error": 3 * 5 * 2 * 4,
        "second order against form u": 3 * 3,
    }
    euler = rows[rows.check == "DDIM = Euler on the velocity"]
    assert set(euler[euler.expected == "rounding"].schedule) == {"straight", "ot"}
    assert set(euler[euler.expected == "different"].schedule) == {"vp", "cosine_vp", "ve"}
    assert set(rows[rows.check == "DDIM under rescaling"].expected) == {"rounding"}
    assert set(rows[rows.check == "Euler under rescaling"].expected) == {"different"}


def test_errors_fall_with_the_order_of_each_form(theory):
    """Twice the steps: half the error at order 1, a quarter at order 2, once steps are short."""
    errors = frame(theory, "equivalence").query("check == 'error'")
    for (_schedule, _form, order), rows in errors.groupby(["schedule", "form", "order"]):
        found = rows.set_index("steps").max_difference
        assert list(found.index) == [5, 10, 20, 40, 80]
        assert math.log2(found[40] / found[80]) == pytest.approx(order, abs=0.35)


def test_the_summary_is_the_same_table_as_csv(theory):
    text = (theory / "equivalence.csv").read_text(encoding="utf-8")
    lines = [line.split(",") for line in text.splitlines()]
    assert lines[0] == THEORY["equivalence"].names and {len(line) for line in lines} == {10}  # no comma within a value
    assert text.endswith("\n") and "\r" not in text and '"' not in text
    rows = frame(theory, "equivalence").to_dict("records")
    for found, row in zip(summary(theory), rows, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert float(found[name]) == pytest.approx(value, rel=1e-5)
            else:
                assert found[name] == str(value)
    assert all(row["expected"] == row["found"] for row in summary(theory))


# Noise levels


def test_every_trained_method_has_noise_levels(theory):
    rows = frame(theory, "noise_levels")
    assert list(rows.method.unique()) == ["ddpm", "scoreflow", "fm_ot", "mine"]  # an oracle has no loss
    assert rows.notna().all(axis=None)
    for method, mine in rows.groupby("method"):
        # The density is one over log SNR, as far as the interval goes.
        order = np.argsort(mine.log_snr.to_numpy())
        mass = np.trapezoid(mine.density.to_numpy()[order], mine.log_snr.to_numpy()[order])
        assert mass == pytest.approx(1, abs=0.05), method
        assert (np.diff(mine.log_snr.to_numpy()[np.argsort(mine.t.to_numpy())]) > 0).all()


def test_the_noise_levels_of_the_ot_path_are_those_by_hand(theory):
    mine = frame(theory, "noise_levels").query("method == 'fm_ot'")
    a, s = mine.t, 1 - mine.t  # but for sigma_min
    inner = (mine.t > 0.1) & (mine.t < 0.9)
    np.testing.assert_allclose(mine.log_snr[inner], (2 * np.log(a / s))[inner], rtol=2e-2, atol=1e-2)
    # t is uniform, so the density over log SNR is dt / d log SNR = t (1 - t) / 2.
    np.testing.assert_allclose(mine.density[inner], (a * s / 2)[inner], rtol=2e-2)


def test_a_config_of_oracles_has_no_noise_levels(tmp_path, monkeypatch):
    for name in SLOW:
        monkeypatch.setattr(stage, name, list)
    board = {"data": "checkerboard", "network": {"kind": "mlp"}}
    spec = specs.theory(parse({"datasets": ["board"], "methods": ["oracle_vp"], "settings": {"board": board}}))
    arguments = ["--spec", canonical(spec), "--out", tmp_path / "theory", "--summary", tmp_path / "equivalence.csv"]
    assert command("theory", *arguments).code == 0
    assert frame(tmp_path, "noise_levels").empty
    command("figure", "noise_levels", "--results", tmp_path, "--out", tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


# Fields, trajectories, densities


def arrows(results: Path, figure: str, panel: str) -> pd.DataFrame:
    rows = frame(results, "fields")
    return rows[(rows.figure == figure) & (rows.panel == panel)]


def test_the_conditional_field_of_the_ot_path_keeps_its_direction(theory):
    """u = (x1 - (1 - sigma_min) x) / (1 - (1 - sigma_min) t) points to the data point at every time, and grows (Fig. 2)."""
    ot = arrows(theory, "fig02", "OT path: conditional field")
    pd.testing.assert_frame_equal(
        ot.drop(columns="figure").reset_index(drop=True),
        arrows(theory, "fig08", "OT path: conditional field").drop(columns="figure").reset_index(drop=True),
    )
    sigma_min = PATHS["ot"].coefficients(torch.tensor(1.0)).s.item()
    assert sigma_min == pytest.approx(1e-4)
    for t, here in ot.groupby("t"):
        for arrow, x in (("u", "x"), ("v", "y")):
            expected = (0.75 - (1 - sigma_min) * here[x]) / (1 - (1 - sigma_min) * float(t))
            np.testing.assert_allclose(here[arrow], expected, rtol=1e-6, atol=1e-9)


def alpha(t: float) -> float:
    r = 1 - t
    return math.exp(-(0.1 * r + r**2 * 19.9 / 2) / 2)


def test_the_conditional_score_and_field_of_the_diffusion_path_are_those_of_the_paper(theory):
    """-(x - a x1) / s^2, and eq. 19, at the first three times."""
    end = 1 - 1e-5
    for fraction in (0, 1 / 3, 2 / 3):
        t = fraction * end
        a = alpha(t)
        rate = 0.1 + (1 - t) * 19.9
        score = arrows(theory, "fig02", "diffusion path: conditional score").query("t == @fraction")
        field = arrows(theory, "fig08", "diffusion path: conditional field").query("t == @fraction")
        assert len(score) == len(field) == 15**2
        for arrow, x in (("u", "x"), ("v", "y")):
            np.testing.assert_allclose(score[arrow], -(score[x] - a * 0.75) / (1 - a**2), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(field[arrow], -rate / 2 * (a**2 * field[x] - a * 0.75) / (1 - a**2), rtol=1e-9, atol=1e-9)


def test_trajectories_end_at_the_data_and_are_straight_on_the_ot_path(theory):
    rows = frame(theory, "trajectories")
    assert Counter(rows.path) == {"vp": 18 * 61, "ot": 18 * 61}
    for (path, _), track in rows.groupby(["path", "particle"]):
        xy = track.sort_values("t")[["x", "y"]].to_numpy()
        steps = np.diff(xy, axis=0)
        if path == "ot":  # constant velocity
            np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-12)
        else:
            assert np.linalg.norm(steps, axis=1).max() > 3 * np.linalg.norm(steps, axis=1).min()
    ends = rows.sort_values("t").groupby(["path", "particle"])[["x", "y"]].last().round(1)
    points = {(1.5, 1.0), (-1.2, 1.4), (0.4, -1.7)}
    assert set(map(tuple, ends.to_numpy().tolist())) == points
    starts = rows[rows.t == 0].pivot_table(index="particle", columns="path", values=["x", "y"])
    assert np.abs(starts["x"]["vp"] - starts["x"]["ot"]).max() < 0.02  # the same noise, but for alpha(1)


def test_densities_are_densities_and_the_flow_keeps_its_share_of_them(theory):
    rows = frame(theory, "densities")
    assert set(rows.path) == {"ot", "vp", "cosine_vp", "ve"}
    shares = np.linspace(0.04, 0.96, 12)
    for _, here in rows.groupby("path"):
        for t in (here.t.min(), np.quantile(here.t.unique(), 0.5, method="nearest"), here.t.max()):
            now = here[here.t == t]
            grid = now[now.particle < 0].sort_values("x")
            density, x = grid.density.to_numpy(), grid.x.to_numpy()
            assert np.trapezoid(density, x) == pytest.approx(1, abs=0.02)
            # A trajectory that starts at a quantile stays at it: no probability crosses it (eq. 26).
            below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
            at = np.interp(now[now.particle >= 0].sort_values("particle").x, x, below)
            np.testing.assert_allclose(at, shares, atol=0.02)


def test_samplers_come_nearer_to_the_data_with_more_evaluations(theory):
    """Their energy distance falls to that of as many exact draws."""
    rows = frame(theory, "samplers")
    assert set(rows.path) == {"ot", "vp"} and set(rows.kind) == {"ode", "sde", "adaptive"}
    assert rows.notna().all(axis=None) and (rows.n == 300).all() and rows.floor.nunique() == 1
    for (_path, sampler), mine in rows[rows.kind != "adaptive"].groupby(["path", "sampler"]):
        mine = mine.sort_values("nfe")
        distance = mine.energy_distance.abs().to_numpy()
        assert mine.nfe.is_monotonic_increasing and mine.nfe.max() <= 96
        assert distance[0] > distance[-1] and distance[-1] < 20 * mine.floor.iloc[0], sampler
    for _path, mine in rows.groupby("path"):
        nfe = mine[mine.sampler.isin(["Euler", "DDIM"])]
        assert sorted(nfe.nfe) == sorted([6.0, 12.0, 24.0, 48.0, 96.0] * 2)
        adaptive = mine[mine.kind == "adaptive"]
        assert adaptive.sampler.is_unique and (adaptive.energy_distance.abs() < 3 * adaptive.floor).all()
        assert {"dopri5, one step size", "dopri5, a step size per sample"} < set(adaptive.sampler)


def test_running_the_stage_again_writes_the_same_bytes(theory, tmp_path, monkeypatch):
    """Checked for the quick tables; the others are made in the same way."""
    for name in SLOW:
        monkeypatch.setattr(stage, name, list)
    arguments = ["--spec", '{"stage":"theory","methods":[]}', "--out", tmp_path, "--summary", tmp_path / "equivalence.csv"]
    assert command("theory", *arguments).code == 0
    for name in ("fields", "trajectories"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (theory / "theory" / f"{name}.parquet").read_bytes()
