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
from fmbench.report.frames import records_frame  # noqa: E402
from fmbench.report.layout import to_csv  # noqa: E402
from fmbench.report.table1.latex import latex  # noqa: E402
from fmbench.report.table1.markdown import markdown  # noqa: E402
from fmbench.report.table1.numbers import table1  # noqa: E402
from fmbench.report.table4 import table4  # noqa: E402


@pytest.mark.parametrize("name", [name for name in SECTIONS if (REFERENCE.parent / name).exists()])
def test_the_readme_shows_the_reference_runs(name):
    readme = (ROOT / "README.md").read_text()
    assert with_section(readme, REFERENCE.parent / name) == readme


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
