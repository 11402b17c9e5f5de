"""Every stage writes every metric of every method, with its provenance."""

import json
import re

import pytest
import torch
from tiny_benchmark import GOOD, METHODS, OF_BOTH, OF_IMAGES, ORACLES, SEED, STAGES, VALUES

from fmbench.config import execution
from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import plugins_in
from fmbench.store.codehash import stage_hash

METRICS: dict[str, set[str]] = {
    "train": {"final_loss", "iterations", "parameters", "images_seen", "train_seconds", "began", "ended"},
    "sample": {"nfe", "nfe_stderr", "nfe_std_over_samples", "nfe_max", "sample_std", "nfe_shared", "sample_seconds"},
    "likelihood": {"nll", "nll_stderr", "nfe_likelihood"},
    "sweep": {"mse", "mse_stderr", "seconds", "reference_mse"}
    | {f"{name}{end}" for name in ("straightness", "path_length_ratio") for end in ("", "_stderr")},
}
OF_POINTS = OF_BOTH | {"energy_distance", "energy_distance_stderr", "sliced_wasserstein", "mmd"}


def expected_metrics(stage: str, dataset: str, method: str) -> set[str]:
    if stage == "sample_quality":
        return OF_POINTS | {"off_support", "off_support_stderr"} if dataset == "board" else OF_IMAGES | {"frechet_at_floor_n"}
    more: set[str] = set()
    if method in ORACLES:
        more = {"train": {"bandwidth"}, "likelihood": {"nll_own", "nll_own_closed_form"}}.get(stage, more)
    elif stage == "likelihood" and dataset == "tall" and method in GOOD:
        more = {"nll_probe_std"}  # of two probes
    return METRICS[stage] | more


@pytest.mark.parametrize("dataset", VALUES["datasets"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stage", ["train", *STAGES])
def test_every_stage_writes_every_metric_of_every_method(bench, stage, method, dataset):
    """Also of a diverged training, whose rows have a status."""
    rows = bench.rows(stage, dataset, method)
    assert {r["metric"] for r in rows} == expected_metrics(stage, dataset, method)
    for row in rows:
        assert (row["dataset"], row["method"], row["seed"], row["stage"]) == (dataset, method, SEED, stage)


def test_rows_have_their_provenance(bench):
    for stage, method in ((stage, method) for stage in ("train", *STAGES) for method in ("fm_ot", "near")):
        spec = bench.spec(stage, "tall", method)
        for row in bench.rows(stage, "tall", method):
            assert row["config_hash"] == settings_hash(spec)
            assert row["code_hash"] == stage_hash(execution.code_stage(spec), plugins_in(spec))
            assert json.loads(row["versions"])["torch"].split("+")[0] == torch.__version__.split("+")[0]
            assert re.fullmatch(r"[0-9a-f]{40}(\+dirty)?|unknown", row["commit"])
            assert row["device"].startswith("cpu (")
            assert row["threads"] == 1


def test_every_stage_says_where_its_output_went(bench, healthy):
    for stage in ("train", "sample", "likelihood", "sweep"):
        said = healthy.run(stage, "board", "fm_ot")
        assert str(healthy.folder(stage, "board", "fm_ot")) in said.err
