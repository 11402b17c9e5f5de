import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fmbench.metrics import extractors, inception
from fmbench.report import table1 as table1_module
from fmbench.report import table4
from fmbench.report.table1 import COLUMNS, latex, markdown, paper, records_frame, table1, to_csv, write_table1
from fmbench.report.table4 import write_table4
from fmbench.store.records import Row, write_rows

FEATURES = "classifier(digits, 64 features)"
REASON = "the loss became nan at iteration 17 (learning rate 0.002)"

# By metric: stage, unit, and what else such a row carries.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "final_loss": ("train", "loss", {"step": 100}),
    "nll": (
        "likelihood",
        "bits/dim",
        {"n": 360, "rtol": 1e-5, "atol": 1e-5, "solver": "dopri5_shared, hutchinson rademacher x1"},
    ),
    "nll_stderr": ("likelihood", "bits/dim", {"n": 360}),
    "nfe": ("sample", "evaluations", {"n": 720, "batch": 360, "rtol": 1e-5, "atol": 1e-5, "solver": "dopri5"}),
    "nfe_shared": ("sample", "evaluations", {"n": 128, "batch": 128, "solver": "dopri5_shared"}),
    "sample_std": ("sample", "model units", {"n": 720}),
    "frechet": (
        "sample_quality",
        "squared features",
        {"n": 720, "features": FEATURES, "reference": "train, n = 1437, sha256 abc"},
    ),
    "frechet_at_floor_n": ("sample_quality", "squared features", {"n": 360, "features": FEATURES}),
    "energy_distance": ("sample_quality", "data units", {"n": 4000, "features": "coordinates"}),
    "off_support": ("sample_quality", "fraction", {"n": 4000, "features": "coordinates"}),
}


def model(dataset: str, method: str, seed: int, unit: str = "bits/dim", **values: float | None) -> list[Row]:
    """The rows of one trained model; None stands for a diverged training or what was skipped because of it."""
    rows = []
    for metric, value in values.items():
        stage, own, columns = KINDS[metric]
        own = unit if metric.startswith("nll") else own
        if value is None:
            status = "diverged" if stage == "train" else "skipped"
            reason = REASON if stage == "train" else f"training diverged: {REASON}"
            columns = columns | {"status": status, "reason": reason}
        rows.append(Row(dataset, method, seed, stage, metric, value, own, **columns))
    return rows


def image(dataset: str, method: str, seed: int, nll: float | None, fid: float | None, nfe: float | None, std: float | None = 0.7):
    common = {"final_loss": 0.1 if nll is not None else None, "nll_stderr": 0.01 if nll is not None else None}
    shared = None if nfe is None else nfe + 10
    at_floor = None if fid is None else fid + 1
    values = {"nll": nll, "frechet": fid, "nfe": nfe, "sample_std": std, "nfe_shared": shared, "frechet_at_floor_n": at_floor}
    return model(dataset, method, seed, **common, **values)


def points(method: str, seed: int, nll: float, energy: float, nfe: float):
    values = {
        "nll": nll,
        "nll_stderr": 0.02,
        "energy_distance": energy,
        "off_support": 0.25,
        "nfe": nfe,
        "nfe_shared": nfe,
        "sample_std": 2.0,
    }
    return model("board", method, seed, "nats", final_loss=0.1, **values)


def floors(dataset: str, images: bool = True) -> list[Row]:
    if images:
        return [
            Row(dataset, "", 0, "features", "data_std", 0.71, "model units", n=1437),
            Row(dataset, "", 0, "features", "classifier_accuracy", 0.975, "fraction", n=360, features=FEATURES),
            Row(
                dataset,
                "",
                0,
                "features",
                "frechet_floor",
                0.5,
                "squared features",
                n=360,
                features=FEATURES,
                reference="train, n = 9",
            ),
        ]
    return [
        Row(dataset, "", 0, "features", "data_std", 2.3, "model units", n=100),
        Row(dataset, "", 0, "features", "energy_distance_floor", 0.00123, "data units", n=4000),
        Row(dataset, "", 0, "features", "nll_floor", 2.0794415, "nats"),
    ]


SPEC: dict[str, Any] = {
    "stage": "table1",
    "datasets": ["digits"],
    "methods": ["ddpm", "fm_ot"],
    "seeds": [0, 1],
    "overrides": {},
    "oracles": [],
}


def frame(rows: list[Row], folder: Path) -> pd.DataFrame:
    write_rows(folder / "records.parquet", rows)
    return records_frame(folder / "records.parquet")


@pytest.fixture
def digits_rows() -> list[Row]:
    rows = floors("digits")
    rows += image("digits", "ddpm", 0, 2.6, 10.0, 100.0, 0.8) + image("digits", "ddpm", 1, 2.8, 14.0, 110.0, 0.9)
    rows += image("digits", "fm_ot", 0, 2.3, 8.0, 50.0) + image("digits", "fm_ot", 1, 2.3, 9.0, 60.0)
    return rows


# The table


def test_the_columns(digits_rows, tmp_path):
    columns = (
        "dataset, method, seeds, nll_mean, nll_std, nll_unit, fid_mean, fid_std, fid_features, fid_n, kid_mean, "
        "kid_std, energy_distance_mean, energy_distance_std, off_support_mean, off_support_std, "
        "nfe_mean, nfe_std, sample_std, paper_nll, paper_fid, paper_nfe, status"
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


def test_rows_are_in_the_order_of_the_config_and_only_its(digits_rows, tmp_path):
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
    assert ",2.8,,bits/dim," in to_csv(one)  # no spread of one seed


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
def test_the_papers_numbers_stand_beside_ours(tmp_path, dataset, method, printed):
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
    assert table.status[0] == f"seed 0 diverged: {REASON}; seed 1 diverged: {REASON}"
    assert table.seeds[0] == 0
    assert table.loc[0, ["nll_mean", "fid_mean", "nfe_mean", "sample_std"]].isna().all()
    assert (table.fid_features[0], table.fid_n[0], table.nll_unit[0]) == (FEATURES, 720, "bits/dim")
    text = markdown(table, rows, SPEC)
    assert "| DDPM | - | - | - | - | seed 0 diverged" in text
    assert " nan" not in text.replace(REASON, "")
    assert r"DDPM & - & - & -" in latex(table, SPEC)


def test_what_diverged_is_named_before_what_was_skipped_for_it(digits_rows, tmp_path):
    """The records of a model hold its evaluations before its training, in an order of stages."""
    kept = [r for r in digits_rows if (r.method, r.seed) != ("ddpm", 1)]
    skipped = Row("digits", "ddpm", 1, "likelihood", "nll", None, "bits/dim", "skipped", f"training diverged: {REASON}")
    diverged = Row("digits", "ddpm", 1, "train", "final_loss", None, "loss", "diverged", REASON)
    assert table1(frame([*kept, skipped, diverged], tmp_path), SPEC).status[0] == f"seed 1 diverged: {REASON}"


def test_distances_of_two_extractors_are_not_one_measure(digits_rows, tmp_path):
    """As sets whose classifiers differ have them after `merge --allow judge`."""
    other = FEATURES.replace("(", "(other, ")
    mixed = [replace(r, features=other) if r.features and (r.method, r.seed) == ("fm_ot", 1) else r for r in digits_rows]
    rows = frame(mixed, tmp_path)
    table = table1(rows, SPEC)
    assert table.status.tolist() == ["ok", "its distances are of 2 extractors, which are not of one measure"]
    assert table.fid_features[1] == " and ".join(sorted([FEATURES, other])) and table.fid_features[0] == FEATURES
    assert "| its distances are of 2 extractors, which are not of one measure |" in markdown(table, rows, SPEC)


def test_a_solver_that_fails_at_sampling_is_in_the_status(digits_rows, tmp_path):
    kept = [r for r in digits_rows if (r.method, r.seed, r.metric) != ("fm_ot", 0, "nfe")]
    reason = "dopri5 failed on 3 of 720 samples"
    kept.append(Row("digits", "fm_ot", 0, "sample", "nfe", None, "evaluations", "diverged", reason, n=720, rtol=1e-5))
    table = table1(frame(kept, tmp_path), SPEC)
    assert table.status[1] == f"seed 0 diverged: {reason}"
    assert (table.seeds[1], table.nfe_mean[1]) == (2, 60)


def test_a_cell_of_the_sweep_that_blew_up_is_no_stain(digits_rows, tmp_path):
    """Euler at 4 NFE may well leave the numbers; Table 1 is about dopri5."""
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
    assert b"0.333333,,bits/dim,3.33333e-10,," in text and b",3.33333e+06,," in text
    assert b"\r" not in text and text.endswith(b"\n")
    assert b",720," in text  # a count stays an integer


def test_the_order_of_the_records_does_not_matter(digits_rows, tmp_path):
    table = to_csv(table1(frame(digits_rows, tmp_path), SPEC))
    assert to_csv(table1(frame(sorted(digits_rows, key=lambda r: r.metric), tmp_path), SPEC)) == table


# For reading


def test_markdown_is_a_section_per_data_set_with_the_best_in_bold(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    text = markdown(table1(rows, SPEC), rows, SPEC)
    assert "## digits" in text
    assert "| Method | NLL (bits/dim) | Frechet | NFE | Sample std | Status |" in text
    assert "| DDPM | 2.700 ± 0.141 | 12.00 ± 2.83 | 105.0 ± 7.1 | 0.850 | ok |" in text
    assert "| FM, OT path | **2.300 ± 0.000** | **8.50 ± 0.71** | **55.0 ± 7.1** | 0.700 | ok |" in text
    assert text.count("**") == 6
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {7}


def test_what_the_numbers_stand_on_is_said_below(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    text = markdown(table1(rows, SPEC), rows, SPEC)
    for fragment in (
        "over 2 seeds",
        "NLL over 360 test samples, dopri5_shared, hutchinson rademacher x1, rtol = atol = 1e-05",
        "standard error over test samples is 0.010",
        "mean over 720 samples",
        "for a batch of 128: DDPM 115, FM, OT path 65",
        f"features of the {FEATURES}, test accuracy 97.5%; 720 samples against train",
        "This is not an Inception FID",
        "Real test against train is 0.50 at n = 360, the classifier having seen train;",
        "at that n the methods have: DDPM 13.00, FM, OT path 9.50",
        "the data's is 0.710",
    ):
        assert fragment in text


def test_the_tolerances_are_both_named_when_they_differ(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    rows.loc[rows.rtol.notna(), "atol"] = 1e-3
    assert "rtol = atol = 1e-05" not in markdown(table1(rows, SPEC), rows, SPEC)


def test_a_distance_on_other_features_is_never_called_fid(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    table = table1(rows, SPEC)
    for text in (markdown(table, rows, SPEC), latex(table, SPEC)):
        assert "FID" not in text.replace("This is not an Inception FID", "")
        assert FEATURES.replace("_", r"\_") in text or FEATURES in text


@pytest.mark.parametrize("features", ["inception(2015-12-05)", "my InceptionV3", "not pytorch-fid InceptionV3(pool3)"])
def test_a_name_like_inceptions_is_not_enough(features, digits_rows, tmp_path):
    rows = frame([replace(r, features=features) if r.metric.startswith("frechet") else r for r in digits_rows], tmp_path)
    table = table1(rows, SPEC)
    assert "| Frechet |" in markdown(table, rows, SPEC) and "& Frechet &" in latex(table, SPEC)


def judged(values: dict[str, float], features: str) -> list[Row]:
    """Rows of quality, those of real data, and of a second extractor, of two methods and seeds."""
    rows = [Row("digits", "", 0, "features", f"{m}_floor", v / 2, "", n=360, features=features) for m, v in values.items()]
    for seed, method in ((s, m) for s in (0, 1) for m in ("ddpm", "fm_ot")):
        better = 1 if method == "ddpm" else 2
        for metric, value in values.items():
            reference = "train, n = 1437, sha256 abc" + ("; 7 subsets of 360 out of 1437" if metric.startswith("kid") else "")
            row = Row("digits", method, seed, "sample_quality", metric, (value + seed) / better, "", n=720, reference=reference)
            rows.append(replace(row, features=features))
        rows.append(Row("digits", method, seed, "sample_quality", "frechet/mine:NET", 40 + seed, "", n=720, features="my net"))
    return rows


def test_with_inceptions_features_it_is_the_fid_and_the_notes_say_so(digits_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "load_inception", lambda *_: SimpleNamespace(logits=None))
    features = extractors.inception(torch.device("cpu")).name
    values = {"frechet": 5.0, "kid": 0.004, "kid_std": 0.002, "precision": 0.5, "recall": 0.25, "inception_score": 8.0}
    others = [r for r in digits_rows if r.stage not in ("sample_quality", "features")]
    rows = frame(others + judged(values, features), tmp_path)
    table = table1(rows, SPEC)
    assert table.kid_mean.tolist() == pytest.approx([0.504, 0.252]) and table.kid_std[0] == pytest.approx(0.5**0.5)
    text = markdown(table, rows, SPEC)
    assert "| FID |" in text and "& FID &" in latex(table, SPEC) and "not an Inception FID" not in text
    assert f"* FID: features of the {features}; 720 samples against train, n = 1437, sha256 abc." in text
    assert "test accuracy" not in text and "the classifier having seen" not in text
    assert "* Real test against train is 2.50 at n = 360." in text
    assert "* KID on the same features, 1e-3, unbiased at every n (7 subsets of 360 out of 1437, which spread by " in text
    assert "DDPM 504.000, FM, OT path 252.000; real test against train 2.000." in text
    assert "Precision: DDPM 1.000, FM, OT path 0.500; recall: DDPM 0.750" in text
    assert "Real test has 0.250 and 0.125 at n = 360." in text
    assert "* Inception Score: DDPM 8.50, FM, OT path 4.25." in text
    assert "* Frechet distance on features of the my net: DDPM 40.50, FM, OT path 40.50." in text


def test_the_spread_by_the_probes_is_said_beside_the_likelihood(digits_rows, tmp_path):
    assert "the probes alone" not in markdown(table1(frame(digits_rows, tmp_path), SPEC), frame(digits_rows, tmp_path), SPEC)
    spread = [Row("digits", "ddpm", seed, "likelihood", "nll_probe_std", 0.25, "bits/dim") for seed in (0, 1)]
    rows = frame(digits_rows + spread, tmp_path)
    text = markdown(table1(rows, SPEC), rows, SPEC)
    assert "0.010. Of one sample's number the probes alone leave a standard deviation of 0.250." in text


def test_points_have_energy_distance_and_support_instead(tmp_path):
    far = [replace(r, value=0.5) if r.metric == "off_support" else r for r in points("ddpm", 0, 2.7, -0.0003, 164)]
    rows = frame(floors("board", images=False) + far + points("fm_ot", 0, 2.4, 0.002, 50), tmp_path)
    spec = SPEC | {"datasets": ["board"], "seeds": [0]}
    table = table1(rows, spec)
    assert table.fid_mean.isna().all() and table.fid_features.isna().all() and table.fid_n.isna().all()
    assert table.energy_distance_mean.tolist() == [-0.0003, 0.002] and table.off_support_mean.tolist() == [0.5, 0.25]
    assert table[["energy_distance_std", "off_support_std"]].isna().all(axis=None)
    text = markdown(table, rows, spec)
    assert "| Method | NLL (nats) | Energy distance (1e-4) | Off support | NFE | Sample std | Status |" in text
    assert "| DDPM | 2.700 | -3.00 | 0.500 | 164.0 | 2.000 | ok |" in text  # the lowest energy distance is not in bold
    assert "| FM, OT path | **2.400** | 20.00 | **0.250** | **50.0** | 2.000 | ok |" in text
    assert "over 1 seed; bold is the lowest mean. No energy distance is bold:" in text
    assert "as many real train points to test, in the same units: 12.30; the estimate is unbiased" in text
    assert "The true density's NLL is 2.079 nats." in text
    assert "FID" not in text and "Frechet" not in text and "dequantisation" not in text
    tabular = latex(table, spec)
    assert r"Method & NLL & Energy ($10^{-4}$) & NFE \\" in tabular
    assert r"FM, OT path & \textbf{2.400} & 20.00 & \textbf{50.0} \\" in tabular and "DDPM & 2.700 & -3.00 & 164.0" in tabular
    above = tabular.partition(r"\begin")[0]
    assert "% board: the energy distance, in 1e-4, in the place of the Frechet distance" in above
    assert "dequantisation" not in tabular


def test_points_whose_trainings_all_diverged_are_points_still(tmp_path):
    metrics = ("final_loss", "nll", "nll_stderr", "energy_distance", "off_support", "nfe", "nfe_shared", "sample_std")
    bad = model("board", "ddpm", 0, "nats", **dict.fromkeys(metrics))
    rows = frame(floors("board", images=False) + bad, tmp_path)
    spec = SPEC | {"datasets": ["board"], "seeds": [0], "methods": ["ddpm"]}
    table = table1(rows, spec)
    assert "| DDPM | - | - | - | - | - | seed 0 diverged" in markdown(table, rows, spec) and "Energy" in latex(table, spec)


def test_images_have_no_numbers_of_points(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    table = table1(rows, SPEC)
    assert table[["energy_distance_mean", "energy_distance_std", "off_support_mean", "off_support_std"]].isna().all(axis=None)
    assert "nergy" not in markdown(table, rows, SPEC) + latex(table, SPEC)


def test_one_draw_stands_beside_the_papers_many_and_it_is_said(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    text = "NLL here is for K = 1 dequantisation draw; the paper's column is at its largest K (Table 4 has NLL over K)."
    table = table1(rows, SPEC)
    assert f"* {text}" in markdown(table, rows, SPEC)
    assert "% NLL of images is for K = 1 dequantisation draw; the paper's is at its largest K." in latex(table, SPEC)


def test_what_others_published_stands_below_ours(digits_rows, tmp_path):
    """Table 1, right: ImageNet-128 beside GANs."""
    ours = floors("imagenet128") + image("imagenet128", "fm_ot", 0, 3.0, 30.0, 100.0)
    rows = frame(digits_rows + ours, tmp_path)
    spec = SPEC | {"datasets": ["digits", "imagenet128"], "methods": ["fm_ot"], "seeds": [0]}
    table = table1(rows, spec)
    others = table[table.status == "paper only"].set_index("method")
    assert set(others.dataset) == {"imagenet128"} and len(table) == 2 + len(others)
    assert others.paper_fid.to_dict() == {
        "mgan": 58.9,
        "pacgan2": 57.5,
        "logo_gan_ae": 50.9,
        "self_cond_gan": 41.7,
        "uncond_biggan": 25.3,
        "pgmgan": 21.7,
    }
    assert others.drop(columns=["dataset", "paper_fid", "status"]).isna().all(axis=None)
    assert "imagenet128,mgan,,,,,,,,,,,,,,,,,,,58.9,,paper only" in to_csv(table)
    text = markdown(table, rows, spec)
    assert "| FM, OT path | **3.000** (2.90) | **30.00** (FID 20.9) | **100.0** | 0.700 | ok |" in text
    assert "| Uncond. BigGAN | - | - (FID 25.3) | - | - | paper only |" in text
    assert "GAN" not in text.split("## imagenet128")[0] and "Where the status" not in text
    tabular = latex(table, spec)
    lines = tabular.splitlines()
    assert r"MGAN & - & - & - & - & - (FID 58.9) & - \\" in lines and tabular.count(r"\midrule") == 2
    last = r"PGMGAN & - & - & - & - & - (FID 21.7) & - \\"
    assert r"\footnotesize" not in tabular and lines.index(last) > lines.index(r"\midrule")
    assert "GAN" not in latex(table1(rows, SPEC), SPEC)


def test_every_published_method_of_the_paper_has_a_name():
    printed = paper("table1")
    assert set(printed.method) - set(printed[printed.dataset == "cifar10"].method) == set(table1_module.PUBLISHED)


def test_the_papers_number_is_in_brackets(tmp_path):
    rows = frame(floors("cifar10") + image("cifar10", "fm_ot", 0, 3.456, 20.0, 150.0), tmp_path)
    spec = SPEC | {"datasets": ["cifar10"], "methods": ["fm_ot"], "seeds": [0]}
    table = table1(rows, spec)
    assert "**3.456** (2.99) | **20.00** (FID 6.35) | **150.0** (142)" in markdown(table, rows, spec)
    assert r"\textbf{3.456} (2.99) & \textbf{20.00} (FID 6.35) & \textbf{150.0} (142)" in latex(table, spec)


def test_a_method_that_trained_differently_is_named(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    spec = SPEC | {"overrides": {"ddpm": {"learning_rate": 0.0005}}}
    assert "DDPM does not train under the common settings: {'learning_rate': 0.0005}" in markdown(table1(rows, spec), rows, spec)


def test_latex_is_a_booktabs_table(digits_rows, tmp_path):
    own = [row for seed in (0, 1) for row in image("digits", "my_method", seed, 2.5, 9.0, 70.0)]
    rows = frame(digits_rows + own + floors("b_2") + image("b_2", "ddpm", 0, 1, 1, 1), tmp_path)
    spec = SPEC | {"datasets": ["digits", "b_2"], "methods": ["ddpm", "fm_ot", "my_method"]}
    lines = latex(table1(rows, spec), spec).splitlines()
    text = "\n".join(lines)
    assert lines[0].startswith("%") and "bits/dim" in lines[0] and FEATURES in lines[0]
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    assert text.count(r"\cmidrule(lr)") == 2 and r"\multicolumn{3}{c}{digits}" in text and r"{b\_2}" in text
    assert r"FM, OT path & \textbf{2.300 $\pm$ 0.000} & \textbf{8.50 $\pm$ 0.71} & \textbf{55.0 $\pm$ 7.1}" in text
    assert r"my\_method &" in text
    body = [line for line in lines if line.endswith(r"\\") and not line.startswith(" &")]
    assert {line.count("&") for line in body} == {6}
    assert not re.search(r"(?<!\\)[_#]", "\n".join(lines[1:]))


def oracle(dataset: str, method: str, seed: int, nll: float, fid: float, nfe: float) -> list[Row]:
    """The rows of an oracle: NLL in closed form, and of its own draws by the solver too."""
    rows = [r for r in image(dataset, method, seed, nll, fid, nfe) if not r.metric.startswith("nll")]
    closed: dict[str, Any] = {"n": 360, "solver": "closed form"}
    solved: dict[str, Any] = {"n": 360, "solver": "dopri5_shared, exact divergence", "rtol": 1e-5, "atol": 1e-5, "probes": 0}
    rows.append(Row(dataset, method, seed, "train", "images_seen", 1437, "samples", step=0))
    rows.append(Row(dataset, method, seed, "train", "bandwidth", 0.03396, "model units", step=0))
    rows.append(Row(dataset, method, seed, "likelihood", "nll", nll, "bits/dim", **closed))
    rows.append(Row(dataset, method, seed, "likelihood", "nll_stderr", 99.0, "bits/dim", **closed))
    rows.append(Row(dataset, method, seed, "likelihood", "nll_own", 0.25 + seed, "bits/dim", **solved))
    rows.append(Row(dataset, method, seed, "likelihood", "nfe_likelihood", 44.0, "evaluations", **solved))
    rows.append(Row(dataset, method, seed, "likelihood", "nll_own_closed_form", 0.125 + seed, "bits/dim", **closed))
    return rows


def test_an_oracle_is_in_the_table_and_never_in_bold(digits_rows, tmp_path):
    """It has learnt nothing: the lowest of the trained methods stays the best, the oracle's numbers beside it."""
    known = [row for seed in (0, 1) for row in oracle("digits", "oracle_ot", seed, 0.5, 0.25, 8.0)]
    spec = SPEC | {"methods": ["oracle_ot", "ddpm", "fm_ot"], "oracles": ["oracle_ot"]}
    rows = frame(known + digits_rows, tmp_path)
    table = table1(rows, spec)
    (csv_row, *_) = csv.DictReader(io.StringIO(to_csv(table)))
    assert (csv_row["method"], csv_row["seeds"], csv_row["status"]) == ("oracle_ot", "2", "ok")
    assert (csv_row["nll_mean"], csv_row["fid_mean"], csv_row["nfe_mean"], csv_row["paper_nll"]) == ("0.5", "0.25", "8", "")
    text = markdown(table, rows, spec)
    assert "| Oracle, OT path | 0.500 ± 0.000 | 0.25 ± 0.00 | 8.0 ± 0.0 | 0.700 | ok |" in text
    assert "| FM, OT path | **2.300 ± 0.000** | **8.50 ± 0.71** | **55.0 ± 7.1** | 0.700 | ok |" in text
    assert text.count("**") == 6
    tabular = latex(table, spec)
    assert r"Oracle, OT path & 0.500 $\pm$ 0.000 & 0.25 $\pm$ 0.00 & 8.0 $\pm$ 0.0 \\" in tabular
    assert tabular.count(r"\textbf") == 3
    assert markdown(table1(rows, spec | {"oracles": []}), rows, spec | {"oracles": []}).count("| **0.500") == 1


def test_what_is_said_of_the_likelihood_is_of_the_trained_and_of_oracles_apart(digits_rows, tmp_path):
    """An oracle listed first must not lend its solver and its standard error to the others' note."""
    known = [row for seed in (0, 1) for row in oracle("digits", "oracle_vp", seed, 0.5, 0.25, 8.0)]
    spec = SPEC | {"methods": ["oracle_vp", "ddpm", "fm_ot"], "oracles": ["oracle_vp"]}
    rows = frame(known + digits_rows, tmp_path)
    text = markdown(table1(rows, spec), rows, spec)
    assert "NLL over 360 test samples, dopri5_shared, hutchinson rademacher x1, rtol = atol = 1e-05" in text
    assert "standard error over test samples is 0.010" in text
    (note,) = [line for line in text.splitlines() if "no network and nothing learnt" in line]
    known = "Oracle, diffusion path: the closed-form field of 1437 points of the training set, a Gaussian about each"
    for fragment in (f"{known} (standard deviation 0.034),", "not in bold", "closed form", "0.750", "0.625"):
        assert fragment in note
    less = rows[~rows.metric.isin(["images_seen", "bandwidth"])]
    assert "field of points of the training set, a Gaussian about each," in markdown(table1(less, spec), less, spec)
    without = frame(digits_rows, tmp_path)
    assert "closed-form" not in markdown(table1(without, SPEC), without, SPEC)


def test_a_table_of_oracles_alone(tmp_path):
    spec = SPEC | {"methods": ["oracle_ot"], "oracles": ["oracle_ot"], "seeds": [0]}
    rows = frame(floors("digits") + oracle("digits", "oracle_ot", 0, 0.5, 0.25, 8.0), tmp_path)
    table = table1(rows, spec)
    text = markdown(table, rows, spec)
    assert "| Oracle, OT path | 0.500 | 0.25 | 8.0 | 0.700 | ok |" in text
    assert "**" not in text and " nan" not in text and "textbf" not in latex(table, spec)


# Table 4


SPEC4: dict[str, Any] = {
    "stage": "table4",
    "datasets": ["cifar10", "tall"],
    "methods": ["ddpm", "fm_ot"],
    "seeds": [0, 1],
    "draws": {"cifar10": [1, 20, 50], "tall": [1, 3]},
}


def draws_rows(dataset: str, method: str, seed: int, draws: list[int], nll: float | None, exact: bool = False) -> list[Row]:
    """Rows of the stage ``dequantisation``: the paper's estimator falls faster by what the probe's noise gives it."""
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
    assert list(rows[0]) == table4.COLUMNS
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


def test_table_4_for_reading(cifar10_rows, tmp_path):
    write_table4(cifar10_rows, SPEC4, tmp_path / "table4.csv")
    text = (tmp_path / "table4.md").read_text()
    assert "| Method | Estimator | K = 1 | K = 20 | K = 50 | Probe bias at K = 50 |" in text
    averaged = "**3.300 ± 0.071** (3.11) | **3.270 ± 0.071** (3.01) | **3.261 ± 0.071** (2.99) | -0.0024"
    assert f"| FM, OT path | probes averaged first | {averaged} |" in text
    papers = "**3.300 ± 0.071** (3.11) | **3.240 ± 0.071** (3.01) | **3.222 ± 0.071** (2.99) | "
    assert f"| FM, OT path | the paper's estimator | {papers} |" in text
    assert {row.count("|") for row in text.splitlines() if row.startswith("|")} == {7}
    for fragment in (
        "Over the first 64 test images (standard error 0.005)",
        "over 2 seeds",
        "Probes averaged first: 4 a draw",
        "image is 0.040",
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


def test_table_4_says_what_diverged(tmp_path):
    rows = draws_rows("tall", "ddpm", 0, [1, 3], None) + draws_rows("tall", "ddpm", 1, [1, 3], 2.5)
    write_rows(tmp_path / "rows.parquet", rows)
    table = write_table4([tmp_path / "rows.parquet"], SPEC4, tmp_path / "table4.csv")
    assert set(table.status) == {f"seed 0: training diverged: {REASON}"} and set(table.seeds) == {1}
    assert table.nll_mean[0] == 2.6 and table.nll_std.isna().all()
    text = (tmp_path / "table4.md").read_text()
    assert text.count(f"* DDPM: seed 0: training diverged: {REASON}") == 1 and "such a mean is over the other seeds" in text
    write_rows(tmp_path / "rows.parquet", draws_rows("tall", "ddpm", 0, [1, 3], None))
    table = write_table4([tmp_path / "rows.parquet"], SPEC4 | {"seeds": [0]}, tmp_path / "table4.csv")
    assert set(table.seeds) == {0} and table.nll_mean.isna().all()
    text = (tmp_path / "table4.md").read_text()
    assert "| DDPM | probes averaged first | - | - |  |" in text
    assert "nan" not in text.replace(REASON, "")


def test_table_4_of_no_images(tmp_path):
    table = write_table4([], SPEC4 | {"datasets": [], "draws": {}}, tmp_path / "table4.csv")
    assert table.empty and (tmp_path / "table4.csv").read_text() == ",".join(table4.COLUMNS) + "\n"
    assert "No data set of images with a trained method." in (tmp_path / "table4.md").read_text()
    assert (tmp_path / "table4.tex").exists()


def test_table_4_without_one_of_the_ks(tmp_path):
    """By hand, from rows of before the config had it."""
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


def test_the_paper_module_is_the_only_place_of_its_numbers():
    assert set(paper("table1").columns) == {"dataset", "method", "nll_bpd", "fid", "nfe"}
    assert table1_module.COLUMNS is COLUMNS
