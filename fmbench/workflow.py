"""What the Snakefile needs from the package: the checked config, and the environment its jobs run in."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.reading import parse
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError, DataError, FmbenchError
from fmbench.metrics.weights import problem
from fmbench.store.codehash import stage_hash
from fmbench.store.files import read_json
from fmbench.store.tracking import OFF
from fmbench.system.progress import Console


def check_files(files: Iterable[str | Path]) -> None:
    """Refuse config files with what Snakemake does not see: a key that is there twice, or a number that YAML takes for another.

    Raises:
        WorkflowError: one of them has.
    """
    from snakemake.exceptions import WorkflowError

    try:
        for file in files:
            read(str(file))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def configure(values: Mapping[str, Any], sources: Path) -> Config:
    """Check the config that Snakemake has read, and set the environment of all jobs.

    Args:
        sources: the folder with the package, for jobs in environments where it is not installed.

    Raises:
        WorkflowError: the config has errors, or asks for what cannot work.
    """
    from snakemake.exceptions import WorkflowError

    try:
        config = parse(values)
        preflight(config)
    except FmbenchError as error:
        raise WorkflowError(str(error)) from None
    except OSError as error:
        raise WorkflowError(f"{error}. Mend the cause (a full disk, a missing permission) and start again") from None
    # MLflow is told to jobs by the environment, not by params: where the mirror stands must not rerun a training.
    if not config.tracking.enabled:
        os.environ["FMBENCH_TRACKING_URI"] = OFF
    elif config.tracking.uri is not None:
        os.environ["FMBENCH_TRACKING_URI"] = config.tracking.uri
    os.environ["FMBENCH_TRACKING_LIVE_AFTER"] = str(config.tracking.live_after)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Jobs run `python -m fmbench` with the interpreter that runs snakemake, whether or not its environment is activated,
    # and from these sources, whether or not they are installed (as under --software-deployment-method conda).
    _prepend("PATH", str(Path(sys.executable).parent))
    _prepend("PYTHONPATH", str(sources))
    return config


def preflight(config: Config) -> None:
    """Run the stage ``check``, unless these very settings and this code have passed it before.

    What extractors need is looked for on every start: weights that were there once may be gone. Where nothing may be written the
    check is done on every start, for a plan or a look at a config.

    Raises:
        ConfigError: something in the config cannot be built or combined, an extractor's weights or packages are missing, or the
            results folder can be none.
    """
    for name in specs.images(config):
        for part in config.dataset(name).evaluation.features.extractors():
            lacking = problem(part.extractor, part.options)
            if lacking:
                raise ConfigError(f"settings.{name}.evaluation.features: {lacking}")
    spec = specs.check(config)
    key = f"{settings_hash(spec)}-{stage_hash('check', specs.plugins(spec))}"
    results = Path(config.results_dir)
    passed = results / "checked.json"
    try:
        if read_json(passed)["key"] == key:
            return
    except (DataError, KeyError, TypeError, OSError):
        pass  # never checked, or by another version
    from fmbench.stages.check import run

    console = Console("check", "lines")
    try:
        run(spec, {d: results / "data" / d for d in config.datasets}, passed, console, key)
    except (NotADirectoryError, FileExistsError):
        raise ConfigError(
            f"results_dir: {results} cannot be a folder, since it or one above it is a file; choose another results_dir"
        ) from None
    except OSError as error:
        of_the_data = str(error.filename).startswith(str(results / "data"))
        if of_the_data or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        console.say(f"warning: {results} cannot be written ({error}); a run needs another results_dir, or a permission")


def _prepend(variable: str, value: str) -> None:
    rest = os.environ.get(variable)
    os.environ[variable] = value if not rest else os.pathsep.join([value, rest])
