"""The check of a config before any training: the stage ``check``, unless the same settings and code have passed it before."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fmbench.config import selections, specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import RAISED, plugins_in, reason
from fmbench.config.reading import parse
from fmbench.errors import ConfigError, DataError, FmbenchError
from fmbench.metrics.extractor_weights import problem
from fmbench.store.codehash import stage_hash
from fmbench.store.documents import read_document
from fmbench.store.shapes import Checked
from fmbench.system.progress import Console
from fmbench.workflow.needs import count_needs

REFUSED = 2
"""Exit code of the check in a process of its own, when it has found an error. Standard output then has the message."""


def preflight(config: Config) -> None:
    """Run the stage ``check`` in this process, unless the same settings and code have passed it before.

    If the results folder cannot be written, the stage runs on every start; that is enough to plan a run or to validate a config.

    Raises:
        ConfigError: something in the config cannot be built or combined, an extractor's weights or packages are missing, or the
            results folder cannot be a folder.
    """
    if passed(config):
        return
    from fmbench.stages.check import run

    spec, results = specs.check(config), Path(config.results_dir)
    console = Console("check", "lines")
    try:
        run(spec, {d: results / "data" / d for d in config.datasets}, _record(config), console, _key(spec))
    except (NotADirectoryError, FileExistsError):
        raise ConfigError(
            f"results_dir: {results} cannot be a folder, because it or a folder above it is a file; choose another results_dir"
        ) from None
    except OSError as error:
        about_data = str(error.filename).startswith(str(results / "data"))
        if about_data or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        console.say(f"warning: {results} cannot be written ({error}); a run needs write permission, or another results_dir")


def preflight_apart(config: Config) -> None:
    """:func:`preflight`, and the count of what the jobs need, in a process of its own: Snakemake's does not keep torch.

    The process has the environment of the jobs, so it finds the plug-ins that they find.

    Raises:
        ConfigError: as :func:`preflight`; or the process itself failed, and has said why.
    """
    command = [sys.executable, "-m", "fmbench.workflow.preflight"]
    done = subprocess.run(command, input=config.model_dump_json(), stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode == REFUSED:
        raise ConfigError(done.stdout)
    if done.returncode:
        raise ConfigError(f"the check of the config ended with exit code {done.returncode}; its error is above")


def passed(config: Config) -> bool:
    """Whether the same settings and code have passed the check before.

    The weights and packages of extractors are looked for on every call, since weights may have been deleted.

    Raises:
        ConfigError: an extractor's weights or packages are missing.
    """
    for name in selections.images(config):
        for part in config.dataset(name).evaluation.features.extractors():
            lacking = problem(part.extractor, part.options)
            if lacking:
                raise ConfigError(f"settings.{name}.evaluation.features: {lacking}")
    key = _key(specs.check(config))
    try:
        return bool(key) and read_document(_record(config), Checked)["key"] == key
    except DataError:
        return False  # not checked yet, checked by another version, or damaged


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
    methods = [f"methods.{m.name}: {', '.join(plugins_in(m.model_dump()))}" for m in config.methods]
    values = {name: config.dataset(name).model_dump() for name in config.datasets}
    return [line for line in methods if not line.endswith(": ")] + [
        f"settings.{name}: {', '.join(dict.fromkeys(found))}" for name, value in values.items() if (found := plugins_in(value))
    ]


def _record(config: Config) -> Path:
    """The file that says which check has passed."""
    return Path(config.results_dir) / "checked.json"


def _key(spec: dict[str, Any]) -> str:
    """What a passed check holds for; empty if a plug-in's file cannot even be read, which the check then says."""
    try:
        return f"{settings_hash(spec)}-{stage_hash('check', plugins_in(spec))}"
    except RAISED:  # finding a module imports the packages around it
        return ""


def _main() -> None:
    """Check the config that is on standard input, as JSON, and count what its jobs need."""
    try:
        config = parse(json.load(sys.stdin))
        preflight(config)
        _count(config)
    except FmbenchError as error:
        message = str(error)
    except OSError as error:
        message = f"{error}. Remove the cause (a full disk, a missing permission) and start again"
    else:
        return
    print(message, end="")
    sys.exit(REFUSED)


def _count(config: Config) -> None:
    """Count what the jobs need. A count that fails stops no run: its jobs ask for more than most need."""
    try:
        count_needs(config)
    except PermissionError:
        pass  # the check has warned of it
    except Exception as error:
        Console("check", "lines").say(f"note: the memory and time of the jobs could not be counted: {reason(error)}")


if __name__ == "__main__":
    _main()
