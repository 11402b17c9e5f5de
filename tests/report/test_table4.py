"""Table 4: NLL against K by each estimator, and what is said of the probes' noise."""

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow.parquet import read_table
from table_rows import REASON

from fmbench.report.claims.claim10_nll_falls_with_k import falls_with_k
from fmbench.report.claims.decision import decide
from fmbench.report.table4 import COLUMNS, write_table4
from fmbench.store.records import Row, write_rows

SPEC4: dict[str, Any] = {
    "stage": "table4",
    "datasets": ["cifar10", "tall"],
    "methods": ["ddpm", "fm_ot"],
    "seeds": [0, 1],
    "draws": {"cifar10": [1, 20, 50], "tall": [1, 3]},
}


def draws_rows(dataset: str, method: str, seed: int, draws: list[int], nll: float | None, exact: bool = False) -> list[Row]:
    """Rows of the stage ``dequantisation``. The paper's estimator falls faster, because of the probe's noise."""
    rows = []
    common: dict[str, Any] = {"n": 64, "rtol": 1e-5, "atol": 1e-5, "solver": "dopri5_shared"}
    other = "nll_exact" if exact else "nll_averaged"
    for k in draws:
        for metric, probes, gain in ((other, 0 if exact else 4, 0.01), ("nll_paper", 1, 0.02)):
            columns = common | {"draws": k, "probes": probes}
            if nll is None:
                reason = f"training diverged: {REASON}"
                rows.append(Row(dataset, method, seed, "dequantisation", metric, None, "bits/dim", "skipped", reason, **columns))
                continue
            value = nll + seed / 10 - gain * np.log(k)
            rows.append(Row(dataset, method, seed, "dequantisation", metric, value, "bits/dim", **columns))
            rows.append(Row(dataset, method, seed, "dequantisation", f"{metric}_stderr", 0.005, "bits/dim", **columns))
            if metric == "nll_averaged":
                bias = -0.0025 * (1 - 1 / k)
                rows.append(Row(dataset, method, seed, "dequantisation", "nll_probe_bias", bias, "bits/dim", **columns))
                rows.append(Row(dataset, method, seed, "dequantisation", "nll_probe_std", 0.04, "bits/dim", **columns))
    return rows


@pytest.fixture
def cifar10_rows(tmp_path) -> list[Path]:
    files = []
    for method, nll in (("ddpm", 3.5), ("fm_ot", 3.25)):
        for seed in (0, 1):
            files.append(tmp_path / f"{method}{seed}.parquet")
            write_rows(files[-1], draws_rows("cifar10", method, seed, [1, 20, 50], nll))
    return files


def test_table_4_has_a_row_for_each_estimator_and_k_with_the_papers_number(cifar10_rows, tmp_path):
    write_table4(cifar10_rows, SPEC4, tmp_path / "table4.csv")
    rows = list(csv.DictReader((tmp_path / "table4.csv").read_text().splitlines()))
    assert list(rows[0]) == COLUMNS
    printed = {"ddpm": ["3.24", "3.14", "3.12"], "fm_ot": ["3.11", "3.01", "2.99"]}
    expected = [
        (method, estimator, k, number)
        for method, numbers in printed.items()
        for estimator in ("averaged", "paper")
        for k, number in zip(("1", "20", "50"), numbers, strict=True)
    ]
    assert [(r["method"], r["estimator"], r["k"], r["paper_nll"]) for r in rows] == expected
    for row in rows:
        gain = {"averaged": 0.01, "paper": 0.02}[row["estimator"]] * np.log(int(row["k"]))
        start = {"ddpm": 3.5, "fm_ot": 3.25}[row["method"]]
        assert float(row["nll_mean"]) == pytest.approx(start + 0.05 - gain, rel=1e-5)
        assert float(row["nll_std"]) == pytest.approx(0.1 / np.sqrt(2), rel=1e-5)
        assert (row["nll_stderr"], row["n"], row["seeds"], row["status"]) == ("0.005", "64", "2", "ok")
        assert row["probes"] == {"averaged": "4", "paper": "1"}[row["estimator"]]
        if row["estimator"] == "paper":
            assert row["probe_bias"] == row["probe_std"] == ""
        else:
            assert row["probe_std"] == "0.04"
            assert float(row["probe_bias"]) == pytest.approx(-0.0025 * (1 - 1 / int(row["k"])), abs=1e-9)


def test_table_4_as_markdown_and_latex(cifar10_rows, tmp_path):
    write_table4(cifar10_rows, SPEC4, tmp_path / "table4.csv")
    text = (tmp_path / "table4.md").read_text()
    assert "| Method | Estimator | K = 1 | K = 20 | K = 50 | Probe bias at K = 50 |" in text
    averaged = "**3.300 ± 0.071** (3.11) | **3.270 ± 0.071** (3.01) | **3.261 ± 0.071** (2.99) | -0.0024"
    assert f"| FM, OT path | probes averaged first | {averaged} |" in text
    papers = "**3.300 ± 0.071** (3.11) | **3.240 ± 0.071** (3.01) | **3.222 ± 0.071** (2.99) | "
    assert f"| FM, OT path | the paper's estimator | {papers} |" in text
    assert {row.count("|") for row in text.splitlines() if row.startswith("|")} == {7}
    for fragment in (
        "NLL of the first 64 test images: mean ± standard deviation over 2 seeds.",
        "The standard error over test images is 0.005 bits/dim.",
        "Probes averaged first: 4 probes a draw",
        "one image a standard deviation of 0.040",
    ):
        assert fragment in text
    assert "## tall" not in text and " nan" not in text
    lines = (tmp_path / "table4.tex").read_text().splitlines()
    assert lines[0] == "% cifar10, bits/dim; in brackets: the paper" and lines[1] == r"\begin{tabular}{llrrr}"
    assert {line.count("&") for line in lines if line.endswith(r"\\")} == {4}
    assert r"FM, OT path & the paper's estimator & \textbf{3.300 $\pm$ 0.071} (3.11)" in "\n".join(lines)


def test_table_4_of_an_exact_divergence_and_of_other_data(tmp_path):
    write_rows(tmp_path / "rows.parquet", draws_rows("tall", "fm_ot", 0, [1, 3], 2.5, exact=True))
    table = write_table4([tmp_path / "rows.parquet"], SPEC4 | {"seeds": [0]}, tmp_path / "table4.csv")
    assert table.estimator.tolist() == ["exact", "exact", "paper", "paper"]
    assert table.paper_nll.isna().all() and table.probe_bias.isna().all() and table.nll_std.isna().all()
    assert table.probes.tolist() == [0, 0, 1, 1]
    text = (tmp_path / "table4.md").read_text()
    assert "| FM, OT path | exact divergence | 2.500 | 2.489 |  |" in text
    assert "Probes averaged first" not in text and "over 1 seed." in text and "cifar10" not in text


def test_table_4_names_what_diverged(tmp_path):
    rows = draws_rows("tall", "ddpm", 0, [1, 3], None) + draws_rows("tall", "ddpm", 1, [1, 3], 2.5)
    write_rows(tmp_path / "rows.parquet", rows)
    table = write_table4([tmp_path / "rows.parquet"], SPEC4, tmp_path / "table4.csv")
    assert set(table.status) == {f"seed 0: training diverged: {REASON}"} and set(table.seeds) == {1}
    assert table.nll_mean[0] == 2.6 and table.nll_std.isna().all()
    text = (tmp_path / "table4.md").read_text()
    assert text.count(f"* DDPM: seed 0: training diverged: {REASON}") == 1 and "the numbers are over the other seeds" in text
    write_rows(tmp_path / "rows.parquet", draws_rows("tall", "ddpm", 0, [1, 3], None))
    table = write_table4([tmp_path / "rows.parquet"], SPEC4 | {"seeds": [0]}, tmp_path / "table4.csv")
    assert set(table.seeds) == {0} and table.nll_mean.isna().all()
    text = (tmp_path / "table4.md").read_text()
    assert "| DDPM | probes averaged first | - | - |  |" in text
    assert "nan" not in text.replace(REASON, "")


def test_table_4_of_no_images(tmp_path):
    table = write_table4([], SPEC4 | {"datasets": [], "draws": {}}, tmp_path / "table4.csv")
    assert table.empty and (tmp_path / "table4.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert "This run has no trained method on a data set of images." in (tmp_path / "table4.md").read_text()
    assert (tmp_path / "table4.tex").exists()


def test_table_4_without_one_of_the_ks(tmp_path):
    """The rows may be of fewer K than the spec."""
    write_rows(tmp_path / "rows.parquet", draws_rows("tall", "fm_ot", 0, [1], 2.5))
    write_table4([tmp_path / "rows.parquet"], SPEC4 | {"seeds": [0]}, tmp_path / "table4.csv")
    assert "| FM, OT path | the paper's estimator | 2.500 | - |  |" in (tmp_path / "table4.md").read_text()


def test_table_4_is_of_the_configs_seeds_and_the_same_bytes_again(cifar10_rows, tmp_path):
    table = write_table4(cifar10_rows, SPEC4 | {"seeds": [1]}, tmp_path / "one.csv")
    assert table.nll_mean[0] == 3.6 and set(table.seeds) == {1}
    for name, files in (("a", cifar10_rows), ("b", cifar10_rows[::-1])):
        write_table4(files, SPEC4, tmp_path / name / "table4.csv")
    for kind in ("csv", "md", "tex"):
        assert (tmp_path / "a" / f"table4.{kind}").read_bytes() == (tmp_path / "b" / f"table4.{kind}").read_bytes()


PROBE_SPEC: dict[str, Any] = {"datasets": ["d"], "methods": ["ddpm", "fm_ot"], "seeds": [0, 1], "draws": {"d": [1, 5]}, "of": "x"}


def nll_against_k(variances: dict[str, float]) -> list[Row]:
    """NLL against K with a probe bias of -0.02 at K = 5; ``variances``: those of each method's log p, by the probes."""
    rows = []
    for (method, variance), seed, k in itertools.product(variances.items(), (0, 1), (1, 5)):
        values = {"nll_averaged": 3 - 0.1 * (k > 1) + 0.001 * seed, "nll_paper": 3 - 0.2 * (k > 1) + 0.001 * seed}
        values |= {"nll_probe_bias": -0.02 * (k > 1), "nll_probe_std": 0.07, "nll_probe_variance": variance}
        for metric, value in values.items():
            probes = 1 if metric == "nll_paper" else 4
            rows.append(Row("d", method, seed, "dequantisation", metric, value, "u", n=16, draws=k, probes=probes))
    return rows


def test_a_probe_bias_is_a_bound_where_the_noise_is_large(tmp_path):
    write_rows(tmp_path / "rows.parquet", nll_against_k({"ddpm": 9.25, "fm_ot": 0.5}))
    table = write_table4([tmp_path / "rows.parquet"], PROBE_SPEC, tmp_path / "table4.csv")
    assert list(table.columns) == [*COLUMNS, "probe_variance"]
    assert table[table.estimator == "averaged"].probe_variance.tolist() == [9.25, 9.25, 0.5, 0.5]
    text = (tmp_path / "table4.md").read_text()
    last = [line.split(" | ")[-1] for line in text.splitlines() if "probes averaged first |" in line]
    assert last == ["≤ -0.0200 |", "-0.0200 |"]
    assert (
        "(a variance of 9.2 nats² in the log p of a draw), so the NLL is too low by at least" in text and "times as" not in text
    )


def test_a_probe_bias_of_little_noise_is_an_estimate(tmp_path):
    write_rows(tmp_path / "rows.parquet", nll_against_k({"ddpm": 0.75, "fm_ot": 0.5}))
    write_table4([tmp_path / "rows.parquet"], PROBE_SPEC, tmp_path / "table4.csv")
    text = (tmp_path / "table4.md").read_text()
    assert "≤" not in text and "The probe bias of the paper's estimator is about 4 times as large." in text


@pytest.mark.parametrize(("variance", "taken", "papers"), [(9.25, True, "at least 0.02"), (0.5, False, "about 0.08")])
def test_claim_10_says_where_the_probes_do_more_than_is_taken_off(tmp_path, variance, taken, papers):
    write_rows(tmp_path / "rows.parquet", nll_against_k({"ddpm": variance, "fm_ot": variance}))
    frame = read_table(tmp_path / "rows.parquet").to_pandas()
    averaged, one = decide(falls_with_k({"dequantisation": frame}))
    assert ("The estimate is too small, because the variance is 9.2 nats^2" in averaged.why) == taken
    assert "is estimated and subtracted" in averaged.why
    assert f"At K = 5 the noise lowers it by {papers}, which is bias and not likelihood" in one.why
