"""Layout shared by the tables, Tables 2 and 3, and the settings that Table 3 is made from."""

import csv
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from user_code import command

from fmbench.errors import DataError
from fmbench.report.claims import falls_with_draws
from fmbench.report.layout import LATEX, NONE, beside, latex_table, markdown_table, notes, paper, spread, tex
from fmbench.report.table2 import METRICS, missing, table2, write_table2
from fmbench.report.table3 import PAPERS, show, table3, write_table3
from fmbench.report.table4 import COLUMNS, write_table4
from fmbench.stages.settings import SETTINGS, used_settings
from fmbench.store.files import write_json
from fmbench.store.records import Row, read_table, write_rows, write_table

# Layout


@pytest.mark.parametrize(
    ("mean", "std", "best", "text"),
    [
        (1.234, 0.05, False, "1.23 ± 0.05"),
        (1.234, None, True, "**1.23**"),
        (1.0, float("nan"), False, "1.00"),
        (None, None, True, NONE),
        (float("nan"), 1.0, True, NONE),
    ],
)
def test_a_number_with_its_spread(mean, std, best, text):
    assert spread(mean, std, 2, best=best) == text


def test_a_number_in_latex_and_the_papers_beside_it():
    assert spread(2.5, 0.25, 1, LATEX, True) == r"\textbf{2.5 $\pm$ 0.2}"
    assert (beside("1.0", 2.99), beside("1.0", None), beside("-", float("nan"))) == ("1.0 (2.99)", "1.0", "-")


def test_latex_escapes_every_character_of_its_own_once():
    assert tex(r"a\b{c}_d%e&f#g$h~i^j") == (r"a\textbackslash{}b\{c\}\_d\%e\&f\#g\$h\textasciitilde{}i\textasciicircum{}j")
    assert tex("1 ± 2 < 3\n≤ 4") == r"1 $\pm$ 2 $<$ 3 $\le$ 4"
    assert tex("plain, text (1.5)") == "plain, text (1.5)"


def test_a_cell_cannot_end_a_markdown_table():
    lines = markdown_table(["a", "b"], [["x | y", "two\nlines"]])
    assert lines == ["| a | b |", "|---|---|", r"| x \| y | two lines |"]
    assert notes(["one\ntwo"]) == ["", "* one two", ""]


def balanced(text: str) -> bool:
    """Braces and environments are closed in the order they were opened, outside escapes."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            return False
    return depth == 0 and not opened


def columns_fit(text: str) -> bool:
    """Every row of every tabular has the columns that it declares."""
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in body.splitlines():
            if line.endswith(r"\\") and len(re.findall(r"(?<!\\)&", line)) != len(columns) - 1:
                return False
    return r"\begin{tabular}" in text


def test_the_check_of_latex_sees_what_is_wrong():
    good = "\n".join(latex_table("lr", [r"a & b \\"], [["1", "2"], None, ["x", r"\&"]], ["a note"]))
    assert balanced(good) and columns_fit(good) and good.count(r"\midrule") == 2
    assert good.index(r"\end{tabular}") < good.index("a note")
    assert not balanced(good.replace(r"\end{tabular}", "")) and not balanced(good + "}")
    assert not columns_fit(good.replace(r"1 & 2", "1"))


# Table 2


def sharp_rows(method: str, seed: int, features: str = "pytorch-fid InceptionV3(2048)", **values: float | None) -> list[Row]:
    rows = []
    for metric, value in values.items():
        bad = {} if value is not None else {"status": "skipped", "reason": "training diverged: a_b"}
        rows.append(Row("super", method, seed, "sample_quality", metric, value, "u", n=500, features=features, **bad))
    return rows


def records(rows: list[Row], folder: Path) -> Path:
    write_rows(folder / "records.parquet", rows)
    return folder / "records.parquet"


def test_without_super_resolution_the_paper_stands_alone_and_it_is_said(tmp_path):
    # A Frechet distance and an inception score are no super-resolution.
    plain = [Row("digits", "fm_ot", 0, "sample_quality", m, 1.0, "u") for m in ("frechet", "inception_score")]
    table = write_table2(records(plain, tmp_path), tmp_path / "table2.csv")
    printed = paper("table2").set_index("model")
    assert list(table.model) == list(printed.index) and set(table.source) == {"paper"}
    for row in table.itertuples():
        for column in METRICS:
            ours, theirs = getattr(row, f"{column}_mean"), printed.loc[row.model, column]
            assert ours == theirs or (pd.isna(ours) and pd.isna(theirs))
    assert "Ours is not run" in missing(table)
    for kind in (".md", ".tex"):
        assert "Ours is not run" in (tmp_path / "table2").with_suffix(kind).read_text()
    assert "| FM, OT path | **3.4** | **200.8** | 24.7 | 0.747 |" in (tmp_path / "table2.md").read_text()


def test_rows_of_super_resolution_are_a_table_of_their_own(tmp_path):
    rows = []
    for seed, shift in ((0, 0.0), (1, 2.0)):
        rows += sharp_rows("fm_ot", seed, frechet=4 + shift, inception_score=100.0, psnr=25 + shift, ssim=0.7)
        rows += sharp_rows("mine", seed, frechet=9.0, psnr=20 + shift, ssim=0.9)
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    ours = table[table.source == "ours"].set_index("model")
    assert (ours.loc["fm_ot"].fid_mean, ours.loc["fm_ot"].fid_std) == (5.0, pytest.approx(2**0.5))
    assert (ours.loc["fm_ot"].psnr_mean, ours.loc["fm_ot"].seeds, ours.loc["fm_ot"].n) == (26.0, 2, 500)
    assert (ours.loc["fm_ot"].status, ours.loc["mine"].status) == ("ok", "no IS")
    assert missing(table) == ""
    text = (tmp_path / "table2.md").read_text()
    assert "| Model | FID | IS | PSNR | SSIM |" in text.split("## super")[1] and "Ours is not run" not in text
    assert "| FM, OT path | **5.0 ± 1.4** | **100.0 ± 0.0** | **26.0 ± 1.4** | 0.700 ± 0.000 |" in text
    assert "| mine | 9.0 ± 0.0 | - | 21.0 ± 1.4 | **0.900 ± 0.000** |" in text and "* mine: no IS." in text
    latex = (tmp_path / "table2.tex").read_text()
    assert balanced(latex) and columns_fit(latex) and latex.count(r"\toprule") == 2


def test_other_features_are_not_called_fid_and_what_is_lost_is_said(tmp_path):
    rows = sharp_rows("fm_ot", 0, "classifier(64)", frechet=4.0, psnr=25.0, ssim=0.7, inception_score=1.0)
    rows += sharp_rows("fm_ot", 1, "classifier(64)", frechet=None, psnr=None, ssim=None, inception_score=None)
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    own = (tmp_path / "table2.md").read_text().split("## super")[1]
    assert "| Model | Frechet | IS |" in own and "classifier(64)" in own
    assert "PSNR, seed 1: training diverged: a_b" in table.status.iloc[-1] and table.seeds.iloc[-1] == 1
    latex = (tmp_path / "table2.tex").read_text()
    assert r"training diverged: a\_b" in latex and balanced(latex) and columns_fit(latex)


def test_table_2_by_the_command(tmp_path):
    path = records([Row("digits", "fm_ot", 0, "sample", "nfe", 1.0, "u")], tmp_path)
    said = command("table2", "--records", path, "--out", tmp_path / "table2.csv", "--progress", "lines")
    assert said.code == 0 and "Ours is not run" in said.err and "0 rows of ours, 4 of the paper" in said.err
    assert len(list(csv.DictReader((tmp_path / "table2.csv").read_text().splitlines()))) == 4


# Table 4: the probes' noise

SPEC4: dict[str, Any] = {"datasets": ["d"], "methods": ["ddpm", "fm_ot"], "seeds": [0, 1], "draws": {"d": [1, 5]}, "of": "x"}


def over_draws(variances: dict[str, float]) -> list[Row]:
    """NLL over draws with a probe bias of -0.02 at K = 5, by the variance that the probes leave in each method's log p."""
    rows = []
    for (method, variance), seed, k in itertools.product(variances.items(), (0, 1), (1, 5)):
        values = {"nll_averaged": 3 - 0.1 * (k > 1) + 0.001 * seed, "nll_paper": 3 - 0.2 * (k > 1) + 0.001 * seed}
        values |= {"nll_probe_bias": -0.02 * (k > 1), "nll_probe_std": 0.07, "nll_probe_variance": variance}
        for metric, value in values.items():
            probes = 1 if metric == "nll_paper" else 4
            rows.append(Row("d", method, seed, "dequantisation", metric, value, "u", n=16, draws=k, probes=probes))
    return rows


def test_a_probe_bias_is_a_least_value_where_the_noise_is_large(tmp_path):
    write_rows(tmp_path / "rows.parquet", over_draws({"ddpm": 9.25, "fm_ot": 0.5}))
    table = write_table4([tmp_path / "rows.parquet"], SPEC4, tmp_path / "table4.csv")
    assert list(table.columns) == [*COLUMNS, "probe_variance"]
    assert table[table.estimator == "averaged"].probe_variance.tolist() == [9.25, 9.25, 0.5, 0.5]
    text = (tmp_path / "table4.md").read_text()
    last = [line.split(" | ")[-1] for line in text.splitlines() if "probes averaged first |" in line]
    assert last == ["-0.0200 at least |", "-0.0200 |"]
    assert "(a variance of 9.2 nats² in a draw's log p), that is too little" in text and "times that" not in text


def test_a_probe_bias_of_little_noise_is_what_it_says(tmp_path):
    write_rows(tmp_path / "rows.parquet", over_draws({"ddpm": 0.75, "fm_ot": 0.5}))
    write_table4([tmp_path / "rows.parquet"], SPEC4, tmp_path / "table4.csv")
    text = (tmp_path / "table4.md").read_text()
    assert "at least" not in text and "to second order; the paper's estimator has about 4 times that." in text


@pytest.mark.parametrize(("variance", "taken", "papers"), [(9.25, True, "at least 0.02"), (0.5, False, "about 0.08")])
def test_claim_10_says_where_the_probes_do_more_than_is_taken_off(tmp_path, variance, taken, papers):
    write_rows(tmp_path / "rows.parquet", over_draws({"ddpm": variance, "fm_ot": variance}))
    frame = read_table(tmp_path / "rows.parquet").to_pandas()
    averaged, one = falls_with_draws({"dequantisation": frame})
    assert ("taken off, which is too little at a variance of 9.2 nats^2" in averaged.why) == taken
    assert "is estimated and taken off" in averaged.why
    assert f"lowers the number too, the more the larger K: by {papers} at K = 5, which is no likelihood" in one.why


# Settings and Table 3

NETWORK = {"kind": "unet", "channels": 256, "channels_multiple": [1, 2, 2, 2], "attention_resolutions": [16], "dropout": 0.0}
TRAINING = {
    "iterations": 391000,
    "batch_size": 256,
    "learning_rate": 5e-4,
    "schedule": "polynomial",
    "warmup_iterations": 45000,
    "ema_decay": 0.9999,
    "clip_norm": None,
}


def results_of(folder: Path, dataset: str = "cifar10", rates: dict[str, float] | None = None) -> list[tuple[str, str, int]]:
    """A results folder with what Table 3 is made from: manifests and the models' configs."""
    write_json(folder / "data" / dataset / "manifest.json", {"splits": {"train": {"n": 50000}, "test": {"n": 10000}}})
    models = [(dataset, m, s) for m in ("ddpm", "fm_ot", "oracle_ot") for s in (0, 1)]
    for _, name, seed in models:
        path = {"name": "ot", "parameters": {"sigma_min": 0.0001}} if name != "ddpm" else {"name": "vp", "parameters": {}}
        spec: dict[str, Any] = {"stage": "train", "dataset": dataset, "data": "hash", "seed": seed, "device": "cuda"}
        spec["method"] = {"name": name, "path": path, "prediction": {"name": "velocity", "parameters": {}}, "oracle": None}
        if name != "oracle_ot":
            spec |= {"network": NETWORK, "training": TRAINING | {"learning_rate": (rates or {}).get(name, 5e-4)}}
        config = {
            "spec": spec,
            "spec_hash": "a",
            "code_hash": "b",
            "shape": [3, 32, 32],
            "parameters": 100,
            "step": 9,
            "reason": "",
        }
        write_json(folder / "models" / dataset / name / str(seed) / "config.json", config)
    return models


def test_settings_are_tidy_and_those_of_the_models_own_configs(tmp_path):
    table = used_settings(tmp_path, results_of(tmp_path))
    assert table.schema.equals(SETTINGS)
    frame = table.to_pandas()
    one = frame[(frame.method == "ddpm") & (frame.seed == 1)].set_index("key").value.map(json.loads)
    assert (one["training.learning_rate"], one["network.channels_multiple"], one["device"]) == (5e-4, [1, 2, 2, 2], "cuda")
    assert (one["method.path.name"], one["data.train"], one["parameters"], one["seed"]) == ("vp", 50000, 100, 1)
    assert one["training.clip_norm"] is None
    oracle = frame[frame.method == "oracle_ot"]
    assert not oracle.key.str.startswith("training.").any() and frame.groupby(["method", "seed"]).ngroups == 6


def test_settings_of_a_model_that_is_not_there(tmp_path):
    models = results_of(tmp_path)
    (tmp_path / "models" / "cifar10" / "ddpm" / "1" / "config.json").unlink()
    with pytest.raises(DataError, match="is missing"):
        used_settings(tmp_path, models)


def write_settings(folder: Path, **arguments: Any) -> Path:
    write_table(folder / "settings.parquet", used_settings(folder, results_of(folder, **arguments)))
    return folder / "settings.parquet"


def test_the_settings_used_stand_beside_the_papers(tmp_path):
    table = write_table3(write_settings(tmp_path), tmp_path / "table3.csv").set_index("setting")
    for setting, ours, theirs in (
        ("channels", "256", "256"),
        ("channels_multiple", "1,2,2,2", "1,2,2,2"),
        ("attention_resolution", "16", "16"),
        ("effective_batch_size", "256", "256"),
        ("gpus", "1", "2"),
        ("iterations", "391000", "391000"),
        ("learning_rate", "0.0005", "5e-4"),
        ("warmup_steps", "45000", "45000"),
        ("heads", NONE, "4"),
        ("precision", NONE, "float32"),
    ):
        assert (table.loc[setting].ours, table.loc[setting].paper) == (ours, theirs)
    assert float(table.loc["epochs"].ours) == pytest.approx(391000 * 256 / 50000, rel=1e-3)
    # What the paper's table lacks follows: everything that was used, and each method's own parts.
    assert (table.loc["training.ema_decay"].ours, table.loc["parameters"].ours) == ("0.9999", "100")
    assert table.loc["path"].ours == "vp: ddpm; ot (sigma_min 0.0001): fm_ot"
    assert not {"seed", "data", "step", "reason"} & set(table.index) and "oracle_ot" not in table.loc["path"].ours
    assert list(table.index[: len(PAPERS)]) == list(paper("table3").setting) == list(PAPERS)


def test_methods_that_differ_are_named(tmp_path):
    table = write_table3(write_settings(tmp_path, rates={"ddpm": 1e-3}), tmp_path / "table3.csv").set_index("setting")
    assert table.loc["learning_rate"].ours == "0.001: ddpm; 0.0005: fm_ot"
    assert json.loads(table.loc["learning_rate"].by_method) == {"ddpm": "0.001", "fm_ot": "0.0005"}
    assert table.loc["iterations"].by_method == ""
    text = (tmp_path / "table3.md").read_text()
    assert "| learning rate | 0.001: DDPM; 0.0005: FM, OT path | 5e-4 |" in text
    latex = (tmp_path / "table3.tex").read_text()
    assert balanced(latex) and columns_fit(latex) and latex.count(r"\midrule") == 2 and "sigma\\_min" in latex


def test_what_differs_between_seeds_has_each_of_its_values(tmp_path):
    """As sets of two machines have it after `merge --allow device`."""
    path = write_settings(tmp_path)
    settings = read_table(path).to_pandas()
    settings.loc[(settings.key == "device") & (settings.seed == 1), "value"] = json.dumps("cpu")
    write_table(path, pa.Table.from_pandas(settings, preserve_index=False))
    table = write_table3(path, tmp_path / "table3.csv").set_index("setting")
    assert (table.loc["device"].ours, table.loc["gpus"].ours) == ("cuda or cpu", "1 or 0")
    assert "what is not the same for every seed has each of its values" in (tmp_path / "table3.md").read_text()


def test_a_data_set_that_the_paper_does_not_have(tmp_path):
    table = write_table3(write_settings(tmp_path, dataset="digits"), tmp_path / "table3.csv")
    assert set(table.paper) == {NONE}
    assert "The paper has no data set of this name." in (tmp_path / "table3.md").read_text()


def test_the_command_of_table_3_on_somebodys_settings(tmp_path):
    path = write_settings(tmp_path)
    said = command("table3", "--settings", path, "--out", tmp_path / "out" / "table3.csv", "--progress", "lines")
    assert said.code == 0 and f"-> {tmp_path / 'out' / 'table3.csv'}, table3.md, .tex" in said.err
    said = command("table3", "--settings", tmp_path / "none.parquet", "--out", tmp_path / "t.csv")
    assert said.code == 3 and "is missing" in said.err


def test_nothing_trained_is_a_table_of_nothing(tmp_path):
    frame = read_table(write_settings(tmp_path)).to_pandas()
    assert table3(frame[frame.method == "oracle_ot"]).empty


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (True, "yes"), (1e-8, "1e-08"), (0.0, "0"), ([], "none"), ([1, 2], "1,2"), ("x", "x")]
)
def test_a_value_in_print(value, text):
    assert show(value) == text


def test_table_2_takes_nothing_from_rows_without_a_method():
    floor = pd.DataFrame([{"dataset": "d", "method": "", "metric": "psnr", "value": 1.0, "status": "ok", "seed": 0}])
    assert set(table2(floor).source) == {"paper"}
