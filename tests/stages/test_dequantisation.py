"""The stage `dequantisation`: NLL against K by both estimators, by hand, and the cache."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_benchmark import GOOD, SEED, Bench, by_metric, evaluated

from fmbench.flow.likelihood import LogLikelihood, log_likelihood
from fmbench.store.files import read_json
from fmbench.store.records import read_rows
from fmbench.system.rng import indexed_rademacher, indexed_uniform


def drawn_by_hand(bench: Bench, method: str, draws: int, probes: int) -> torch.Tensor:
    """log p of each draw, probe and image, shape (draws, probes, 5), in batches of 3 and 2."""
    data, model = bench.data("tall"), bench.model("tall", method)
    found = []
    for k in range(draws):
        pieces = []
        for indices in (range(3), range(3, 5)):
            u = indexed_uniform(SEED, "dequantise" if k == 0 else f"dequantise/{k}", indices, data.shape)
            z = torch.stack([indexed_rademacher(SEED, f"draws/{k}/probe/{m}", indices, data.shape) for m in range(probes)])
            x1 = (torch.from_numpy(np.array(data.test[indices.start : indices.stop])) + u) * 2 / 5 - 1
            o = model.objective
            solved = log_likelihood(model.field(), x1, o.t_min, o.t_max, probes=z, rtol=1e-2, atol=1e-2)
            pieces.append(solved.by_probe)
        found.append(torch.cat(pieces, 1))
    return torch.stack(found)


def in_bits(log_p: torch.Tensor) -> torch.Tensor:
    """Of log p of K draws, shape (K, 5): eq. 47, then 72 pixels of five levels."""
    return -torch.log(log_p.exp().mean(0)) / (72 * math.log(2)) + math.log2(5 / 2)


@pytest.mark.parametrize("method", GOOD)
def test_draws_have_rows_for_every_k_and_estimator(bench, method):
    rows = bench.rows("dequantisation", "tall", method)
    metrics = ["nll_averaged", "nll_averaged_stderr", "nll_paper", "nll_paper_stderr"]
    metrics += ["nll_probe_bias", "nll_probe_std", "nll_probe_variance"]
    assert sorted((r["metric"], r["draws"]) for r in rows) == [(metric, k) for metric in metrics for k in (1, 3)]
    for row in rows:
        assert row["probes"] == (1 if "paper" in row["metric"] else 2)
        unit = "nats^2" if row["metric"] == "nll_probe_variance" else "bits/dim"
        assert (row["status"], row["unit"], row["n"], row["batch"]) == ("ok", unit, 5, 3)
        assert (row["stage"], row["solver"], row["rtol"]) == ("dequantisation", "dopri5_shared", 1e-2)
        assert row["nfe"] >= 8


@pytest.mark.parametrize("method", GOOD)
def test_both_estimators_equal_those_by_hand(bench, method):
    """log (1/K) sum exp(log p), with the first probe alone or with the mean of both; at K = 1 with those of Table 1's draw."""
    log_p = drawn_by_hand(bench, method, 3, 2) - 0.0
    shift = float(log_p.max())  # exp(log p) itself is out of range in 72 dimensions
    values = {(r["metric"], r["draws"]): r["value"] for r in bench.rows("dequantisation", "tall", method)}
    for k in (1, 3):
        for metric, used in (("nll_paper", log_p[:k, 0]), ("nll_averaged", log_p[:k].mean(1))):
            expected = in_bits(used - shift) - shift / (72 * math.log(2))
            assert values[metric, k] == pytest.approx(float(expected.mean()), rel=1e-6)
            assert values[f"{metric}_stderr", k] == pytest.approx(float(expected.std()) / math.sqrt(5), rel=1e-4)
    assert values["nll_probe_bias", 1] == 0
    w = torch.softmax(log_p.mean(1), 0)
    variance = (log_p[:, 0] - log_p[:, 1]) ** 2 / 4  # of the mean of two
    bias = (w * (1 - w) * variance).sum(0) / 2 / (72 * math.log(2))
    assert values["nll_probe_bias", 3] == pytest.approx(-float(bias.mean()), rel=1e-4) and values["nll_probe_bias", 3] < 0
    for k in (1, 3):
        spread = math.sqrt(float(variance[:k].mean())) / (72 * math.log(2))
        assert values["nll_probe_std", k] == pytest.approx(spread, rel=1e-4)
        assert values["nll_probe_variance", k] == pytest.approx(float(variance[:k].mean()), rel=1e-4)
    for metric in ("nll_paper", "nll_averaged"):
        # Jensen: eq. 47 is above the mean of log p over the same draws, and above its first less log K.
        used = log_p[:, 0] if metric == "nll_paper" else log_p.mean(1)
        assert values[metric, 3] < float(in_bits((used.mean(0) - shift)[None]).mean()) - shift / (72 * math.log(2))
        assert values[metric, 3] < values[metric, 1] + math.log(3) / (72 * math.log(2))


def test_low_dimensions_use_the_exact_divergence(bench, tmp_path):
    """The first draw is the one of Table 1: the same images, uniforms and solver."""
    exact = {"exact_up_to": 72, "n": 2, "batch": 2, "rtol": 1e-2, "atol": 1e-2}
    said = evaluated(bench, "dequantisation", "tall", "fm_ot", tmp_path / "draws", draws=[1], **exact)
    assert said.code == 0 and "nll_exact at K = 1" in said.err
    rows = by_metric(tmp_path / "draws")
    assert set(rows) == {"nll_exact", "nll_exact_stderr", "nll_paper", "nll_paper_stderr"}
    assert (rows["nll_exact"]["probes"], rows["nll_paper"]["probes"]) == (0, 1)
    assert rows["nll_exact"]["nfe"] >= 8 and rows["nll_exact"]["value"] != rows["nll_paper"]["value"]
    assert evaluated(bench, "likelihood", "tall", "fm_ot", tmp_path / "nll", **exact).code == 0
    table1 = by_metric(tmp_path / "nll")
    assert rows["nll_exact"]["value"] == pytest.approx(table1["nll"]["value"], rel=1e-12)
    assert rows["nll_exact_stderr"]["value"] == pytest.approx(table1["nll_stderr"]["value"], rel=1e-12)
    assert (table1["nll"]["draws"], table1["nll"]["probes"]) == (1, 0)


def test_a_draw_is_solved_once(bench, tmp_path):
    """A rerun continues with the cached draws, also for more draws. A damaged entry, or one with other settings, is not used."""
    out, cache = tmp_path / "draws", tmp_path / "cache"

    def said(**settings: Any) -> str:
        found = evaluated(bench, "dequantisation", "tall", "fm_ot", out, **settings)
        assert found.code == 0, found.err
        return found.err

    def same() -> bool:
        found, expected = read_rows([out / "rows.parquet"]).to_pylist(), bench.rows("dequantisation", "tall", "fm_ot")
        shown = ("metric", "draws", "value", "nfe")
        return [[row[c] for c in shown] for row in found] == [[row[c] for c in shown] for row in expected]

    assert "2 solves and 0 from the cache" in said(draws=[1, 2])
    assert "1 solves and 2 from the cache" in said() and same()
    assert "0 solves and 3 from the cache" in said() and same()
    arrays = sorted(cache.glob("*.npy"))
    arrays[0].write_bytes(arrays[0].read_bytes()[:-9])
    assert "1 solves and 2 from the cache" in said() and same()
    assert "3 solves and 0 from the cache" in said(rtol=2e-2)


def test_a_failed_draw_does_not_change_smaller_k(bench, tmp_path, monkeypatch):
    """Numbers, failures and evaluations at K come from the first K draws; evaluations of a batch count for its images."""
    solves: list[int] = []

    def solved(field: Any, x1: torch.Tensor, *_: Any, **__: Any) -> LogLikelihood:
        draw = len(solves) // 2  # batches of 3 and 2
        solves.append(draw)
        field.count.calls += (10 if len(x1) == 3 else 30) * (draw + 1)
        g = torch.Generator().manual_seed(len(solves))
        failed = torch.tensor([draw == 2 and len(x1) == 2] + [False] * (len(x1) - 1))
        return LogLikelihood(torch.randn(2, len(x1), generator=g).double(), torch.zeros(len(x1)), failed, 2)

    monkeypatch.setattr("fmbench.stages.shared.likelihood_solve.log_likelihood", solved)
    runs = []
    for _ in range(2):  # the second from the cache
        assert evaluated(bench, "dequantisation", "tall", "fm_ot", tmp_path / "out", draws=[1, 2, 3]).code == 0
        runs.append((tmp_path / "out" / "rows.parquet").read_bytes())
    assert runs[0] == runs[1] and solves == [0, 0, 1, 1, 2, 2]
    rows = {(r["metric"], r["draws"]): r for r in read_rows([tmp_path / "out" / "rows.parquet"]).to_pylist()}
    for (metric, k), row in rows.items():
        assert row["status"] == ("diverged" if k == 3 else "ok"), metric
        assert row["nfe"] == pytest.approx({1: 18.0, 2: 27.0, 3: 36.0}[k], rel=1e-12)
        if k == 3:
            assert row["reason"] == "dopri5 failed on 1 of 15 solves (step size vanished or 20000 NFE spent)"


@pytest.mark.parametrize("changes", [{"probe": "gaussian"}, {"mode": "forward"}])
def test_draws_with_gaussian_probes_or_in_forward_mode(bench, tmp_path, changes):
    """Other probes give another number; the other mode gives the same."""
    said = evaluated(bench, "dequantisation", "tall", "fm_ot", tmp_path, draws=[1], **changes)
    assert said.code == 0, said.err
    found = by_metric(tmp_path)["nll_averaged"]
    (expected,) = [r for r in bench.rows("dequantisation", "tall", "fm_ot") if (r["metric"], r["draws"]) == ("nll_averaged", 1)]
    assert (found["value"] == pytest.approx(expected["value"], rel=1e-5)) == ("mode" in changes)
    assert found["value"] == pytest.approx(expected["value"], rel=0.05)


def test_points_have_no_rows_of_dequantisation(bench, tmp_path):
    """fmbench knows only now that a plug-in source gives points, so this is not an error."""
    said = evaluated(bench, "dequantisation", "board", "fm_ot", tmp_path)
    assert said.code == 0 and "no rows: points are not dequantised" in said.err
    assert read_rows([tmp_path / "rows.parquet"]).num_rows == 0


def test_draws_of_an_oracle_are_refused(bench, tmp_path):
    said = evaluated(bench, "dequantisation", "tall", "oracle_ot", tmp_path / "out")
    assert said.code == 3 and "is an oracle, whose likelihood is a closed form" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "metrics"), [({}, {"nll_averaged", "nll_paper"}), ({"exact_up_to": 72}, {"nll_exact", "nll_paper"})]
)
def test_draws_of_a_diverged_training_are_skipped(bench, tmp_path, changes, metrics):
    assert evaluated(bench, "dequantisation", "tall", "ddpm", tmp_path, **changes).code == 0
    rows = read_rows([tmp_path / "rows.parquet"]).to_pylist()
    assert {(r["metric"], r["draws"]) for r in rows} == {(metric, k) for metric in metrics for k in (1, 3)}
    reason = read_json(bench.folder("train", "tall", "ddpm") / "config.json")["reason"]
    for row in rows:
        assert (row["status"], row["value"], row["reason"]) == ("skipped", None, f"training diverged: {reason}")
