"""Table 1's numbers: means, spreads, the paper's numbers, and the status of what failed."""

import csv
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from table_rows import FEATURES, REASON, SPEC, frame, image

from fmbench.report.layout import paper, to_csv
from fmbench.report.table1 import write_table1
from fmbench.report.table1.latex import latex
from fmbench.report.table1.markdown import markdown
from fmbench.report.table1.numbers import COLUMNS, table1
from fmbench.store.records import Row, write_rows


def test_the_columns(digits_rows, tmp_path):
    columns = (
        "dataset, method, seeds, nll_mean, nll_std, nll_stderr, nll_unit, fid_mean, fid_std, fid_stderr, fid_features, fid_n, "
        "kid_mean, kid_std, energy_distance_mean, energy_distance_std, energy_distance_stderr, "
        "off_support_mean, off_support_std, off_support_stderr, nfe_mean, nfe_std, nfe_stderr, "
        "sample_std, paper_nll, paper_fid, paper_nfe, status"
    )
    assert columns.split(", ") == COLUMNS
    assert to_csv(table1(frame(digits_rows, tmp_path), SPEC)).splitlines()[0] == columns.replace(" ", "")


def test_means_and_spreads_are_over_seeds(digits_rows, tmp_path):
    table = table1(frame(digits_rows, tmp_path), SPEC).set_index("method")
    row = table.loc["ddpm"]
    assert row.nll_mean == pytest.approx(2.7) and row.nll_std == pytest.approx(np.std([2.6, 2.8], ddof=1))
    assert row.fid_mean == pytest.approx(12) and row.fid_std == pytest.approx(np.std([10, 14], ddof=1))
    assert row.nfe_mean == pytest.approx(105) and row.nfe_std == pytest.approx(np.std([100, 110], ddof=1))
    assert row.sample_std == pytest.approx(0.85)
    assert (row.seeds, row.nll_unit, row.fid_features, row.fid_n, row.status) == (2, "bits/dim", FEATURES, 720, "ok")
    assert table.loc["fm_ot"].nll_std == 0


def test_rows_are_those_of_the_config_in_its_order(digits_rows, tmp_path):
    rows = frame(
        [*reversed(digits_rows), *image("digits", "scoreflow", 0, 1.0, 1.0, 1.0), *image("other", "ddpm", 0, 1, 1, 1)], tmp_path
    )
    spec = SPEC | {"methods": ["fm_ot", "ddpm"]}
    assert table1(rows, spec)[["dataset", "method"]].to_numpy().tolist() == [["digits", "fm_ot"], ["digits", "ddpm"]]


def test_only_the_seeds_of_the_config_count(digits_rows, tmp_path):
    rows = frame([*digits_rows, *image("digits", "ddpm", 7, 99.0, 99.0, 99.0)], tmp_path)
    assert table1(rows, SPEC).nll_mean[0] == pytest.approx(2.7)
    one = table1(rows, SPEC | {"seeds": [1]})
    assert (one.nll_mean[0], one.seeds[0]) == (pytest.approx(2.8), 1)
    assert pd.isna(one.nll_std[0])
    assert ",2.8,,0.01,bits/dim," in to_csv(one)  # no spread of one seed


@pytest.mark.parametrize(
    ("dataset", "method", "printed"),
    [
        ("cifar10", "ddpm", (3.12, 7.48, 274)),
        ("cifar10", "score_matching", (3.16, 19.94, 242)),
        ("cifar10", "scoreflow", (3.09, 20.78, 428)),
        ("cifar10", "fm_diffusion", (3.10, 8.06, 183)),
        ("cifar10", "fm_ot", (2.99, 6.35, 142)),
        ("imagenet32", "fm_ot", (3.53, 5.02, 122)),
        ("imagenet32", "score_matching", (3.56, 5.68, 178)),
        ("imagenet64", "scoreflow", (3.36, 24.95, 601)),
        ("imagenet64", "fm_ot", (3.31, 14.45, 138)),
        ("imagenet128", "fm_ot", (2.90, 20.9, None)),
    ],
)
def test_the_papers_numbers_are_beside_ours(tmp_path, dataset, method, printed):
    rows = frame(image(dataset, method, 0, 3.0, 7.0, 100.0), tmp_path)
    row, *others = table1(rows, SPEC | {"datasets": [dataset], "methods": [method], "seeds": [0]}).to_dict("records")
    assert {other["status"] for other in others} <= {"paper only"}
    for name, value in zip(("nll", "fid", "nfe"), printed, strict=True):
        assert row[f"paper_{name}"] == value or (value is None and pd.isna(row[f"paper_{name}"]))


def test_data_and_methods_that_the_paper_does_not_have(digits_rows, tmp_path):
    rows = frame(digits_rows + image("cifar10", "mine", 0, 3.0, 7.0, 100.0), tmp_path)
    table = table1(rows, SPEC | {"datasets": ["digits", "cifar10"], "methods": ["ddpm", "mine"]})
    assert table[["paper_nll", "paper_fid", "paper_nfe"]].iloc[[0, 1, 3]].isna().all(axis=None)
    assert table.paper_nll[2] == 3.12  # cifar10, ddpm: no number of ours, but one of the paper's
    assert pd.isna(table.nll_mean[2])


def test_a_method_with_no_rows_at_all_is_not_ok(digits_rows, tmp_path):
    table = table1(frame(digits_rows, tmp_path), SPEC | {"methods": ["ddpm", "scoreflow"]})
    assert table.seeds[1] == 0
    assert table.status[1] != "ok"


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table4"])
def test_the_papers_tables_can_be_read(name):
    printed = paper(name)
    assert len(printed) > 0 and not printed.columns.duplicated().any()


def test_one_diverged_seed_of_two(digits_rows, tmp_path):
    kept = [r for r in digits_rows if (r.method, r.seed) != ("ddpm", 1)]
    rows = frame(kept + image("digits", "ddpm", 1, None, None, None, None), tmp_path)
    table = table1(rows, SPEC)
    bad, good = table.iloc[0], table.iloc[1]
    assert bad.status == f"seed 1 diverged: {REASON}"
    assert (bad.seeds, bad.nll_mean) == (1, 2.6) and pd.isna(bad.nll_std)
    assert (good.status, good.seeds) == ("ok", 2)
    (csv_row, _) = csv.DictReader(io.StringIO(to_csv(table)))
    assert csv_row["status"] == bad.status


def test_every_seed_diverged(digits_rows, tmp_path):
    kept = [r for r in digits_rows if r.method != "ddpm"]
    kept += [row for seed in (0, 1) for row in image("digits", "ddpm", seed, None, None, None, None)]
    rows = frame(kept, tmp_path)
    table = table1(rows, SPEC)
    assert table.status[0] == f"seeds 0 and 1 diverged: {REASON}"
    assert table.seeds[0] == 0
    assert table.loc[0, ["nll_mean", "fid_mean", "nfe_mean", "sample_std"]].isna().all()
    assert (table.fid_features[0], table.fid_n[0], table.nll_unit[0]) == (FEATURES, 720, "bits/dim")
    text = markdown(table, rows, SPEC)
    assert "| DDPM | - | - | - | - | seeds 0 and 1 diverged" in text
    assert " nan" not in text.replace(REASON, "")
    assert r"DDPM & - & - & -" in latex(table, SPEC)


def test_the_status_names_the_divergence_and_not_the_rows_skipped_because_of_it(digits_rows, tmp_path):
    """The records of a model may hold its evaluations before its training."""
    kept = [r for r in digits_rows if (r.method, r.seed) != ("ddpm", 1)]
    skipped = Row("digits", "ddpm", 1, "likelihood", "nll", None, "bits/dim", "skipped", f"training diverged: {REASON}")
    diverged = Row("digits", "ddpm", 1, "train", "final_loss", None, "loss", "diverged", REASON)
    assert table1(frame([*kept, skipped, diverged], tmp_path), SPEC).status[0] == f"seed 1 diverged: {REASON}"


def test_the_status_names_mixed_extractors(digits_rows, tmp_path):
    """Merged results may have classifiers that differ."""
    other = FEATURES.replace("(", "(other, ")
    mixed = [replace(r, features=other) if r.features and (r.method, r.seed) == ("fm_ot", 1) else r for r in digits_rows]
    rows = frame(mixed, tmp_path)
    table = table1(rows, SPEC)
    assert table.status.tolist() == ["ok", "its mean distance mixes 2 extractors, whose distances cannot be compared"]
    assert table.fid_features[1] == " and ".join(sorted([FEATURES, other])) and table.fid_features[0] == FEATURES
    assert "| its mean distance mixes 2 extractors, whose distances cannot be compared |" in markdown(table, rows, SPEC)


def test_a_solver_that_fails_at_sampling_is_in_the_status(digits_rows, tmp_path):
    kept = [r for r in digits_rows if (r.method, r.seed, r.metric) != ("fm_ot", 0, "nfe")]
    reason = "dopri5 failed on 3 of 720 samples"
    kept.append(Row("digits", "fm_ot", 0, "sample", "nfe", None, "evaluations", "diverged", reason, n=720, rtol=1e-5))
    table = table1(frame(kept, tmp_path), SPEC)
    assert table.status[1] == f"seed 0 diverged: {reason}"
    assert (table.seeds[1], table.nfe_mean[1]) == (2, 60)


def test_a_solve_of_the_sweep_that_diverged_leaves_the_status_ok(digits_rows, tmp_path):
    """Euler at 4 NFE may diverge; Table 1 is about dopri5."""
    blown = Row(
        "digits", "ddpm", 0, "sweep", "mse", None, "squared", "diverged", "the error is not finite", solver="euler", nfe=4.0
    )
    assert set(table1(frame([*digits_rows, blown], tmp_path), SPEC).status) == {"ok"}


def test_the_csv_is_six_digits_and_the_same_bytes(digits_rows, tmp_path):
    rows = digits_rows + image("digits", "mine", 0, 1 / 3, 1e-9 / 3, 1e7 / 3)
    spec = SPEC | {"methods": ["ddpm", "mine"]}
    texts = set()
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.parquet", rows)
        write_table1(tmp_path / f"{name}.parquet", spec, tmp_path / name / "table1.csv")
        texts.add(b"|".join((tmp_path / name / f"table1.{kind}").read_bytes() for kind in ("csv", "md", "tex")))
    assert len(texts) == 1
    text = (tmp_path / "a" / "table1.csv").read_bytes()
    assert b"0.333333,,0.01,bits/dim,3.33333e-10,,," in text and b",3.33333e+06,,," in text
    assert b"\r" not in text and text.endswith(b"\n")
    assert b",720," in text  # a count is an integer


def test_the_order_of_the_records_does_not_matter(digits_rows, tmp_path):
    table = to_csv(table1(frame(digits_rows, tmp_path), SPEC))
    assert to_csv(table1(frame(sorted(digits_rows, key=lambda r: r.metric), tmp_path), SPEC)) == table


def test_the_columns_of_the_papers_numbers():
    assert set(paper("table1").columns) == {"dataset", "method", "nll_bpd", "fid", "nfe"}
    assert [column for column in COLUMNS if column.startswith("paper_")] == ["paper_nll", "paper_fid", "paper_nfe"]
