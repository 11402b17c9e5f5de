"""Jobs in an environment of conda: Snakemake takes PYTHONPATH away from them, and this package is in no channel."""

import shlex
from pathlib import Path
from typing import Any

from fmbench.config.installation import PACKAGE

SOURCES = Path(".snakemake") / "fmbench"
"""A folder with a link to this package and nothing else, so that no other package of its environment is seen."""


def keep_package(workflow: Any, shell: Any) -> None:
    """Let jobs in an environment of conda import this package, and plug-ins beside the Snakefile. Other runs stay as they are.

    Args:
        workflow: Snakemake's object in the Snakefile.
        shell: Snakemake's class that runs the commands of rules.
    """
    settings = workflow.deployment_settings
    if settings is None or not any(getattr(method, "name", "") == "CONDA" for method in settings.deployment_method):
        return
    path = f"{shlex.quote(str(_linked().absolute()))}:{shlex.quote(str(Path(workflow.basedir).absolute()))}"
    # The first part is what Snakemake begins commands with unless there is a prefix.
    shell.prefix(f"set -euo pipefail; export PYTHONPATH={_escaped(path)}; ")


def _linked() -> Path:
    SOURCES.mkdir(parents=True, exist_ok=True)
    link = SOURCES / "fmbench"
    if not (link.exists() and link.samefile(PACKAGE)):
        link.unlink(missing_ok=True)
        link.symlink_to(PACKAGE.absolute(), target_is_directory=True)
    return SOURCES


def _escaped(text: str) -> str:
    """The text for a prefix, in which Snakemake fills in names between braces."""
    return text.replace("{", "{{").replace("}", "}}")
