import ast
import inspect
import shutil
from pathlib import Path

import pytest

import fmbench
from fmbench.config.evaluation_settings import FixedStepSettings
from fmbench.config.training_settings import TrainingSettings
from fmbench.store import codehash
from fmbench.store.codehash import PLUMBING, closure, stage_hash, stage_module

PACKAGE = Path(fmbench.__file__).parent
STAGES = [
    "prepare",
    "features",
    "check",
    "train",
    "oracles",
    "sample",
    "likelihood",
    "dequantisation",
    "sweep",
    "sample_quality",
    "learning_curve",
    "few_step",
    "trajectory",
    "theory",
    "collect",
    "gather",
    "mlflow_summary",
]
"""The stages whose code hash decides whether a job runs again."""
REPORTS = ["table1", "table4", "figures"]


class Copy:
    """A copy of the package to edit."""

    def __init__(self, package: Path) -> None:
        self.package = package

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.package / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{file} has changed: choose another text to edit"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        with open(self.package / file, "a", encoding="utf-8") as stream:
            stream.write(text)

    def hashes(self) -> dict[str, str]:
        codehash._imports.cache_clear()  # a process keeps the hashes for its whole life
        codehash._tree_hash.cache_clear()
        return {stage: stage_hash(stage) for stage in [*STAGES, *REPORTS]}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    shutil.copytree(PACKAGE, tmp_path / "fmbench", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(codehash, "PACKAGE", tmp_path / "fmbench")
    yield Copy(tmp_path / "fmbench")
    codehash._imports.cache_clear()
    codehash._tree_hash.cache_clear()


def public_methods(settings: type) -> set[str]:
    """The public methods that a class of settings defines itself, without inherited ones."""
    return {name for name, value in vars(settings).items() if inspect.isfunction(value) and not name.startswith("_")}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {stage for stage in before if before[stage] != after[stage]}


def test_the_hash_does_not_depend_on_the_folder_of_the_package(copy):
    moved = copy.hashes()
    codehash._imports.cache_clear()
    codehash.PACKAGE = PACKAGE
    assert moved == {stage: stage_hash(stage) for stage in moved}


def test_a_hash_is_16_hex_digits_and_differs_between_stages():
    hashes = [stage_hash(stage) for stage in STAGES]
    assert all(len(h) == 16 and int(h, 16) >= 0 for h in hashes)
    assert len(set(hashes)) == len(STAGES)


def test_comments_docstrings_and_layout_change_no_hash(copy):
    before = copy.hashes()
    for path in copy.package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text), clean=False)
        if docstring:
            text = text.replace(docstring, "Another docstring.", 1)
        path.write_text(
            "# A comment.\n\n\n" + text.replace("\n\n", "\n\n\n# Another.\n\n\n") + "\n\n# The end.\n", encoding="utf-8"
        )
        assert ast.parse(path.read_text(encoding="utf-8"))
    assert copy.hashes() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow/objectives.py", '"""The loss of each sample', '"""Something else'),  # a method's docstring
        ("flow/weighting.py", '"""w(t) from times (B,)', '"""W(t) from times (B,)'),  # a string below an attribute
        ("flow/weighting.py", "    # s(t)^2: score", "    # s(t) squared: score"),
        ("flow/objectives.py", "        if self.times.corrected:\n", "\n\n        if self.times.corrected:  # why\n"),
        ("flow/objectives.py", "return weight.to(x1.dtype) * error", "return (weight.to(x1.dtype)) * error"),
        ("training/run.py", '"""How a training ended.', '"""The end.'),
    ],
)
def test_an_edit_that_runs_nothing_new_changes_no_hash(copy, file, old, new):
    before = copy.hashes()
    copy.edit(file, old, new)
    assert copy.hashes() == before


def test_an_edit_of_the_loss_changes_the_training_and_what_builds_objectives(copy):
    before = copy.hashes()
    copy.edit("flow/objectives.py", "error.flatten(1).square().mean(1)", "error.flatten(1).abs().mean(1)")
    after = changed(before, copy.hashes())
    assert {"train", "check"} <= after
    assert not after & {"prepare", "collect", *REPORTS}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow/training_times.py", "clamp(1e-9", "clamp(1e-8"),
        ("flow/paths.py", "beta_max: float = 20.0", "beta_max: float = 20.5"),
        ("training/schedule.py", "FLOOR = 1e-8", "FLOOR = 1e-7"),
        ("networks/mlp.py", "nn.SiLU()", "nn.ReLU()"),
        ("system/rng.py", "digest[:8]", "digest[8:16]"),
    ],
)
def test_a_real_edit_changes_exactly_the_stages_whose_closure_has_it(copy, file, old, new):
    module = "fmbench." + file.removesuffix(".py").replace("/", ".")
    with_it = {stage for stage in [*STAGES, *REPORTS] if module in closure(stage_module(stage))}
    assert with_it and with_it != {*STAGES, *REPORTS}
    before = copy.hashes()
    copy.edit(file, old, new)
    assert changed(before, copy.hashes()) == with_it


def test_an_edit_of_the_plumbing_changes_nothing(copy):
    before = copy.hashes()
    for module in PLUMBING:
        copy.append(module.replace("fmbench.", "") + ".py", "\n\ndef something_new() -> int:\n    return 1\n")
    assert {"fmbench.store.tracking", "fmbench.errors"} <= PLUMBING
    assert copy.hashes() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow/solvers/fixed.py", "alpha=w * h)", "alpha=h * w)"),
        ("flow/solvers/grids.py", "steps + 1, dtype", "steps + 1 + 0, dtype"),
        ("flow/solvers/ddim.py", "a[k + 1] * data + s", "s[k + 1] * noise + a[k + 1] * data + 0 * s"),
    ],
)
def test_an_edit_of_a_fixed_step_solver_changes_the_stages_that_use_it(copy, file, old, new):
    before = copy.hashes()
    copy.edit(file, old, new)
    # The check before training tries solvers of the user's own.
    assert changed(before, copy.hashes()) == {"check", "sweep", "few_step", "theory"}


def test_an_edit_of_the_adaptive_solver_changes_the_stages_that_use_it_and_no_training(copy):
    before = copy.hashes()
    copy.edit("flow/solvers/adaptive.py", "SAFETY, SHRINK, GROW = 0.9", "SAFETY, SHRINK, GROW = 0.8")
    assert changed(before, copy.hashes()) == {
        "sample",
        "likelihood",
        "dequantisation",
        "sweep",
        "few_step",  # a model brings its own adaptive solve
        "learning_curve",
        "trajectory",
        "theory",
    }


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow/oracle.py", "(-s * trace)[:, 0]", "(-trace * s)[:, 0]"),
        ("stages/oracles.py", "math.sqrt(12)", "12**0.5"),
    ],
)
def test_an_edit_of_an_oracle_retrains_no_network(copy, file, old, new):
    """The evaluations of networks do run again: a job sees only when it loads a model whether the model is an oracle."""
    before = copy.hashes()
    copy.edit(file, old, new)
    evaluations = {
        "oracles",
        "sample",
        "likelihood",
        "dequantisation",
        "sweep",
        "learning_curve",
        "few_step",
        "trajectory",
    }
    theory = {"theory"} if file == "flow/oracle.py" else set()
    assert changed(before, copy.hashes()) == evaluations | theory


def test_an_edit_of_the_training_reruns_no_oracle(copy):
    before = copy.hashes()
    copy.edit("training/run.py", '"""How a training ended.', 'SOMETHING_NEW = 1\n    """How a training ended.')
    copy.edit("stages/train.py", "images_seen", "images_shown")
    assert changed(before, copy.hashes()) == {"train"}


def test_the_choice_of_measurements_is_code_of_the_stages_that_measure(copy):
    """No spec lists them: jobs derive them from the settings, so the code that does it must be in the hash."""
    before = copy.hashes()
    copy.edit("config/cells.py", "for n in e.nfe or nfe", "for n in [*(e.nfe or []), *nfe]")
    once = copy.hashes()
    # Figures take from there which solver's samples are kept.
    assert changed(before, once) == {"sweep", "few_step", "figures"}
    copy.edit("config/snapshots.py", "k * iterations // snapshots", "-(-k * iterations // snapshots)")
    assert changed(once, copy.hashes()) == {"train"}


@pytest.mark.parametrize(
    "method", sorted(name for kind in (TrainingSettings, FixedStepSettings) for name in public_methods(kind))
)
def test_no_job_derives_measurements_by_code_outside_its_hash(method):
    """The config's code is in no hash. Only ``plan``, which measures nothing, and the specs may call it."""
    for path in [*(PACKAGE / "stages").rglob("*.py"), *(PACKAGE / "training").rglob("*.py")]:
        is_plan = path.is_relative_to(PACKAGE / "stages" / "plan")
        assert is_plan or f".{method}(" not in path.read_text(encoding="utf-8"), path


def test_a_table_reruns_no_measurement(copy):
    before = copy.hashes()
    copy.edit("report/style.py", '"ddpm": "DDPM"', '"ddpm": "ddpm"')
    once = copy.hashes()
    assert changed(before, once) == {*REPORTS}
    copy.edit("report/table4.py", '"probe_bias",', '"bias_of_probes",')
    copy.edit("report/figures/theory.py", '"OT path"', '"straight path"')
    assert changed(once, copy.hashes()) == {"table4", "figures"}


def test_a_new_import_is_followed(copy):
    before = copy.hashes()
    (copy.package / "novelty.py").write_text("VALUE = 1\n")
    copy.append("metrics/points.py", "\nfrom fmbench import novelty\n")
    once = copy.hashes()
    using = changed(before, once)
    assert {"features", "sample_quality", "learning_curve", "few_step"} <= using and not {
        "train",
        "sample",
        "likelihood",
        "sweep",
        "table1",
    } & using
    (copy.package / "novelty.py").write_text("VALUE = 2\n")
    assert changed(once, copy.hashes()) == using


@pytest.mark.parametrize(
    ("stage", "inside", "outside"),
    [
        ("prepare", {"data.sources", "data.writer", "system.rng"}, {"flow.objectives", "training.loop", "stages.shared.job"}),
        (
            "train",
            {"flow.objectives", "flow.paths", "training.loop", "training.schedule", "networks.unet"},
            {"flow.solvers.fixed", "flow.likelihood", "flow.oracle", "stages.oracles", "stages.shared.models"},
        ),
        (
            "oracles",
            {"flow.oracle", "flow.objectives", "flow.paths"},
            {"training.loop", "flow.solvers.adaptive", "stages.train", "stages.shared.models"},
        ),
        (
            "sample",
            {"flow.solvers.adaptive", "flow.solvers.tableaux", "flow.fields", "flow.oracle"},
            {"flow.solvers.fixed", "training.loop", "flow.likelihood"},
        ),
        (
            "likelihood",
            {"flow.likelihood", "flow.solvers.adaptive", "flow.fields", "flow.oracle"},
            {"flow.solvers.fixed", "metrics.frechet", "training.loop", "stages.dequantisation"},
        ),
        (
            "dequantisation",
            {"flow.likelihood", "stages.shared.models", "flow.fields", "flow.oracle"},
            {"flow.solvers.fixed", "metrics.frechet", "training.loop"},
        ),
        (
            "sweep",
            {
                "flow.solvers.fixed",
                "flow.solvers.grids",
                "flow.solvers.ddim",
                "flow.solvers.adaptive",
                "flow.fields",
                "flow.oracle",
            },
            {"flow.likelihood", "metrics.frechet", "training.loop"},
        ),
        (
            "sample_quality",
            {
                "metrics.frechet",
                "metrics.kid",
                "metrics.points",
                "stages.evaluators.references",
                "stages.evaluators.loading",
                "stages.shared.classifier",
                "metrics.extractors",
                "metrics.inception",
            },
            {
                "flow.solvers.fixed",
                "flow.solvers.adaptive",
                "flow.oracle",
                "stages.shared.models",
                "stages.features",
                "training.loop",
            },
        ),
        (
            "theory",
            {"flow.oracle", "flow.noise_levels", "flow.solvers.ddim", "networks.mlp"},
            {"training.loop", "data.prepared", "report.figures.theory"},
        ),
        (
            "collect",
            {"store.records", "store.flatten"},
            {"report.table1", "flow.objectives", "stages.shared.mlflow_trainings"},
        ),
        (
            "table1",
            {"store.records", "report.style", "report.table1.numbers", "report.table1.notes"},
            {"report.figures", "report.table4", "flow.objectives"},
        ),
        (
            "table2",
            {"store.records", "report.style", "report.frames", "report.layout"},
            {"report.table1", "report.table4", "flow.objectives"},
        ),
        (
            "table3",
            {"store.parquet", "report.style", "report.layout"},
            {"report.table1", "stages.collect", "flow.objectives"},
        ),
        ("table4", {"store.records", "report.style", "report.layout"}, {"report.figures", "report.table1", "flow.objectives"}),
        (
            "solvers",
            {"store.records", "report.solvers.choice", "report.claims.student", "report.layout"},
            {"report.table1", "report.figures", "flow.objectives"},
        ),
        (
            "claims",
            {"store.records", "report.claims.verdicts", "report.claims.claim07_structure_earlier", "report.layout"},
            {"report.table1", "report.figures", "flow.objectives"},
        ),
        (
            "figures",
            {"store.records", "report.style", "report.figures.samplers"},
            {"flow.objectives", "networks", "stages.theory"},
        ),
    ],
)
def test_what_a_stage_depends_on(stage, inside, outside):
    found = closure(stage_module(stage))
    assert {f"fmbench.{m}" for m in inside} <= found
    assert not {f"fmbench.{m}" for m in outside} & found
    assert not PLUMBING & found


def test_the_hash_covers_the_module_of_the_stage_itself():
    for stage in STAGES:
        assert stage_module(stage) == f"fmbench.stages.{stage}"
        assert stage_module(stage) in closure(stage_module(stage))
    with pytest.raises(ValueError, match="there is no stage 'trian'"):
        stage_module("trian")


def test_no_module_uses_relative_imports():
    """The code hash does not follow them."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_the_code_of_a_plugin_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "codehash_plugin_under_test.py"
    dotted = "codehash_plugin_under_test:PATH"

    def hashed(text: str) -> str:
        module.write_text(text)
        codehash._tree_hash.cache_clear()
        return stage_hash("train", (dotted,))

    first = hashed("PATH = 1\n")
    assert first != stage_hash("train")
    assert hashed('"""What it is."""\n# Why.\n\nPATH = 1\n') == first
    assert hashed("PATH = 2\n") != first


def test_a_plugin_counts_once_and_in_any_order():
    one, two = "user_code:Slow", "user_code:Lines"
    assert stage_hash("train", (one, two)) == stage_hash("train", (two, one, two))


def test_a_plugin_without_source_does_not_change_the_hash():
    assert stage_hash("train", ("math:pi",)) == stage_hash("train") == stage_hash("train", ("no_such_module:X",))


@pytest.mark.parametrize("name", ["no_such_package.module:X", "s3://bucket/images", "/data.v1/images:old"])
def test_a_missing_plugin_is_left_to_the_check(name):
    """The hash is computed while Snakemake builds the DAG. The check then reports what is wrong with the name."""
    assert stage_hash("train", (name,)) == stage_hash("train")


def test_modules_that_a_plugin_imports_from_its_package_count(tmp_path, monkeypatch):
    (tmp_path / "ownpkg").mkdir()
    (tmp_path / "ownpkg" / "__init__.py").write_text("")
    (tmp_path / "ownpkg" / "helper.py").write_text("FACTOR = 2\n")
    (tmp_path / "ownpkg" / "path.py").write_text("from ownpkg.helper import FACTOR\nimport json\nPATH = FACTOR\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = codehash.stage_hash("train", ("ownpkg.path:PATH",))
    (tmp_path / "ownpkg" / "helper.py").write_text("FACTOR = 3\n")
    codehash._tree_hash.cache_clear()
    assert codehash.stage_hash("train", ("ownpkg.path:PATH",)) != before


@pytest.mark.parametrize(
    ("stage", "file", "text"),
    [
        ("table1", "paper/table1.csv", "6.35"),
        ("table4", "paper/table4.csv", "3.11"),
        ("page", "page/page.css", "13px"),
        ("page", "page/page.js", "sort"),
    ],
)
def test_data_files_are_in_the_hash_of_the_stage_that_shows_them(tmp_path, monkeypatch, stage, file, text):
    before = codehash.stage_hash(stage)
    package = tmp_path / "fmbench"
    shutil.copytree(codehash.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shown = package / "report" / file
    assert text in shown.read_text()
    shown.write_text(shown.read_text().replace(text, "6.36"))
    monkeypatch.setattr(codehash, "PACKAGE", package)
    codehash._imports.cache_clear()
    codehash._tree_hash.cache_clear()
    assert codehash.stage_hash(stage) != before
