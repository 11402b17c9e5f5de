"""The stage `pairs` and the training of a student on them: end points, costs, what is refused and what is skipped."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_benchmark import CPU, SEED, VALUES, Bench
from user_code import Said, command

from fmbench.config import specs
from fmbench.config.hashing import canonical, settings_hash
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.stages.shared.batching import base_noise
from fmbench.store.documents import read_document, write_document
from fmbench.store.records import read_rows
from fmbench.store.shapes import ModelConfig
from fmbench.store.weights import read_tensors, write_tensors

TEACHER = {"pairs": 70, "batch": 40, "rtol": 1e-4, "atol": 1e-4}
METHODS: list[Any] = [
    "fm_ot",
    {"name": "lost", "use": "fm_ot", "training": {"learning_rate": 1e30}},
    {"name": "near", "path": {"name": "ve", "sigma_max": 20.0}, "oracle": {"points": 20, "bandwidth": 0.3}},
    {"name": "second", "use": "fm_ot", "teacher": {"name": "fm_ot", **TEACHER}},
    {"name": "of_oracle", "use": "fm_ot", "teacher": {"name": "near", **TEACHER}},
    {"name": "orphan", "use": "fm_ot", "teacher": {"name": "lost", **TEACHER}},
]


class Taught(Bench):
    def make_pairs(self, student: str) -> Said:
        spec = specs.pairs(self.config, "board", student, SEED)
        folders = ["--data", self.results / "data" / "board", "--model", self.folder("train", "board", spec["teacher"])]
        folders += ["--out", self.folder("pairs", "board", student)]
        return command("pairs", "--spec", canonical(spec), *folders, "--progress", "lines")

    def teach(self, student: str, of: str = "", out: Path | None = None) -> Said:
        folders = ["--data", self.results / "data" / "board", "--out", out or self.folder("train", "board", student)]
        folders += ["--checkpoints", self.results / "checkpoints", "--tracking-uri", "off"]
        folders += ["--pairs", self.folder("pairs", "board", of)] if of else []
        return command("train", "--spec", canonical(self.spec("train", "board", student)), *folders, "--progress", "lines")


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Taught:
    folder = tmp_path_factory.mktemp("taught")
    bench = Taught(folder, json.loads(json.dumps(VALUES)) | {"datasets": ["board"], "methods": METHODS})
    said = [command("prepare", "--spec", canonical(specs.prepare(bench.config, "board")), "--out", folder / "data" / "board")]
    said += [bench.run("train", "board", teacher) for teacher in ("fm_ot", "lost", "near")]
    for student in ("second", "of_oracle", "orphan"):
        said += [bench.make_pairs(student), bench.teach(student, student)]
    failed = [s.err for s in said if s.code]
    assert not failed, failed
    return bench


@pytest.mark.parametrize(("student", "teacher"), [("second", "fm_ot"), ("of_oracle", "near")])
def test_pairs_are_noise_and_where_the_teachers_flow_takes_it(taught, student, teacher):
    found = read_tensors(taught.folder("pairs", "board", student) / "pairs.safetensors").tensors
    noise = base_noise(SEED + 2**31, range(70), (2,), 1.0, CPU)
    assert torch.equal(found["x0"], noise)
    assert not (noise[:, None] == base_noise(SEED, range(70), (2,), 1.0, CPU)).all(2).any()  # that of evaluations
    model = taught.model("board", teacher)
    objective = model.objective
    start = noise * objective.noise_std
    end = dopri5(model.field().rows(range(70)), start, objective.t_min, objective.t_max, rtol=1e-8, atol=1e-8).x
    torch.testing.assert_close(found["x1"], end, rtol=0, atol=2e-2)
    rows = {r["metric"]: r for r in taught.rows("pairs", "board", student)}
    assert rows["pairs"]["value"] == 70 and rows["pairs"]["method"] == student
    assert rows["pair_evaluations"]["value"] == pytest.approx(70 * rows["pairs"]["nfe"]) and rows["pairs"]["nfe"] > 6


def test_a_student_learns_its_teachers_pairs(taught):
    rows = {r["metric"]: r for r in taught.rows("train", "board", "second")}
    assert rows["final_loss"]["status"] == "ok" and rows["iterations"]["value"] == 60
    curve = read_rows([taught.folder("train", "board", "second") / "rows.parquet"])
    assert curve.num_rows and rows["final_loss"]["value"] < taught.row("train", "board", "fm_ot", "final_loss")["value"]


def test_a_teacher_that_diverged_has_a_skipped_student(taught):
    for stage in ("pairs", "train"):
        for row in taught.rows(stage, "board", "orphan"):
            assert row["status"] == "skipped" and "its teacher lost has no samples: training diverged: " in row["reason"]
    assert taught.run("sample", "board", "orphan").code == 0
    reasons = {r["reason"] for r in taught.rows("sample", "board", "orphan")}
    assert len(reasons) == 1 and reasons.pop().startswith("not trained: its teacher lost has no samples")


def test_pairs_of_another_spec_or_no_pairs_are_refused(taught, tmp_path):
    said = taught.teach("second", "of_oracle", tmp_path)
    assert said.code != 0 and "not those of this training" in said.err
    said = taught.teach("second", out=tmp_path)
    assert said.code != 0 and "second is trained on the pairs of a teacher; give their folder with --pairs" in said.err


def test_other_pairs_are_another_training(taught, tmp_path):
    """A checkpoint belongs to the content of the pairs, too."""
    before = len(list((taught.results / "checkpoints").iterdir()))
    folder = taught.folder("pairs", "board", "second")
    kept = (folder / "pairs.safetensors").read_bytes()
    found = read_tensors(folder / "pairs.safetensors")
    write_tensors(folder / "pairs.safetensors", {k: v.flip(0) for k, v in found.tensors.items()}, {**found.metadata})
    try:
        assert taught.teach("second", "second", tmp_path).code == 0
    finally:
        (folder / "pairs.safetensors").write_bytes(kept)
    assert len(list((taught.results / "checkpoints").iterdir())) == before + 1


def test_prune_keeps_the_pairs_and_removes_a_student_whose_teacher_changed(taught, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(taught.results, results)
    said = command("prune", "--results", results)
    assert f"board/second/{SEED}: the results hold its model" in said.out and "remove " not in said.out
    model = results / specs.model_folder("models", "board", "second", SEED) / "config.json"
    config = read_document(model, ModelConfig)
    spec = config["spec"] | {"pairs": "of another teacher"}
    write_document(model, config | {"spec": spec, "spec_hash": settings_hash(spec)})
    said = command("prune", "--results", results, "--yes")
    assert f"board/second/{SEED}: trained again since, spec.pairs was" in said.out
    for student in ("second", "of_oracle"):
        assert (results / specs.model_folder("pairs", "board", student, SEED) / "pairs.safetensors").exists()


def test_the_spec_of_a_student_follows_its_teacher(taught):
    spec = taught.spec("train", "board", "second")
    assert spec["pairs"] == settings_hash(specs.pairs(taught.config, "board", "second", SEED))
    values = json.loads(json.dumps(VALUES)) | {
        "datasets": ["board"],
        "methods": [{"name": "fm_ot", "training": {"learning_rate": 0.02}}, *METHODS[1:]],
    }
    assert Bench(taught.results, values).spec("train", "board", "second")["pairs"] != spec["pairs"]
    assert "pairs" not in taught.spec("train", "board", "fm_ot")
