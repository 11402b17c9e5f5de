"""The package that is built holds all that a user without a clone needs: `fmbench init` and one command make the tables."""

import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import stand_in_conda
import yaml
from user_code import command

import fmbench
from fmbench.config.reading import load
from fmbench.workflow.jobs import jobs
from fmbench.workflow.project import lay_out

ROOT = Path(fmbench.__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of an installed package: what setuptools puts into a wheel that is built from the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    setup(ROOT, "egg_info", "--egg-base", folder, "sdist", "--dist-dir", folder)
    (archive,) = folder.glob("*.tar.gz")
    assert archive.name == f"fmbench-{fmbench.__version__}.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    setup(folder / f"fmbench-{fmbench.__version__}", "build_py", "--build-lib", folder / "library")
    return folder / "library"


def setup(folder: Path, *words: str | Path) -> None:
    arguments = [sys.executable, "setup.py", "-q", *map(str, words)]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def run(built: Path, folder: Path, *words: str) -> str:
    """Run a module of Python with the built package, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(built), "FMBENCH_TRACKING_URI": "off"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_package_has_the_workflow_the_configs_the_profiles_and_the_papers_numbers(built):
    project = built / "fmbench" / "project"
    for name in ("workflow", "configs", "profiles"):
        assert files(project / name) == files(ROOT / name), name
    assert files(ROOT / "fmbench") <= files(built / "fmbench")
    assert (project / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    size = sum(path.stat().st_size for path in project.rglob("*") if path.is_file())
    assert size < 2 * 2**20, "the figures of the reference do not belong into the package"


@pytest.mark.workflow
def test_a_project_of_the_installed_package_plans_everything_and_is_compared_with_the_reference(built, tmp_path):
    said = run(built, tmp_path, "fmbench", "init", "mine")
    assert said.splitlines()[-1] == "next: cd mine && snakemake --cores all results/table1.csv"
    mine = tmp_path / "mine"
    output = run(built, mine, "snakemake", "--cores", "1", "--dry-run", "--configfile", "configs/smoke.yaml")
    planned = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
    smoke = jobs(load(str(mine / "config.yaml"), str(mine / "configs" / "smoke.yaml")))
    assert planned == {rule: str(n) for rule, n in Counter(job.rule for job in smoke).items()} | {
        "all": "1",
        "total": str(len(smoke) + 1),
    }
    assert "using" in output.lower() and "profiles/default" in output
    reference = ROOT / "results" / "reference" / "default"
    output = run(built, mine, "fmbench", "reproduce", "--results", str(reference))
    assert re.search(r"^(\d+) of \1 numbers agree with the reference", output.splitlines()[-1])


def test_the_config_of_a_project_names_a_schema_that_is_there(tmp_path):
    lay_out(tmp_path / "mine")
    first, rest = (tmp_path / "mine" / "config.yaml").read_text(encoding="utf-8").split("\n", 1)
    assert Path(first.partition("$schema=")[2]).is_file()
    assert yaml.safe_load(rest) == yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def test_a_project_replaces_no_file(tmp_path):
    (tmp_path / "configs").mkdir()
    said = command("init", tmp_path)
    assert said.code == 2 and "has configs already" in said.err and "fmbench init my_benchmark" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]
    (tmp_path / "file").touch()
    assert command("init", tmp_path / "file").code == 2


@pytest.mark.workflow
def test_jobs_in_an_environment_of_conda_import_the_package_that_is_not_in_it(built, tmp_path, monkeypatch):
    """With a stand-in for conda. The environment has its own Python, and only what the file names; fmbench comes by a link."""
    run(built, tmp_path, "fmbench", "init", "mine")
    monkeypatch.setenv("PATH", f"{stand_in_conda.install(tmp_path / 'conda')}{os.pathsep}{os.environ['PATH']}")
    mine = tmp_path / "mine"
    (mine / "my_points.py").write_text(
        "import sys\nfrom fmbench.data.points import checkerboard\n\n\ndef points(**sizes):\n"
        "    open('python', 'w').write(sys.executable + ' ' + sys.modules['fmbench'].__file__)\n"
        "    return checkerboard(**sizes)\n"
    )
    values = {"source": "my_points:points", "parameters": {"train": 40, "test": 10}}
    settings = {"mine": {"data": values, "network": {"kind": "mlp", "width": 8, "depth": 1}}}
    config = {"seeds": [0], "datasets": ["mine"], "methods": ["fm_ot"], "settings": settings, "tracking": {"enabled": False}}
    (mine / "config.yaml").write_text(yaml.safe_dump(config))
    run(built, mine, "snakemake", "--cores", "1", "--sdm", "conda", "--", "results/data/mine/manifest.json")
    interpreter, package = (mine / "python").read_text().split()
    assert Path(interpreter).is_relative_to(mine / ".snakemake" / "conda")
    assert package == str(mine / ".snakemake" / "fmbench" / "fmbench" / "__init__.py")
    assert (tmp_path / "conda" / "created").read_text() == (ROOT / "workflow" / "envs" / "fmbench.yml").read_text()
