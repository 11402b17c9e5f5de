"""Table 3: the settings that trained models used, beside the paper's."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from latex_checks import balanced, columns_fit
from pyarrow.parquet import read_table
from user_code import command

from fmbench.errors import DataError
from fmbench.report.layout import NONE, paper
from fmbench.report.table3 import PAPERS, show, table3, write_table3
from fmbench.stages.collect import used_settings
from fmbench.store.documents import write_document
from fmbench.store.parquet import write_table
from fmbench.store.tables import SETTINGS

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
    splits = {name: {"n": n, "sha256": "0" * 64, "std": 1.0} for name, n in (("train", 50000), ("test", 10000))}
    manifest = {"dataset": dataset, "spec": {}, "shape": [3], "levels": None, "scale": 1.0, "shift": 0.0, "warnings": []}
    manifest |= dict.fromkeys(("support", "entropy", "classes", "class_names"))
    write_document(folder / "data" / dataset / "manifest.json", manifest | {"splits": splits})
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
        write_document(folder / "models" / dataset / name / str(seed) / "config.json", config)
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


def test_the_settings_used_are_beside_the_papers(tmp_path):
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
    # Settings that the paper's table lacks follow, and the parts of each method.
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


def test_a_setting_that_differs_between_seeds_has_every_value(tmp_path):
    """Merged results of two machines may differ in the device."""
    path = write_settings(tmp_path)
    settings = read_table(path).to_pandas()
    settings.loc[(settings.key == "device") & (settings.seed == 1), "value"] = json.dumps("cpu")
    write_table(path, pa.Table.from_pandas(settings, preserve_index=False))
    table = write_table3(path, tmp_path / "table3.csv").set_index("setting")
    assert (table.loc["device"].ours, table.loc["gpus"].ours) == ("cuda or cpu", "1 or 0")
    assert "Where seeds differ, every value is listed." in (tmp_path / "table3.md").read_text()


def test_a_data_set_that_the_paper_does_not_have(tmp_path):
    table = write_table3(write_settings(tmp_path, dataset="digits"), tmp_path / "table3.csv")
    assert set(table.paper) == {NONE}
    assert "The paper has no data set named digits." in (tmp_path / "table3.md").read_text()


def test_the_command_of_table_3(tmp_path):
    path = write_settings(tmp_path)
    said = command("table3", "--settings", path, "--out", tmp_path / "out" / "table3.csv", "--progress", "lines")
    assert said.code == 0 and f"-> {tmp_path / 'out' / 'table3.csv'}, table3.md, .tex" in said.err
    said = command("table3", "--settings", tmp_path / "none.parquet", "--out", tmp_path / "t.csv")
    assert said.code == 3 and "is missing" in said.err


def test_without_a_trained_method_the_table_is_empty(tmp_path):
    frame = read_table(write_settings(tmp_path)).to_pandas()
    assert table3(frame[frame.method == "oracle_ot"]).empty


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (True, "yes"), (1e-8, "1e-08"), (0.0, "0"), ([], "none"), ([1, 2], "1,2"), ("x", "x")]
)
def test_a_value_in_print(value, text):
    assert show(value) == text
