"""Table 1 as Markdown and LaTeX: its cells, the notes below it, the further measures and the oracles."""

import csv
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from table_rows import FEATURES, SPEC, floors, frame, image, model, oracle, points

from fmbench.metrics import extractors, inception
from fmbench.report.layout import paper, to_csv
from fmbench.report.table1.latex import latex
from fmbench.report.table1.markdown import markdown
from fmbench.report.table1.numbers import PUBLISHED, table1
from fmbench.store.records import Row


def test_markdown_is_a_section_per_data_set_with_the_best_in_bold(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    text = markdown(table1(rows, SPEC), rows, SPEC)
    assert "## digits" in text
    assert "| Method | NLL (bits/dim) | Frechet | NFE | Sample std | Status |" in text
    assert "| DDPM | 2.700 ± 0.141 [0.010] | 12.00 ± 2.83 | 105.0 ± 7.1 | 0.850 | ok |" in text
    assert "| FM, OT path | **2.300 ± 0.000 [0.010]** | **8.50 ± 0.71** | **55.0 ± 7.1** | 0.700 | ok |" in text
    assert text.count("**") == 6
    main = text.partition("### ")[0]
    widths = {line.count("|") for line in main.splitlines() if line.startswith("|")}
    assert widths == {7}


def test_the_notes_name_what_the_numbers_rest_on(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    text = markdown(table1(rows, SPEC), rows, SPEC)
    for fragment in (
        "over 2 seeds",
        "NLL: 360 test samples, dopri5_shared, hutchinson rademacher x1, rtol = atol = 1e-05",
        "the standard error of one seed's number over its samples",
        "so the ± of NLL does not contain its standard error",
        "mean over 720 samples",
        "NFE, shared step: dopri5 with one step size for a batch of 128 samples",
        f"720 samples against train, n = 1437, sha256 abc, in the features of the {FEATURES}.",
        "The classifier's test accuracy is 97.5%.",
        "Frechet does not compare with FID",
        "| Method | NFE, shared step | Frechet, n = 360 |",
        "| DDPM | 115 | 13.00 |",
        "| FM, OT path | 65 | 9.50 |",
        "| Real data | - | 0.50 |",
        "Real data: 360 test samples against the training set.",
        "The classifier was trained on the same training set",
        "That of the data is 0.710",
    ):
        assert fragment in text


def test_the_sampling_error_of_each_number_is_in_square_brackets(digits_rows, tmp_path):
    """Frechet distances 10 and 14 with errors 1 and 3: 12.00 ± 2.83 [2.00]. Results of earlier versions have no such rows."""
    errors = [
        *(Row("digits", "ddpm", s, "sample_quality", "frechet_stderr", 1.0 + 2 * s, "", n=720) for s in (0, 1)),
        *(Row("digits", "ddpm", s, "sample", "nfe_stderr", 0.5, "", n=720) for s in (0, 1)),
    ]
    rows = frame(digits_rows + errors, tmp_path)
    table = table1(rows, SPEC)
    assert table[["nll_stderr", "fid_stderr", "nfe_stderr"]].iloc[0].tolist() == [0.01, 2.0, 0.5]
    assert table.energy_distance_stderr.isna().all() and pd.isna(table.fid_stderr[1])
    text = markdown(table, rows, SPEC)
    assert "| DDPM | 2.700 ± 0.141 [0.010] | 12.00 ± 2.83 [2.00] | 105.0 ± 7.1 [0.5] | 0.850 | ok |" in text
    assert r"12.00 $\pm$ 2.83 [2.00] & 105.0 $\pm$ 7.1 [0.5] \\" in latex(table, SPEC)
    without = frame([row for row in digits_rows if not row.metric.endswith("_stderr")], tmp_path)
    plain = markdown(table1(without, SPEC), without, SPEC)
    assert "| DDPM | 2.700 ± 0.141 | 12.00 ± 2.83 | 105.0 ± 7.1 |" in plain and "standard error" not in plain


def test_the_floor_of_points_has_its_error(tmp_path):
    error = Row("board", "", 0, "features", "energy_distance_stderr_floor", 0.00035, "data units", n=4000)
    rows = frame([*floors("board", images=False), error, *points("fm_ot", 0, 2.4, 0.002, 50)], tmp_path)
    spec = SPEC | {"datasets": ["board"], "seeds": [0]}
    assert "training points to the test points is 12.30 [3.50], in the same unit." in markdown(table1(rows, spec), rows, spec)


def test_the_tolerances_are_both_named_when_they_differ(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    rows.loc[rows.rtol.notna(), "atol"] = 1e-3
    assert "rtol = atol = 1e-05" not in markdown(table1(rows, SPEC), rows, SPEC)


def test_a_distance_on_other_features_is_never_called_fid(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    table = table1(rows, SPEC)
    for text in (markdown(table, rows, SPEC), latex(table, SPEC)):
        assert "FID" not in text.replace("does not compare with FID", "")
        assert FEATURES.replace("_", r"\_") in text or FEATURES in text


@pytest.mark.parametrize("features", ["inception(2015-12-05)", "my InceptionV3", "not pytorch-fid InceptionV3(pool3)"])
def test_a_name_like_inceptions_is_not_enough(features, digits_rows, tmp_path):
    rows = frame([replace(r, features=features) if r.metric.startswith("frechet") else r for r in digits_rows], tmp_path)
    table = table1(rows, SPEC)
    assert "| Frechet |" in markdown(table, rows, SPEC) and "& Frechet &" in latex(table, SPEC)


def quality_rows(values: dict[str, float], features: str) -> list[Row]:
    """Rows of quality of two methods and seeds, of real data, and of a second extractor."""
    rows = [Row("digits", "", 0, "features", f"{m}_floor", v / 2, "", n=360, features=features) for m, v in values.items()]
    for seed, method in ((s, m) for s in (0, 1) for m in ("ddpm", "fm_ot")):
        better = 1 if method == "ddpm" else 2
        for metric, value in values.items():
            reference = "train, n = 1437, sha256 abc" + ("; 7 subsets of 360 out of 1437" if metric.startswith("kid") else "")
            row = Row("digits", method, seed, "sample_quality", metric, (value + seed) / better, "", n=720, reference=reference)
            rows.append(replace(row, features=features))
        rows.append(Row("digits", method, seed, "sample_quality", "frechet/mine:NET", 40 + seed, "", n=720, features="my net"))
    return rows


def test_a_model_that_copies_is_named_with_the_reason(digits_rows, tmp_path):
    """By the means over seeds: those of DDPM are -6 and 0.4, those of FM-OT -4.5 and 0.9, and those of the oracle 0 and 0.1."""
    found = {"ddpm": ((-10, 0.2), (-2, 0.6)), "fm_ot": ((-5, 1.0), (-4, 0.8)), "oracle_ot": ((1, 0.1), (-1, 0.1))}
    rows = [
        Row("digits", method, seed, "sample_quality", metric, value, "", n=720, features=FEATURES, reference="train, n = 1437")
        for method, seeds in found.items()
        for seed, pair in enumerate(seeds)
        for metric, value in zip(("c_t", "train_distance_ratio"), pair, strict=True)
    ]
    rows += [Row("digits", "", 0, "features", "c_t_floor", 0.66, "", n=180, features=FEATURES)]
    records = frame(digits_rows + rows, tmp_path)
    text = markdown(table1(records, SPEC), records, SPEC)
    assert "| C_T | Distance to train |" in text and "| -6.0 | 0.40 |" in text and "| 0.7 | - |" in text
    assert "* DDPM copies its training set: its C_T is -6.0, its distance to train 0.40." in text
    assert "* FM, OT path is nearer to its training set than fresh data: its C_T is -4.5, its distance to train 0.90." in text
    assert "oracle copies" not in text.lower() and text.count("its C_T is") == 2


def test_with_inceptions_features_it_is_the_fid_and_the_notes_say_so(digits_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "load_inception", lambda *_: SimpleNamespace(logits=None))
    features = extractors.inception(torch.device("cpu")).name
    values = {"frechet": 5.0, "kid": 0.004, "kid_std": 0.002, "precision": 0.5, "recall": 0.25, "inception_score": 8.0}
    others = [r for r in digits_rows if r.stage not in ("sample_quality", "features")]
    rows = frame(others + quality_rows(values, features), tmp_path)
    table = table1(rows, SPEC)
    assert table.kid_mean.tolist() == pytest.approx([0.504, 0.252]) and table.kid_std[0] == pytest.approx(0.5**0.5)
    text = markdown(table, rows, SPEC)
    assert "| FID |" in text and "& FID &" in latex(table, SPEC) and "does not compare" not in text
    assert f"* FID: 720 samples against train, n = 1437, sha256 abc, in the features of the {features}." in text
    assert "test accuracy" not in text and "The classifier" not in text
    columns = "NFE, shared step | FID, n = 360 | KID (1e-3) | Precision | Recall | Inception Score | Frechet, mine:NET |"
    assert f"| Method | {columns}" in text
    assert "| DDPM | 115 | - | 504.000 | 1.000 | 0.750 | 8.50 | 40.50 |" in text
    assert "| FM, OT path | 65 | - | 252.000 | 0.500 | 0.375 | 4.25 | 40.50 |" in text
    assert "| Real data | - | 2.50 | 2.000 | 0.250 | 0.125 | 4.00 | - |" in text
    assert "* Real data: 360 test samples against the training set." in text
    assert "* KID: mean over 7 subsets of 360 out of 1437 samples, in the same features. They spread by " in text
    assert "* KID is unbiased at every n, so it may fall below 0." in text
    assert "* Precision and recall: 720 samples against as many real ones." in text
    assert "* Frechet, mine:NET: 720 samples, in features of the my net." in text


def test_a_further_distance_that_no_training_reached_has_neither_a_column_nor_a_note(digits_rows, tmp_path):
    lost = Row(
        "digits",
        "ddpm",
        0,
        "sample_quality",
        "frechet/mine:NET",
        None,
        "",
        status="diverged",
        reason="loss is nan",
        features="my net",
    )
    records = frame([*digits_rows, lost], tmp_path)
    assert "mine:NET" not in markdown(table1(records, SPEC), records, SPEC)


@pytest.mark.parametrize(("n", "real"), [(720, "2.50"), (360, "-")])
def test_a_distance_of_real_data_with_another_number_of_samples_is_left_out(digits_rows, tmp_path, n, real):
    floor = Row("digits", "", 0, "features", "frechet_floor/mine:NET", 2.5, "", n=n, features="my net")
    records = frame([*digits_rows, *quality_rows({"frechet": 5.0}, FEATURES), floor], tmp_path)
    (row,) = [line for line in markdown(table1(records, SPEC), records, SPEC).splitlines() if line.startswith("| Real data |")]
    assert row.rpartition("|")[0].rpartition("|")[2].strip() == real


def test_a_note_gives_the_spread_by_the_probes(digits_rows, tmp_path):
    assert "probes alone" not in markdown(table1(frame(digits_rows, tmp_path), SPEC), frame(digits_rows, tmp_path), SPEC)
    spread = [Row("digits", "ddpm", seed, "likelihood", "nll_probe_std", 0.25, "bits/dim") for seed in (0, 1)]
    rows = frame(digits_rows + spread, tmp_path)
    text = markdown(table1(rows, SPEC), rows, SPEC)
    assert "* The probes alone give the NLL of one sample a standard deviation of 0.250 bits/dim." in text


def test_points_have_energy_distance_and_support_in_the_place_of_frechet(tmp_path):
    far = [replace(r, value=0.5) if r.metric == "off_support" else r for r in points("ddpm", 0, 2.7, -0.0003, 164)]
    rows = frame(floors("board", images=False) + far + points("fm_ot", 0, 2.4, 0.002, 50), tmp_path)
    spec = SPEC | {"datasets": ["board"], "seeds": [0]}
    table = table1(rows, spec)
    assert table.fid_mean.isna().all() and table.fid_features.isna().all() and table.fid_n.isna().all()
    assert table.energy_distance_mean.tolist() == [-0.0003, 0.002] and table.off_support_mean.tolist() == [0.5, 0.25]
    assert table[["energy_distance_std", "off_support_std"]].isna().all(axis=None)
    text = markdown(table, rows, spec)
    assert "| Method | NLL (nats) | Energy distance (1e-4) | Off support | NFE | Sample std | Status |" in text
    assert "| DDPM | 2.700 [0.020] | -3.00 | 0.500 | 164.0 | 2.000 | ok |" in text  # the lowest energy distance is not in bold
    assert "| FM, OT path | **2.400 [0.020]** | 20.00 | **0.250** | **50.0** | 2.000 | ok |" in text
    assert "over 1 seed. Bold is the lowest mean of the trained methods." in text and "* No energy distance is bold:" in text
    assert "* The energy distance of as many real training points to the test points is 12.30" in text
    assert "The NLL of the true density is 2.079 nats." in text
    assert "FID" not in text and "Frechet" not in text and "dequantisation" not in text
    tabular = latex(table, spec)
    assert r"Method & NLL & Energy ($10^{-4}$) & NFE \\" in tabular
    assert r"FM, OT path & \textbf{2.400 [0.020]} & 20.00 & \textbf{50.0} \\" in tabular
    assert "DDPM & 2.700 [0.020] & -3.00 & 164.0" in tabular
    above = tabular.partition(r"\begin")[0]
    assert "% board: the column after NLL is the energy distance in units of 1e-4." in above
    assert "dequantisation" not in tabular


def test_a_data_set_of_points_keeps_its_columns_if_all_trainings_diverged(tmp_path):
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


def test_a_note_says_that_nll_is_for_one_draw_and_the_papers_for_many(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    text = "NLL is for K = 1 dequantisation draw. The paper's is for its largest K, which gives a lower NLL (see Table 4)."
    table = table1(rows, SPEC)
    assert f"* {text}" in markdown(table, rows, SPEC)
    assert "% NLL of images is for K = 1 dequantisation draw; the paper's is for its largest K." in latex(table, SPEC)


def test_published_methods_are_below_ours(digits_rows, tmp_path):
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
    assert "imagenet128,mgan,,,,,,,,,,,,,,,,,,,,,,,,58.9,,paper only" in to_csv(table)
    text = markdown(table, rows, spec)
    assert "| FM, OT path | **3.000 [0.010]** (2.90) | **30.00** (FID 20.9) | **100.0** | 0.700 | ok |" in text
    assert "| Uncond. BigGAN | - | - (FID 25.3) | - | - | paper only |" in text
    assert "GAN" not in text.split("## imagenet128")[0] and "Where a status" not in text
    tabular = latex(table, spec)
    lines = tabular.splitlines()
    assert r"MGAN & - & - & - & - & - (FID 58.9) & - \\" in lines and tabular.count(r"\midrule") == 2
    last = r"PGMGAN & - & - & - & - & - (FID 21.7) & - \\"
    assert r"\footnotesize" not in tabular and lines.index(last) > lines.index(r"\midrule")
    assert "GAN" not in latex(table1(rows, SPEC), SPEC)


def test_every_published_method_of_the_paper_has_a_name():
    printed = paper("table1")
    assert set(printed.method) - set(printed[printed.dataset == "cifar10"].method) == set(PUBLISHED)


def test_the_papers_number_is_in_brackets(tmp_path):
    rows = frame(floors("cifar10") + image("cifar10", "fm_ot", 0, 3.456, 20.0, 150.0), tmp_path)
    spec = SPEC | {"datasets": ["cifar10"], "methods": ["fm_ot"], "seeds": [0]}
    table = table1(rows, spec)
    assert "**3.456 [0.010]** (2.99) | **20.00** (FID 6.35) | **150.0** (142)" in markdown(table, rows, spec)
    assert r"\textbf{3.456 [0.010]} (2.99) & \textbf{20.00} (FID 6.35) & \textbf{150.0} (142)" in latex(table, spec)


def test_a_method_that_trained_differently_is_named(digits_rows, tmp_path):
    rows = frame(digits_rows, tmp_path)
    spec = SPEC | {"overrides": {"ddpm": {"learning_rate": 0.0005}}}
    assert "DDPM does not train under the common settings: learning_rate = 0.0005." in markdown(table1(rows, spec), rows, spec)


def test_latex_is_a_booktabs_table(digits_rows, tmp_path):
    own = [row for seed in (0, 1) for row in image("digits", "my_method", seed, 2.5, 9.0, 70.0)]
    rows = frame(digits_rows + own + floors("b_2") + image("b_2", "ddpm", 0, 1, 1, 1), tmp_path)
    spec = SPEC | {"datasets": ["digits", "b_2"], "methods": ["ddpm", "fm_ot", "my_method"]}
    lines = latex(table1(rows, spec), spec).splitlines()
    text = "\n".join(lines)
    assert lines[0].startswith("%") and "bits/dim" in lines[0] and FEATURES in lines[0]
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    assert text.count(r"\cmidrule(lr)") == 2 and r"\multicolumn{3}{c}{digits}" in text and r"{b\_2}" in text
    assert r"FM, OT path & \textbf{2.300 $\pm$ 0.000 [0.010]} & \textbf{8.50 $\pm$ 0.71} & \textbf{55.0 $\pm$ 7.1}" in text
    assert r"my\_method &" in text
    body = [line for line in lines if line.endswith(r"\\") and not line.startswith(" &")]
    assert {line.count("&") for line in body} == {6}
    assert not re.search(r"(?<!\\)[_#]", "\n".join(lines[1:]))


def test_an_oracle_is_in_the_table_and_never_in_bold(digits_rows, tmp_path):
    """It learns nothing, so the lowest of the trained methods stays bold."""
    known = [row for seed in (0, 1) for row in oracle("digits", "oracle_ot", seed, 0.5, 0.25, 8.0)]
    spec = SPEC | {"methods": ["oracle_ot", "ddpm", "fm_ot"], "oracles": ["oracle_ot"]}
    rows = frame(known + digits_rows, tmp_path)
    table = table1(rows, spec)
    (csv_row, *_) = csv.DictReader(io.StringIO(to_csv(table)))
    assert (csv_row["method"], csv_row["seeds"], csv_row["status"]) == ("oracle_ot", "2", "ok")
    assert (csv_row["nll_mean"], csv_row["fid_mean"], csv_row["nfe_mean"], csv_row["paper_nll"]) == ("0.5", "0.25", "8", "")
    text = markdown(table, rows, spec)
    assert "| Oracle, OT path | 0.500 ± 0.000 [99.000] | 0.25 ± 0.00 | 8.0 ± 0.0 | 0.700 | ok |" in text
    assert "| FM, OT path | **2.300 ± 0.000 [0.010]** | **8.50 ± 0.71** | **55.0 ± 7.1** | 0.700 | ok |" in text
    assert text.count("**") == 6
    tabular = latex(table, spec)
    assert r"Oracle, OT path & 0.500 $\pm$ 0.000 [99.000] & 0.25 $\pm$ 0.00 & 8.0 $\pm$ 0.0 \\" in tabular
    assert tabular.count(r"\textbf") == 3
    assert markdown(table1(rows, spec | {"oracles": []}), rows, spec | {"oracles": []}).count("| **0.500") == 1


def test_the_notes_on_nll_are_apart_for_trained_methods_and_oracles(digits_rows, tmp_path):
    """The solver is that of a trained method, even where an oracle comes first."""
    known = [row for seed in (0, 1) for row in oracle("digits", "oracle_vp", seed, 0.5, 0.25, 8.0)]
    spec = SPEC | {"methods": ["oracle_vp", "ddpm", "fm_ot"], "oracles": ["oracle_vp"]}
    rows = frame(known + digits_rows, tmp_path)
    text = markdown(table1(rows, spec), rows, spec)
    assert "NLL: 360 test samples, dopri5_shared, hutchinson rademacher x1, rtol = atol = 1e-05" in text
    known = "the closed-form field of 1437 points of the training set, with a Gaussian of standard deviation 0.034 around each"
    assert f"* Oracles (Oracle, diffusion path): {known}." in text
    assert "learns nothing and is never bold." in text and "Its NLL of the test set is in closed form" in text
    assert "| Own NLL, solver | Own NLL, closed form |" in text
    assert "| Oracle, diffusion path | 18 | 1.25 | 0.750 | 0.625 |" in text and "| DDPM | 115 | 13.00 | - | - |" in text
    less = rows[~rows.metric.isin(["images_seen", "bandwidth"])]
    assert "field of points of the training set, with a Gaussian around each." in markdown(table1(less, spec), less, spec)
    without = frame(digits_rows, tmp_path)
    assert "closed-form" not in markdown(table1(without, SPEC), without, SPEC)


def test_a_table_of_oracles_alone(tmp_path):
    spec = SPEC | {"methods": ["oracle_ot"], "oracles": ["oracle_ot"], "seeds": [0]}
    rows = frame(floors("digits") + oracle("digits", "oracle_ot", 0, 0.5, 0.25, 8.0), tmp_path)
    table = table1(rows, spec)
    text = markdown(table, rows, spec)
    assert "| Oracle, OT path | 0.500 [99.000] | 0.25 | 8.0 | 0.700 | ok |" in text
    assert "**" not in text and " nan" not in text and "textbf" not in latex(table, spec)


def test_a_note_on_every_data_set_is_said_once(digits_rows, tmp_path):
    others = [replace(row, dataset="others") for row in digits_rows]
    rows, spec = frame([*digits_rows, *others], tmp_path), SPEC | {"datasets": ["digits", "others"]}
    text = markdown(table1(rows, spec), rows, spec)
    each, _, every = text.partition("## On every data set\n")
    assert "Mean ± standard deviation over 2 seeds" in every
    assert "Mean ±" not in each and text.count("NLL: 360 test samples") == 1
    other = frame([*digits_rows, *(replace(row, n=99) for row in others)], tmp_path)
    each, _, every = markdown(table1(other, spec), other, spec).partition("## On every data set\n")
    assert "NLL: 360 test samples" in each and "NLL: 99 test samples" in each and "NLL: " not in every
