"""Functions for the Snakefile: check the config, and set the environment of all jobs."""

import atexit
import errno
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import RAISED
from fmbench.config.reading import parse
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError, DataError, FmbenchError
from fmbench.metrics.extractor_weights import problem
from fmbench.store.codehash import stage_hash
from fmbench.store.documents import read_document
from fmbench.store.shapes import Checked
from fmbench.store.tracking import OFF
from fmbench.system.progress import Console


def check_files(files: Iterable[str | Path]) -> None:
    """Check config files for errors that Snakemake does not see: a repeated key, or a number that YAML reads as another one.

    A file that is not there is left to Snakemake.

    Raises:
        WorkflowError: a file has such an error.
    """
    from snakemake.exceptions import WorkflowError

    try:
        for file in files:
            if os.path.exists(file):
                read(str(file))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def configure(values: Mapping[str, Any], sources: Path) -> Config:
    """Check the config that Snakemake has read, and set the environment of all jobs.

    Args:
        values: the config as Snakemake has read it.
        sources: the folder that holds the package, for jobs in environments where it is not installed.

    Raises:
        WorkflowError: the config has errors, or asks for a combination that cannot work.
    """
    from snakemake.exceptions import WorkflowError

    try:
        config = parse(values)
        preflight(config)
    except FmbenchError as error:
        raise WorkflowError(str(error)) from None
    except OSError as error:
        raise WorkflowError(f"{error}. Remove the cause (a full disk, a missing permission) and start again") from None
    # Jobs get MLflow's address from the environment, not from params: a change of address must not rerun a training.
    if not config.tracking.enabled:
        os.environ["FMBENCH_TRACKING_URI"] = OFF
    elif config.tracking.uri is not None:
        os.environ["FMBENCH_TRACKING_URI"] = config.tracking.uri
    os.environ["FMBENCH_TRACKING_LIVE_AFTER"] = str(config.tracking.live_after)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Jobs run `python -m fmbench`. PATH gives them the interpreter that runs snakemake, even if its environment is not activated.
    # PYTHONPATH gives them these sources, even if they are not installed (as under --software-deployment-method conda).
    _prepend("PATH", str(Path(sys.executable).parent))
    _prepend("PYTHONPATH", str(sources))
    return config


def preflight(config: Config) -> None:
    """Run the stage ``check``, unless the same settings and code have passed it before.

    The weights and packages of extractors are looked for on every start, since weights may have been deleted. If the results
    folder cannot be written, the stage runs on every start; that is enough to plan a run or to validate a config.

    Raises:
        ConfigError: something in the config cannot be built or combined, an extractor's weights or packages are missing, or the
            results folder cannot be a folder.
    """
    for name in specs.images(config):
        for part in config.dataset(name).evaluation.features.extractors():
            lacking = problem(part.extractor, part.options)
            if lacking:
                raise ConfigError(f"settings.{name}.evaluation.features: {lacking}")
    spec = specs.check(config)
    key = _check_key(spec)
    results = Path(config.results_dir)
    passed = results / "checked.json"
    try:
        if key and read_document(passed, Checked)["key"] == key:
            return
    except DataError:
        pass  # not checked yet, checked by another version, or damaged
    from fmbench.stages.check import run

    console = Console("check", "lines")
    try:
        run(spec, {d: results / "data" / d for d in config.datasets}, passed, console, key)
    except (NotADirectoryError, FileExistsError):
        raise ConfigError(
            f"results_dir: {results} cannot be a folder, because it or a folder above it is a file; choose another results_dir"
        ) from None
    except OSError as error:
        about_data = str(error.filename).startswith(str(results / "data"))
        if about_data or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        console.say(f"warning: {results} cannot be written ({error}); a run needs write permission, or another results_dir")


def say_whether_reproduced(config: Config) -> None:
    """Compare a finished run with the reference, and print the sentence when Snakemake ends, below its own messages."""
    results = Path(config.results_dir)
    if not (results / "records.parquet").exists():
        return
    command = [
        sys.executable,
        "-m",
        "fmbench",
        "reproduce",
        "--results",
        str(results),
        "--out",
        str(results / "reproduction.csv"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    atexit.register(print, said[-1] if said else f"{' '.join(command)} failed")


def look(config: Config) -> list[str]:
    """Check as much of a config as can be checked without running any code that it names, and write nothing.

    Returns:
        The plug-ins that were not looked at, each with its place in the config.

    Raises:
        ConfigError: something else in the config cannot be built or combined.
    """
    from fmbench.stages.check import try_all

    results = Path(config.results_dir)
    try_all(specs.check(config, code=False), {name: results / "data" / name for name in config.datasets}, code=False)
    methods = [f"methods.{m.name}: {', '.join(specs.plugins(m.model_dump()))}" for m in config.methods]
    values = {name: config.dataset(name).model_dump() for name in config.datasets}
    return [line for line in methods if not line.endswith(": ")] + [
        f"settings.{name}: {', '.join(dict.fromkeys(found))}" for name, value in values.items() if (found := specs.plugins(value))
    ]


def _check_key(spec: dict[str, Any]) -> str:
    """What a passed check holds for; empty if a plug-in's file cannot even be read, which the check then says."""
    try:
        return f"{settings_hash(spec)}-{stage_hash('check', specs.plugins(spec))}"
    except RAISED:  # finding a module imports the packages around it
        return ""


def _prepend(variable: str, value: str) -> None:
    rest = os.environ.get(variable)
    os.environ[variable] = value if not rest else os.pathsep.join([value, rest])
