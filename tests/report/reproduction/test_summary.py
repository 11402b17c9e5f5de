"""The sentence on a run: which numbers have the settings of the reference, and what the page and the command say."""

import dataclasses
import re
import shutil

import pandas as pd
import pytest
from result_sets import config, make_results
from user_code import command

from fmbench.report import page
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.compare import LEFT_OUT
from fmbench.report.layout import to_csv
from fmbench.report.page import write_page
from fmbench.report.reproduction import REFERENCE, Summary, summary
from fmbench.report.reproduction.html import LISTED, sentence_html, with_verdicts
from fmbench.report.reproduction.settings import Settings
from fmbench.report.reproduction.verdicts import COLUMNS, NOT_COMPARED
from fmbench.store.benchmark import FILE, read_benchmark

pytestmark = pytest.mark.usefixtures("no_fsync")
EIGHT = list(range(8))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("reference") / "results", config(seeds=EIGHT))


def numbers(folder):
    """The measurements of a result set that are no times and no sizes of a training."""
    records = pd.read_parquet(folder / "records.parquet")
    files = [records, *(pd.read_parquet(path) for path in folder.glob("dequantisation/*/*/*/rows.parquet"))]
    rows = pd.concat(files)
    rows = rows[(rows.method != "") & (rows.unit != "s") & ~rows.metric.isin(LEFT_OUT)]
    return len(rows) / rows.seed.nunique()


def test_seeds_of_the_reference_agree_with_it(reference, whole_run):
    found = summary(whole_run, reference)
    assert found.sentence == f"{numbers(whole_run):g} of {numbers(whole_run):g} numbers agree with the reference (8 seeds)"
    assert found.off == () and list(found.table.columns) == COLUMNS
    assert set(found.table.why) == {"the same values at the same seeds"}


def test_other_seeds_agree_and_a_changed_value_is_off(reference, tmp_path):
    other = make_results(tmp_path / "other", config(seeds=[11, 12]))
    assert summary(other, reference).sentence.endswith("numbers agree with the reference (8 seeds)")
    broken = make_results(
        tmp_path / "broken",
        config(seeds=[11, 12]),
        change=lambda row: {"value": 40 * row.value} if row.metric == "mse" and row.solver == "euler" else {},
    )
    found = summary(broken, reference)
    off = found.table[found.table.verdict == "off"]
    assert set(off.solver) == {"euler"} and len(off) == len(found.off) == 12  # two data sets, three methods, two NFE
    assert "; 12 are off" in found.sentence
    assert found.off[0].startswith("board, ddpm: mse with euler at NFE 4 is ") and "squared, not in [" in found.off[0]


def test_a_number_without_a_value_is_named_with_the_reason(reference, tmp_path):
    def lost(row):
        failed = row.dataset == "board" and row.method == "fm_ot" and row.metric == "nll"
        return {"value": None, "status": "diverged", "reason": "nll is nan"} if failed else {}

    found = summary(make_results(tmp_path / "lost", config(seeds=[3]), change=lost), reference)
    assert found.off == ("board, fm_ot: nll with dopri5_shared: no value at 1 of 1 seeds: nll is nan",)
    assert "; 1 is off" in found.sentence


def test_the_sentence_counts_what_both_have_and_cannot_be_compared(reference, tmp_path):
    """Distances in the features of another classifier. Numbers that the reference lacks are not counted."""
    other = make_results(
        tmp_path / "other",
        config(seeds=[11, 12]),
        change=lambda row: {"features": "classifier(elsewhere)"} if row.metric == "frechet" else {},
    )
    found = summary(other, reference)
    left_out = int((found.table.metric == "frechet").sum())
    assert left_out > 0
    assert found.sentence.endswith(f"agree with the reference (8 seeds); {left_out} are not compared (reproduction.csv says why)")
    more = make_results(
        tmp_path / "more", config(seeds=[11, 12]), change=lambda row: {"metric": "new"} if row.metric == "frechet" else {}
    )
    assert "new" in set(summary(more, reference).table.metric) and "not compared" not in summary(more, reference).sentence


# What can be compared


def test_only_jobs_with_the_settings_of_the_reference_are_compared(reference, tmp_path):
    methods = ["fm_ot", {"name": "mine", "path": "cosine_vp", "prediction": "v"}]
    changed = config(seeds=[0, 1], methods=methods, board__training={"iterations": 500})
    found = summary(make_results(tmp_path / "changed", changed), reference).table
    reasons = found[found.unit != "s"].groupby(["dataset", "method"]).why.unique().map(set).to_dict()
    assert reasons["digits", "fm_ot"] == {"the same values at the same seeds"}
    assert reasons["board", "fm_ot"] == {"the settings differ: settings.board.training.iterations"}
    assert reasons["board", "mine"] == {"the reference has no such number"}


def test_a_setting_of_one_stage_leaves_the_other_stages_comparable(reference, tmp_path):
    changed = config(seeds=[0, 1], board__evaluation={"sweep": {"n": 77}})
    found = summary(make_results(tmp_path / "changed", changed), reference).table
    board = found[(found.dataset == "board") & (found.unit != "s")]
    assert set(board[board.verdict == NOT_COMPARED].stage) == {"sweep"}
    assert set(board[board.stage == "sweep"].why) == {"the settings differ: settings.board.evaluation.sweep.n"}


def test_the_seeds_and_the_device_may_differ_and_the_data_may_not(reference, tmp_path):
    on_gpu = make_results(tmp_path / "gpu", config(seeds=[40], device="cuda"))
    assert "numbers agree with the reference" in summary(on_gpu, reference).sentence
    found = summary(make_results(tmp_path / "data", config(), data="other"), reference)
    assert found.sentence == "Not compared with the reference: no number has the settings of the reference"
    settings = Settings(*map(read_benchmark, (reference, tmp_path / "data")))
    assert settings.reason("board", "fm_ot", "sweep") == "the data differ" and not settings.any()


def test_without_a_reference_the_sentence_says_so(whole_run, tmp_path):
    found = summary(whole_run, tmp_path / "nowhere")
    assert found.sentence.startswith("Not compared with the reference: it is in the repository") and found.table.empty
    (tmp_path / FILE).write_text("{")
    assert summary(whole_run, tmp_path).sentence.startswith(f"Not compared with the reference: {tmp_path / FILE}")
    # These results have other data sets than the shipped reference.
    assert summary(whole_run).sentence == "Not compared with the reference: no number has the settings of the reference"


def test_the_shipped_reference_reproduces_itself():
    found = summary(REFERENCE)
    agree, _, count, *_ = found.sentence.split()
    assert agree == count and int(count) > 1000 and not found.off
    assert set(found.verdicts) == {claim.number for claim in CLAIMS}


# The command and the page


def test_the_last_line_of_the_command_is_the_sentence(reference, whole_run, tmp_path):
    out = tmp_path / "reproduction.csv"
    said = command("reproduce", "--results", whole_run, "--reference", reference, "--out", out)
    assert said.code == 0 and said.out.strip() == summary(whole_run, reference).sentence
    table = pd.read_csv(out)
    assert list(table.columns) == COLUMNS and len(table) == len(summary(whole_run, reference).table)
    before = out.stat().st_mtime_ns
    assert command("reproduce", "--results", whole_run, "--reference", reference, "--out", out).code == 0
    assert out.stat().st_mtime_ns == before  # the page depends on its time
    assert command("reproduce", "--results", whole_run, "--out", out).code == 0
    assert list(pd.read_csv(out).columns) == COLUMNS and pd.read_csv(out).empty
    assert command("reproduce", "--results", tmp_path / "nowhere").code == 3


def test_render_compares_an_archive_too(reference, archive, tmp_path, monkeypatch):
    found = summary(reference, reference)
    monkeypatch.setattr(page, "summary", lambda folder: found)
    said = command("render", "--results", archive, "--out", tmp_path / "rendered", "--format", "png")
    assert said.code == 0 and f"render: {found.sentence}\n" in said.err
    assert (tmp_path / "rendered" / "reproduction.csv").read_text() == to_csv(found.table)


def test_the_page_begins_with_the_sentence_and_has_the_verdicts_of_the_reference(whole_run, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    shutil.copytree(whole_run, folder)
    found = Summary("5 of 6 numbers agree", off=("<b>nll</b> is off",), verdicts={2: "holds"}, seeds="8 seeds")
    monkeypatch.setattr(page, "summary", lambda results: found)
    write_page(folder, folder / "index.html", folder / "head.html")
    text, head = ((folder / name).read_text() for name in ("index.html", "head.html"))
    assert text.index("5 of 6 numbers agree.") == text.index("<body>") + len('<body>\n<p class="reproduction">')
    assert "&lt;b&gt;nll&lt;/b&gt; is off" in text and "5 of 6 numbers agree." in head
    rows = [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in head.partition("</table>")[0].split("</tr>")]
    header, *claims = [row for row in rows if row]
    assert header[3:5] == ["Verdict", "Reference (8 seeds)"]
    assert [row[4] for row in claims] == [{2: "holds"}.get(claim.number, "") for claim in CLAIMS]


def test_a_long_list_of_numbers_is_cut_and_unequal_texts_stay_text():
    many = Summary("None agree", off=tuple(f"number {i}" for i in range(LISTED + 1)))
    html = sentence_html(many)
    assert html.count("<li>") == LISTED and f"All {LISTED + 1} are in" in html
    assert with_verdicts("| a | b |\n", many) == "| a | b |\n"
    assert "<script" not in sentence_html(dataclasses.replace(many, sentence="<script>alert(1)</script>"))
