"""The rules of the workflow agree with the commands that they call, and with the names of figures and gathered files."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import fmbench
from fmbench.cli import stages as cli
from fmbench.cli.main import app
from fmbench.config import names, specs, stages
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.report.figures.registry import FIGURES
from fmbench.store.tables import THEORY
from fmbench.workflow.jobs import jobs

ROOT = Path(fmbench.__file__).parent.parent
RULES = {
    name: text
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    for name, text in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
}


def shell(rule: str) -> str:
    """Return the shell command of a rule, with its string literals joined."""
    text = RULES[rule].split("shell:", 1)[1]
    return "".join(re.findall(r'"([^"]*)"', text))


def commands() -> dict[str, Any]:
    """Return the commands of the command line by name."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_rules_are_found():
    assert set(RULES) == {
        "prepare",
        "features",
        "train",
        "pairs",
        "sample",
        "likelihood",
        "dequantisation",
        "sweep",
        "sample_quality",
        "baselines",
        "super_resolution",
        "learning_curve",
        "few_step",
        "trajectory",
        "gather",
        "theory",
        "collect",
        "table1",
        "table2",
        "table3",
        "table4",
        "solvers",
        "grid3x3",
        "pareto",
        "claims",
        "reproduce",
        "figure",
        "page",
        "mlflow_summary",
        "mlflow_rebuild",
    }


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_calls_the_command_of_its_name_with_options_that_the_command_has(rule):
    line = shell(rule).rpartition(" | ")[2]
    # torchrun starts a job of several processes.
    match = re.match(r"(?:python -m|\{params\.launcher\}) fmbench ([\w-]+) ", line)
    assert match is not None and match[1] == rule.replace("_", "-")
    parameters = commands()[match[1]].params
    known = {option: parameter for parameter in parameters for option in parameter.opts}
    used = re.findall(r"(--[\w-]+)", line)
    assert used and set(used) <= set(known)
    demanded = {p.opts[0] for p in parameters if p.required and p.opts[0].startswith("--")}
    assert demanded <= set(used)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_thin_logged_and_quotes_what_it_passes(rule):
    text = RULES[rule]
    assert "log:" in text and "conda:" in text and "--log {log:q}" in shell(rule)
    assert "run:" not in text and "script:" not in text
    unquoted = set(re.findall(r"{([\w.]+)}", shell(rule)))
    # Numbers, a hash, a constrained name, and the start of a command, whose words must stay apart.
    assert unquoted <= {"threads", "params.code", "wildcards.figure", "params.launcher"}


OF_ALL_MODELS = {
    "collect": [specs.collect],
    "table1": [specs.table1],
    "table4": [specs.table4],
    "theory": [specs.theory],
    "gather": [lambda config, kind=kind: specs.gather(kind, config) for kind in stages.GATHERED],
}
"""The specs of the rules that have one for the whole run."""
PLAIN: dict[str, Any] = {"condition": None, "evaluation": {}}
MANY_SEEDS = {"seeds": list(range(100)), "methods": [{"name": f"method{i}", "use": "fm_ot"} for i in range(10)]}
MANY_METHODS = {
    "seeds": [0],
    "methods": [{"name": f"method{i}", "use": "fm_ot", "training": {"learning_rate": 0.1 / (i + 1)}} for i in range(1000)],
}


@pytest.mark.parametrize("changes", [MANY_SEEDS, MANY_METHODS])
def test_no_command_line_grows_with_the_number_of_models(changes):
    """A system takes arguments of at most 128 KiB. What grows faster than the names of the methods goes through a pipe."""
    config = parse(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")) | changes)
    assert len(config.datasets) * len(config.methods) * len(config.seeds) == 2000
    for rule in RULES:
        line = shell(rule).rpartition(" | ")[2]
        assert "{input:q}" not in line and "{params.config:q}" not in line and "{params.rows" not in line
        if "{params.spec:q}" in line and rule in OF_ALL_MODELS:
            assert max(len(canonical(build(config))) for build in OF_ALL_MODELS[rule]) + len(line) < 32 * 1024, rule


def test_the_jobs_that_status_lists_have_the_outputs_and_logs_of_their_rules():
    upsampled = {"data": "digits", "condition": {"low_resolution": {"factor": 2}}, "network": {"kind": "unet"}}
    upsampled["evaluation"] = {"sample": {"n": 360}, "super_resolution": {"window": 7}}
    cells = [("x", "x"), ("x", "velocity"), ("velocity", "velocity")]
    methods = [{"name": f"{p}_by_{w}", "path": "ot", "prediction": p, "weighting": "uniform" if p == w else w} for p, w in cells]
    listed = jobs(parse({"seeds": [0], "datasets": ["up"], "methods": methods, "settings": {"up": upsampled}}))
    student = {"name": "student", "use": "fm_ot", "teacher": "fm_ot"}
    plain = {"seeds": [0], "datasets": ["digits"], "methods": ["fm_ot", student], "settings": {"digits": upsampled | PLAIN}}
    taught = [job for job in jobs(parse(plain)) if job.rule == "pairs"]
    assert [job.of for job in taught] == ["digits/student/0"]
    listed += taught
    assert {job.rule for job in listed} == RULES.keys() - {"mlflow_rebuild"}
    for job in listed:
        declared = RULES[job.rule].split("params:", 1)[0].split("output:", 1)[1]
        outputs, logs = (
            {
                name.format(MODEL=job.of, dataset="up", figure=job.of, gathered=job.of)
                for name in re.findall(r'results\(f?"([^"]+)"\)', part)
            }
            for part in declared.split("log:", 1)
        )
        assert job.output in outputs and logs == {job.log}, job


def test_rules_of_the_whole_run_are_the_ones_without_a_data_set_in_their_spec():
    whole = {rule for rule, text in RULES.items() if re.search(r"spec=(?:canonical\(|lambda w: canonical\(specs\.gather)", text)}
    assert whole == set(OF_ALL_MODELS)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_reruns_when_its_code_changes(rule):
    """The params hold the hash of the stage's code. Without it Snakemake would not notice an edit."""
    assert re.search(r"^ +code=", RULES[rule], re.MULTILINE)


@pytest.mark.parametrize("rule", ["train", "sample", "likelihood", "dequantisation", "sweep", "learning_curve", "few_step"])
def test_long_jobs_declare_threads_and_gpus(rule):
    assert "threads:" in RULES[rule] and "gpu=" in RULES[rule]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_asks_a_cluster_for_what_was_counted_for_it(rule):
    """Without resources of its own it would ask for the default of the profile or of Snakemake."""
    assert f'    resources:\n        **asked("{rule}"),\n' in RULES[rule]


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_asks_snakemake_for_a_benchmark(rule):
    """Snakemake would read the memory maps of every running process all the time. A job writes its time and memory to its log."""
    assert "benchmark:" not in RULES[rule]


def test_every_figure_has_a_rule_and_a_caption():
    common = (ROOT / "workflow" / "rules" / "common.smk").read_text(encoding="utf-8")
    assert re.search(r"from fmbench.config.names import .*\bFIGURES\b", common) and set(names.FIGURES) == set(FIGURES)
    reports = ROOT / "workflow" / "report"
    tables = {"table1", "table2", "table3", "table4", "solvers", "grid3x3", "pareto", "claims", "reproduction", "equivalence"}
    captions = {*FIGURES, *tables, "page", "figure", "workflow"}
    assert {path.stem for path in reports.glob("*.rst")} == captions
    for name in captions:
        assert (reports / f"{name}.rst").read_text(encoding="utf-8").strip()
    used = set(re.findall(r'"../report/([^"]+)\.rst"', "".join(RULES.values())))
    assert used == {"figure", *tables, "page"}


def test_a_figure_is_written_in_every_format_with_its_data():
    outputs = re.findall(r'results\("figures/\{figure\}\.(\w+)"\)', RULES["figure"].split("log:", 1)[0])
    assert outputs == ["png", "svg", "pdf", "parquet"]
    for kind in ("png", "svg", "pdf"):
        assert f"--out {{output.{kind}:q}}" in RULES["figure"]


def test_every_file_that_a_figure_is_drawn_from_is_made_by_a_rule():
    outputs = {name for text in RULES.values() for name in re.findall(r'results\("([^"{}]+)"\)', text.split("log:", 1)[0])}
    if 'results("{gathered}.parquet")' in RULES["gather"].split("log:", 1)[0]:
        outputs |= {f"{kind}.parquet" for kind in stages.GATHERED}
    assert {file for files in names.FIGURES.values() for file in files} <= outputs


def test_the_rule_theory_makes_the_files_that_its_stage_writes():
    made = set(re.findall(r'results\("theory/(\w+)\.parquet"\)', RULES["theory"].split("log:", 1)[0]))
    assert made == set(THEORY)
    assert "input:" not in RULES["theory"]


def test_a_rule_passes_the_code_and_the_spec_of_its_stage():
    """A job with the hash of another stage would not rerun when its code is edited."""
    for rule in stages.MODEL_STAGES:
        assert f'model_spec("{rule}")' in RULES[rule] and f'model_code("{rule}")' in RULES[rule]
    assert "train_spec" in RULES["train"] and "train_code" in RULES["train"]
    others = {
        rule: rule
        for rule in (
            "table2",
            "table3",
            "table4",
            "solvers",
            "grid3x3",
            "pareto",
            "claims",
            "theory",
            "page",
            "gather",
            "mlflow_summary",
        )
    }
    for rule, stage in (others | {"figure": "figures", "mlflow_rebuild": "mlflow_summary", "reproduce": "reproduction"}).items():
        assert f'code("{stage}"' in RULES[rule]


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_stage_takes_the_folders_of_its_entry_and_its_rule_gives_them(stage):
    folders = stages.STAGES[stage].folders
    run = importlib.import_module(f"fmbench.stages.{stage}").run
    taken = [name.removesuffix("_folder") for name in inspect.signature(run).parameters]
    assert taken == ["job", *folders]
    assert [option for option in re.findall(r"--(\w+) ", shell(stage)) if option in cli.FOLDERS] == list(folders)
    assert ("{params.launcher}" in shell(stage)) == stages.STAGES[stage].shared


def test_every_output_of_a_rule_is_named_in_its_command_or_lies_beside_one_that_is():
    """A command writes the files that it is told: by name, by their folder, or by the name of another kind of the same table."""
    for rule, text in RULES.items():
        made, _, rest = text.partition("log:")
        outputs = dict(re.findall(r'(\w+)=(?:report\(\s*)?results\(f?"([^"]+)"\)', made.partition("output:")[2]))
        folders = {
            Path(outputs[name]).parent for name in re.findall(r"subpath\(output\.(\w+), parent=True\)", rest) if name in outputs
        }
        stems = {Path(outputs[name]).with_suffix("") for name in re.findall(r"\{output\.(\w+):q\}", rest) if name in outputs}
        for path in map(Path, outputs.values()):
            assert path.parent in folders or path.with_suffix("") in stems, (rule, path)
