"""The README shows the reference run as it is, and the reference run is whole."""

import csv
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference" / "default"
sys.path.insert(0, str(ROOT / "tools"))

from reference import SECTIONS, with_section  # noqa: E402

from fmbench.config.config import Config  # noqa: E402
from fmbench.config.reading import load  # noqa: E402
from fmbench.config.specs import table1 as table1_spec  # noqa: E402
from fmbench.config.specs import table4 as table4_spec  # noqa: E402
from fmbench.metrics.copying import COPIES, verdict  # noqa: E402
from fmbench.report.frames import of_metric, records_frame  # noqa: E402
from fmbench.report.layout import to_csv  # noqa: E402
from fmbench.report.table1.latex import latex  # noqa: E402
from fmbench.report.table1.markdown import markdown  # noqa: E402
from fmbench.report.table1.numbers import table1  # noqa: E402
from fmbench.report.table4 import table4  # noqa: E402


@pytest.mark.parametrize("name", [name for name in SECTIONS if (REFERENCE.parent / name).exists()])
def test_documents_show_the_reference_runs(name):
    text = (ROOT / SECTIONS[name].document).read_text()
    assert with_section(text, REFERENCE.parent / name) == text


def measured_config() -> Config:
    """The default config, with the seeds of the reference."""
    seeds = sorted(int(seed) for seed in records_frame(REFERENCE / "records.parquet").seed.dropna().unique())
    return load(str(ROOT / "config.yaml")).model_copy(update={"seeds": seeds})


def test_the_reference_table_is_made_from_its_records():
    records, spec = records_frame(REFERENCE / "records.parquet"), table1_spec(measured_config())
    table = table1(records, spec)
    assert to_csv(table) == (REFERENCE / "table1.csv").read_text()
    assert markdown(table, records, spec) == (REFERENCE / "table1.md").read_text()
    assert latex(table, spec) == (REFERENCE / "table1.tex").read_text()


def test_the_reference_table_4_is_made_from_its_rows():
    table = table4(records_frame(REFERENCE / "dequantisation.parquet"), table4_spec(measured_config()))
    assert to_csv(table) == (REFERENCE / "table4.csv").read_text()


def test_the_equivalences_of_the_reference_are_as_theory_has_them():
    with open(REFERENCE / "equivalence.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 100 and all(row["expected"] == row["found"] for row in rows)


@pytest.mark.parametrize("dataset", ["checkerboard", "digits"])
def test_the_default_run_is_worth_reading(dataset):
    """What an independent trial found at this size: FM-OT is best and cheapest, DDPM is trained well enough to be fair."""
    with open(REFERENCE / "table1.csv") as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream) if row["dataset"] == dataset}
    assert all(row["status"] == "ok" and int(row["seeds"]) == len(measured_config().seeds) >= 8 for row in rows.values())
    assert float(rows["oracle_ot"]["nfe_mean"]) < float(rows["oracle_vp"]["nfe_mean"])
    trained = {method: row for method, row in rows.items() if not method.startswith("oracle")}
    nll = {method: float(row["nll_mean"]) for method, row in trained.items()}
    nfe = {method: float(row["nfe_mean"]) for method, row in trained.items()}
    assert min(nll, key=nll.__getitem__) == min(nfe, key=nfe.__getitem__) == "fm_ot"
    assert max(nfe, key=nfe.__getitem__) == "ddpm"
    data_std = 2.31 if dataset == "checkerboard" else 0.71
    assert all(abs(float(row["sample_std"]) / data_std - 1) < 0.05 for row in rows.values())


def test_the_zoo_shows_that_the_oracle_copies_and_that_no_trained_method_does():
    records = records_frame(REFERENCE.parent / "zoo" / "records.parquet")
    digits = records[records.dataset == "digits"]
    means = {metric: of_metric(digits, metric).groupby("method").value.mean() for metric in ("c_t", "train_distance_ratio")}
    said = {method: verdict(c_t, means["train_distance_ratio"][method]) for method, c_t in means["c_t"].items()}
    assert said.pop("oracle_ot") == COPIES
    assert len(said) == 12 and COPIES not in said.values()
    (floor,) = of_metric(digits, "c_t_floor").value
    assert abs(floor) < 3  # one half of the test images, against the other


def test_the_zoo_has_every_method_at_four_seeds():
    with open(REFERENCE.parent / "zoo" / "pareto.csv") as stream:
        rows = list(csv.DictReader(stream))
    for dataset in ("checkerboard", "digits"):
        own = [row for row in rows if row["dataset"] == dataset]
        assert len({row["method"] for row in own}) == 12
        assert all(row["seeds"] == "4" and row["status"] == "ok" for row in own)


def test_the_zoo_shows_that_meanflows_weight_is_for_images():
    with open(REFERENCE.parent / "zoo" / "pareto.csv") as stream:
        rows = list(csv.DictReader(stream))
    quality = {(row["dataset"], row["method"]): float(row["quality_mean"]) for row in rows}
    assert quality["checkerboard", "mean_flow_power_0"] < 0.1 * quality["checkerboard", "mean_flow"]
    assert quality["digits", "mean_flow"] < 0.5 * quality["digits", "mean_flow_power_0"]


def test_the_gradient_of_the_marginal_target_has_less_variance_at_every_seed_and_its_training_ends_nearer_to_the_optimum():
    """Theorem 2 by training: the loss of both differs by the floor, up to 1 % of it."""
    records = records_frame(REFERENCE.parent / "marginal" / "records.parquet")
    of_each, of_mean = (of_metric(records, f"gradient_variance{name}").set_index("seed").value for name in ("_conditional", ""))
    assert len(of_mean) == 4 and (of_mean < 0.1 * of_each).all()
    floor = of_metric(records, "loss_floor").set_index("seed").value
    loss, nll = (
        of_metric(records, name).pivot_table(index="seed", columns="method", values="value") for name in ("final_loss", "nll")
    )
    assert (abs(loss.fm_ot - floor - loss.fm_ot_marginal) < 0.01 * floor).all()
    assert (nll.fm_ot_marginal < nll.fm_ot).all()


def test_the_grid_has_all_nine_cells_and_predictions_of_the_velocity_have_the_lowest_nll_and_nfe():
    with open(REFERENCE.parent / "grid3x3" / "grid3x3.csv") as stream:
        rows = list(csv.DictReader(stream))
    for dataset in ("checkerboard", "digits"):
        own = [row for row in rows if row["dataset"] == dataset]
        assert len(own) == 9 and {row["status"] for row in own} == {"ok"}
        for measure in ("nll_mean", "nfe_mean"):
            assert min(own, key=lambda row: float(row[measure]))["predicted"] == "velocity"
