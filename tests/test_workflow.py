"""Real runs of snakemake on a copy of the project with a tiny 2-D config: what reruns, what resumes, what stops a run."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from browser import opened

from fmbench.config.names import FIGURES
from fmbench.config.stages import GATHERED

pytestmark = pytest.mark.workflow

REPOSITORY = Path(__file__).parent.parent
CONFIG = {
    "seeds": [0],
    "datasets": ["checkerboard"],
    "methods": ["ddpm", "fm_ot"],
    "tracking": {"enabled": False},
    "settings": {
        "checkerboard": {
            "data": {"source": "checkerboard", "parameters": {"train": 2000, "test": 100}},
            "network": {"kind": "mlp", "width": 32, "depth": 2},
            "training": {"iterations": 3000, "batch_size": 64, "checkpoint_every": 100, "log_every": 50},
            "evaluation": {
                "sample": {"n": 50, "shared_batch": 20, "rtol": 1.0e-2, "atol": 1.0e-2},
                "likelihood": {"rtol": 1.0e-2, "atol": 1.0e-2},
                "sweep": {"n": 20, "nfe": [4, 8], "solvers": ["euler", "rk4"], "reference_nfe": 100},
            },
        }
    },
}

OF_OTHERS = {"fig14", "fig15", "grid3x3", "pareto"}
"""Figures that this config has not."""


class Project:
    """A copy of the repository with its own config, results and snakemake state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("fmbench", "workflow", "profiles"):
            shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Snakefile", "environment.yml"):
            shutil.copy(REPOSITORY / name, folder / name)
        self.configure()

    def configure(self, **changes) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))

    @property
    def environment(self) -> dict[str, str]:
        # The tests edit the package in the copy, so it must not come from where it is installed.
        return os.environ | {"PYTHONPATH": str(self.folder), "FMBENCH_TRACKING_URI": "off"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    def run(self, *arguments: str, ok: bool = True) -> str:
        """Run snakemake and return everything it prints."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, output
        return output

    def planned(self, target: str = "results/table1.csv") -> Counter:
        """Return the jobs that a run would do: rule names, followed by the method of a job that has one."""
        output = self.run("--dry-run", target)
        jobs: Counter = Counter()
        for block in re.split(r"\n(?=(?:local)?rule \w+:)", output):
            head = re.match(r"(?:local)?rule (\w+):", block)
            if head:
                method = re.search(r"method=(\w+)", block)
                jobs[head[1] if method is None else f"{head[1]} {method[1]}"] += 1
        return jobs

    def table(self) -> bytes:
        return (self.folder / "results/table1.csv").read_bytes()

    def rows(self) -> dict[str, dict[str, str]]:
        return {row["method"]: row for row in csv.DictReader(self.table().decode().splitlines())}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} has {text.count(old)} of {old!r}"
        path.write_text(text.replace(old, new))


def evaluations(method: str) -> Counter:
    return Counter({f"{stage} {method}": 1 for stage in ("sample", "likelihood", "sweep", "sample_quality")})


END = Counter({"collect": 1, "table1": 1})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    """A project after an undisturbed run. A test that changes it must restore it."""
    project = Project(tmp_path_factory.mktemp("finished"))
    project.run("results/table1.csv")
    return project


def test_the_table_has_every_method_and_a_rerun_does_nothing(finished):
    rows = finished.rows()
    assert list(rows) == ["ddpm", "fm_ot"]
    assert all(row["status"] == "ok" and row["seeds"] == "1" and float(row["nfe_mean"]) > 0 for row in rows.values())
    assert not finished.planned()


def test_a_run_ends_with_the_sentence_on_the_reference(finished):
    reference = finished.folder / "results/reference/default"
    reference.mkdir(parents=True)
    shutil.copy(REPOSITORY / "results/reference/default/benchmark.json", reference)  # of other settings
    try:
        run = finished.command("--forcerun", "table1", "--", "results/table1.csv")
        done = subprocess.run(run, cwd=finished.folder, env=finished.environment, stdout=-1, stderr=subprocess.STDOUT, text=True)
        last = done.stdout.splitlines()[-1]
        assert last == "Not compared with the reference: no number has the settings of the reference", done.stdout
        assert (finished.folder / "results/reproduction.csv").exists() and not finished.planned()
    finally:
        shutil.rmtree(reference)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("fmbench/flow/objectives.py", "x_t, velocity = self", "# a comment\n        x_t, velocity = self"),
        ("fmbench/training/loop.py", '"""The training loop: one', '"""Another docstring: one'),
        ("fmbench/store/tracker.py", "MLflow is not available", "MLflow cannot be reached"),
    ],
)
def test_a_comment_a_docstring_or_a_message_reruns_nothing(finished, file, old, new):
    finished.edit(file, old, new)
    try:
        assert not finished.planned()
    finally:
        finished.edit(file, new, old)


def test_editing_the_loss_reruns_the_trainings(finished):
    old, new = "error.flatten(1).square().mean(1)", "error.flatten(1).abs().mean(1)"
    finished.edit("fmbench/flow/objectives.py", old, new)
    try:
        planned = finished.planned()
        assert planned["train ddpm"] == planned["train fm_ot"] == 1
        assert planned["prepare"] == 0
    finally:
        finished.edit("fmbench/flow/objectives.py", new, old)
    assert not finished.planned()


def test_editing_a_figure_trains_nothing(finished):
    old, new = "alpha=0.18", "alpha=0.2"
    finished.run("results/figures/fig07.png")
    finished.edit("fmbench/report/figures/panels.py", old, new)
    try:
        assert finished.planned("results/figures/fig07.png") == Counter({"figure": 1})
    finally:
        finished.edit("fmbench/report/figures/panels.py", new, old)


def test_the_order_of_keys_and_the_address_of_mlflow_rerun_nothing(finished):
    settings = CONFIG["settings"]["checkerboard"]
    turned = {"checkerboard": dict(reversed(settings.items()))}
    finished.configure(settings=turned, tracking={"enabled": True, "uri": "http://127.0.0.1:9"})
    try:
        assert not finished.planned()
    finally:
        finished.configure()


def test_one_methods_learning_rate_reruns_that_method_alone(finished):
    before, weights = finished.rows(), finished.folder / "results/models/checkerboard/fm_ot/0/model.safetensors"
    written = weights.stat().st_mtime_ns
    finished.configure(methods=[{"name": "ddpm", "training": {"learning_rate": 2.0e-3}}, "fm_ot"])
    assert finished.planned() == Counter({"train ddpm": 1}) + evaluations("ddpm") + END
    table = finished.table()
    try:
        finished.run("results/table1.csv")
        after = finished.rows()
        assert after["fm_ot"] == before["fm_ot"] and weights.stat().st_mtime_ns == written
        assert after["ddpm"]["nll_mean"] != before["ddpm"]["nll_mean"]
        assert "DDPM does not train under the common settings" in (finished.folder / "results/table1.md").read_text()
    finally:
        finished.configure()
    finished.run("results/table1.csv")
    assert finished.table() == table


def test_couplings_jumps_and_pairs_run_through_the_workflow_to_the_table_of_their_cost(finished):
    """The student waits for its pairs, and these for the teacher. A change of the teacher makes both again."""
    short = {"training": {"iterations": 300}}
    pairs = {"teacher": {"name": "fm_ot", "pairs": 300, "rtol": 1.0e-2, "atol": 1.0e-2}}
    more = [{"name": "ot_cfm", **short}, {"name": "mean_flow", **short}, {"name": "student", "use": "fm_ot", **short, **pairs}]
    few_step = {"few_step": {"n": 50, "nfe": [1, 4], "solvers": ["euler"], "jumps": [1, 2]}}
    board = CONFIG["settings"]["checkerboard"]
    settings = {"checkerboard": board | {"evaluation": board["evaluation"] | few_step}}
    finished.configure(methods=["ddpm", "fm_ot", *more], settings=settings)
    try:
        planned = finished.planned("results/pareto.csv")
        assert planned["pairs student"] == planned["train student"] == planned["pareto"] == 1
        assert planned["train fm_ot"] == planned["pairs fm_ot"] == 0
        finished.run("results/pareto.csv")
        table = (finished.folder / "results/pareto.csv").read_text().splitlines()
        rows = {row["method"]: row for row in csv.DictReader(table)}
        assert list(rows) == ["ddpm", "fm_ot", "ot_cfm", "mean_flow", "student"]
        assert all(row["status"] == "ok" and float(row["one_step_mean"]) > 0 for row in rows.values())
        assert float(rows["ot_cfm"]["passes_mean"]) == 3 * 300 * 64 and float(rows["mean_flow"]["passes_mean"]) == 5 * 300 * 64
        assert float(rows["student"]["passes_mean"]) > 3 * (3000 + 300) * 64 + 300
        assert {rows["mean_flow"]["one_step_solver"], rows["ot_cfm"]["one_step_solver"]} <= {"mean_flow", "euler"}
        assert not finished.planned("results/pareto.csv")

        finished.configure(methods=["ddpm", {"name": "fm_ot", "training": {"learning_rate": 2.0e-3}}, *more], settings=settings)
        planned = finished.planned("results/pareto.csv")
        assert planned["train fm_ot"] == planned["pairs student"] == planned["train student"] == 1
        assert planned["train mean_flow"] == planned["train ot_cfm"] == planned["train ddpm"] == 0
    finally:
        finished.configure()
    finished.run("results/table1.csv")


def test_an_oracle_is_a_job_of_its_own_that_no_training_touches(finished):
    """It is planned as a training and complete in the table. Changes of a network's settings or code do not rerun it."""
    known = [{"name": "ddpm"}, {"name": "fm_ot"}, {"name": "oracle_ot"}]
    finished.configure(methods=known)
    try:
        assert finished.planned() == Counter({"train oracle_ot": 1}) + evaluations("oracle_ot") + END
        finished.run("results/table1.csv")
        row = finished.rows()["oracle_ot"]
        assert (row["status"], row["seeds"]) == ("ok", "1") and float(row["nfe_mean"]) > 0
        assert "learns nothing and is never bold" in (finished.folder / "results/table1.md").read_text()
        assert not finished.planned()

        finished.configure(methods=[{"name": "ddpm", "training": {"learning_rate": 2.0e-3}}, *known[1:]])
        assert finished.planned() == Counter({"train ddpm": 1}) + evaluations("ddpm") + END
        finished.configure(methods=known)
        old, new = '"images_seen", len(oracle.points)', '"images_seen", 1 * len(oracle.points)'
        finished.edit("fmbench/stages/oracles.py", old, new)
        planned = finished.planned()
        finished.edit("fmbench/stages/oracles.py", new, old)
        assert planned["train oracle_ot"] == planned["sample fm_ot"] == 1
        assert not {"train ddpm", "train fm_ot", "prepare", "features"} & set(planned)
    finally:
        finished.configure()
    finished.run("results/table1.csv")


IMAGES = {
    "data": "digits",
    "network": {"kind": "unet", "channels": 8, "channels_multiple": [1, 2], "depth": 1, "head_channels": 8},
    "training": {"iterations": 10},
}


def test_table_4_needs_only_trained_methods_on_images_and_table_1_does_not_need_it(tmp_path):
    """Only the plan is looked at: nothing is trained."""
    project = Project(tmp_path / "images")
    settings = CONFIG["settings"] | {"digits": IMAGES}
    project.configure(datasets=["checkerboard", "digits"], methods=["ddpm", "fm_ot", "oracle_ot"], settings=settings)
    planned = project.planned("results/table4.csv")
    jobs = ("prepare", "train ddpm", "train fm_ot", "dequantisation ddpm", "dequantisation fm_ot", "table4")
    assert planned == Counter(dict.fromkeys(jobs, 1))
    table = " ".join(project.planned("results/table1.csv"))
    assert not [stage for stage in ("dequantisation", "learning_curve", "few_step", "trajectory", "gather") if stage in table]
    whole = project.planned("all")
    assert {rule for rule in whole if rule.startswith("dequantisation")} == {"dequantisation ddpm", "dequantisation fm_ot"}
    assert whole["theory"] == whole["table4"] == whole["table1"] == 1 and whole["train oracle_ot"] == 2
    assert whole["figure"] == len(set(FIGURES) - OF_OTHERS) and whole["gather"] == len(GATHERED)
    assert whole["claims"] == whole["table2"] == whole["table3"] == 1
    assert [whole[f"{stage} oracle_ot"] for stage in ("learning_curve", "few_step", "trajectory")] == [0, 2, 2]
    assert [whole[f"{stage} fm_ot"] for stage in ("learning_curve", "few_step", "trajectory")] == [2, 2, 2]
    assert {"table4", "theory", "collect"} <= set(project.planned("results/claims.csv"))
    project.configure()
    assert not {"table4", "dequantisation ddpm"} & set(project.planned("all"))  # this config has no images
    assert {"theory", "collect", "claims"} <= set(project.planned("results/claims.csv"))
    assert project.planned("results/equivalence.csv") == Counter({"theory": 1})


def test_a_low_resolution_condition_adds_the_jobs_of_table_2_and_no_other_does(tmp_path):
    """Only the plan is looked at: nothing is trained."""
    project = Project(tmp_path / "upsampled")
    upsampled = IMAGES | {
        "condition": {"low_resolution": {"factor": 2}},
        "evaluation": {"sample": {"n": 360}, "super_resolution": {"window": 7}},
    }
    project.configure(datasets=["upsampled", "digits"], settings={"upsampled": upsampled, "digits": IMAGES})
    planned = project.planned("all")
    assert planned["baselines"] == 1 and planned["figure"] == len(set(FIGURES) - {"grid3x3", "pareto"})
    models = {
        stage: sum(count for job, count in planned.items() if job.split()[0] == stage) for stage in ("train", "super_resolution")
    }
    assert models["train"] == 2 * models["super_resolution"] > 0
    project.configure(datasets=["digits"], settings={"digits": IMAGES})
    assert not [job for job in project.planned("all") if job.startswith(("baselines", "super_resolution"))]


def test_adding_an_nfe_computes_that_cell_only(finished):
    settings = yaml.safe_load(yaml.safe_dump(CONFIG["settings"]))
    sweep = settings["checkerboard"]["evaluation"]["sweep"]
    sweep["solvers"] = [{"name": "euler", "nfe": [4, 8, 16]}, "rk4"]
    finished.configure(settings=settings)
    try:
        assert finished.planned() == Counter({"sweep ddpm": 1, "sweep fm_ot": 1}) + END
        output = finished.run("results/table1.csv")
        assert output.count("1 cells computed, 4 from the cache") == 2
    finally:
        finished.configure()


def test_kill_9_in_mid_training_then_resume_gives_the_same_bytes(finished, tmp_path):
    undisturbed = finished.table()
    project = Project(tmp_path / "killed")
    process = subprocess.Popen(
        project.command("results/table1.csv"),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoints = project.folder / "results/checkpoints"
    deadline = time.monotonic() + 120
    # The second checkpoint renames the first one, of iteration 0. From then on a training is running.
    while not any((p.parent / "checkpoint.pt").exists() for p in checkpoints.glob("*/checkpoint.previous.pt")):
        assert time.monotonic() < deadline and process.poll() is None, "no training was seen running"
        time.sleep(0.02)
    kill_all(process)
    assert not list((project.folder / "results/models").glob("*/*/*/model.safetensors")), "a training had already ended"

    assert "unlock" in project.run("results/table1.csv", ok=False).lower()
    project.run("--unlock")
    output = project.run("results/table1.csv")
    resumed = [int(n) for n in re.findall(r"resumed from the checkpoint at iteration (\d+)", output)]
    # Two trainings were running. One that had just begun may restart at iteration 0.
    assert any(n > 0 for n in resumed) and all(n < 3000 for n in resumed)
    assert project.table() == undisturbed


def kill_all(process: subprocess.Popen) -> None:
    """Send SIGKILL to snakemake and to every process of its session, including trainings."""
    session = os.getsid(process.pid)
    for _ in range(20):
        alive = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, sid = (entry / "stat").read_text().rpartition(")")[2].split()[::3][:2]
                except (OSError, ValueError):
                    continue
                if int(sid) == session and state != "Z":
                    alive.append(int(entry.name))
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        if not alive:
            break
        time.sleep(0.1)
    process.wait(timeout=30)


def test_a_diverged_training_is_a_row_and_stops_nothing_else(finished, tmp_path):
    project = Project(tmp_path / "diverged")
    project.configure(methods=[{"name": "hot", "use": "fm_ot", "training": {"learning_rate": 1.0e18}}, "fm_ot"])
    project.run("results/table1.csv", "results/figures/fig07.png", "results/figures/fig04.png")
    rows = project.rows()
    assert rows["fm_ot"] == finished.rows()["fm_ot"]
    hot = rows["hot"]
    assert hot["seeds"] == "0" and hot["nll_mean"] == "" and hot["nfe_mean"] == ""
    assert re.search(r"seed 0 diverged: (the loss became|a weight stopped being finite)", hot["status"])
    assert (project.folder / "results/models/checkerboard/hot/0/model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [0]}, "seed: unknown key"),
        ({"methods": ["dpm"]}, "unknown method 'dpm'; known: ddpm"),
        ({"datasets": ["chekerboard"]}, "unknown data set chekerboard"),
        ({"methods": [{"name": "ddpm", "training": {"learning_rate": "1e-4"}}]}, "write 1.0e-4"),
    ],
)
def test_a_wrong_config_stops_the_run_at_once_with_the_remedy(tmp_path, changes, message):
    project = Project(tmp_path / "wrong")
    project.configure(**changes)
    assert message in project.run("results/table1.csv", ok=False)
    assert not (project.folder / "results").exists()


@pytest.mark.parametrize("file", ["config.yaml", "preset.yaml"])
def test_a_repeated_key_in_a_config_file_stops_the_run(tmp_path, file):
    """Snakemake itself would use the last one."""
    project = Project(tmp_path / "twice")
    (project.folder / "preset.yaml").write_text("seeds: [1]\n")
    with open(project.folder / file, "a") as stream:
        stream.write("seeds: [7]\n")
    output = project.run("--dry-run", "results/table1.csv", "--configfile", "preset.yaml", ok=False)
    assert re.search(rf"{file}: the key 'seeds' is there twice, in line \d+ and in line \d+", output)
    assert "Traceback" not in output


def test_an_impossible_combination_is_an_error_before_any_training(tmp_path):
    project = Project(tmp_path / "impossible")
    project.configure(methods=["fm_ot", {"name": "odd", "path": "ot", "prediction": "velocity", "weighting": "likelihood"}])
    output = project.run("results/table1.csv", ok=False)
    assert "methods.odd: the loss weight is not finite at an end of the interval" in output
    assert not list((project.folder / "results").glob("models/*/*/*/*"))


def test_a_method_written_in_the_config_gets_its_row(tmp_path):
    project = Project(tmp_path / "inline")
    mine = {
        "name": "mine",
        "path": "cosine_vp",
        "prediction": "v",
        "weighting": "epsilon",
        "time": {"name": "logit_normal", "std": 1.5},
    }
    project.configure(methods=[mine])
    project.run("results/table1.csv")
    assert project.rows()["mine"]["status"] == "ok"


def test_the_report_is_one_file_that_a_browser_opens_offline(finished, tmp_path):
    """The report is of a finished run of everything. ``FMBENCH_REPORT`` names one that has been made already."""
    report = Path(os.environ.get("FMBENCH_REPORT", tmp_path / "report.html"))
    if not report.exists():
        finished.run("all")
        finished.run("--report", str(report))
    with opened(report) as page:
        # It starts with the claims and Table 1.
        page.wait_for_selector("#claims table")
        assert page.locator("#claims h2").first.inner_text() == "Claims"
        verdicts = page.locator("#claims table").first.locator("tbody tr").count()
        assert verdicts == 11
        assert page.locator("#table1 td", has_text="FM, OT path").count() >= 1
        top = page.locator("#claims h2").first.bounding_box()
        assert top is not None and 0 <= top["y"] < 200  # the start is on the screen, not above it
        # A figure chosen from the list is shown.
        page.get_by_text("Figures", exact=True).first.click()
        listed = set(page.locator("td").all_inner_texts())
        assert set(FIGURES) - OF_OTHERS <= listed
        page.locator("tr", has_text="fig07_quality").locator("a").first.click()
        page.wait_for_selector("div.p-3 > img")
        width = page.evaluate("document.querySelector('div.p-3 > img').naturalWidth")
        assert width > 500
