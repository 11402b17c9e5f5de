"""The first thing that the Snakefile does: check the config, and set the environment of all jobs."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmbench.config.config import Config
from fmbench.config.installation import IS_CHECKOUT, PACKAGE
from fmbench.config.reading import parse
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError, FmbenchError
from fmbench.store.tracking import OFF
from fmbench.workflow.needs import read_needs
from fmbench.workflow.preflight import passed, preflight_apart


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


def configure(values: Mapping[str, Any], folder: Path) -> Config:
    """Check the config that Snakemake has read, and set the environment of all jobs.

    Args:
        values: the config as Snakemake has read it.
        folder: the folder of the Snakefile, where jobs also find plug-ins.

    Raises:
        WorkflowError: the config has errors, or asks for a combination that cannot work.
    """
    from snakemake.exceptions import WorkflowError

    try:
        config = parse(values)
        _set_environment(config, folder)
        if not passed(config) or read_needs(config) is None:
            preflight_apart(config)
    except FmbenchError as error:
        raise WorkflowError(str(error)) from None
    return config


def _set_environment(config: Config, folder: Path) -> None:
    """Set what all jobs get from the environment, and the check of the config too."""
    # MLflow's address is not among the params: a change of address must not rerun a training.
    if not config.tracking.enabled:
        os.environ["FMBENCH_TRACKING_URI"] = OFF
    elif config.tracking.uri is not None:
        os.environ["FMBENCH_TRACKING_URI"] = config.tracking.uri
    os.environ["FMBENCH_TRACKING_LIVE_AFTER"] = str(config.tracking.live_after)
    os.environ["FMBENCH_TRACKING_MODELS"] = str(config.tracking.models).lower()
    os.environ["FMBENCH_TRACKING_SYSTEM_METRICS_AFTER"] = str(config.tracking.system_metrics_after)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Jobs run `python -m fmbench`. PATH gives them the interpreter that runs snakemake, even if its environment is not activated.
    # PYTHONPATH gives them these sources, even if they are not installed (as under --software-deployment-method conda).
    _prepend("PATH", str(Path(sys.executable).parent))
    # The folder of an installed package has all others too, which an environment with another Python must not see.
    sources = [PACKAGE.parent] if IS_CHECKOUT else []
    for path in dict.fromkeys(str(path.absolute()) for path in [folder, *sources]):
        _prepend("PYTHONPATH", path)


def _prepend(variable: str, value: str) -> None:
    rest = os.environ.get(variable)
    os.environ[variable] = value if not rest else os.pathsep.join([value, rest])
