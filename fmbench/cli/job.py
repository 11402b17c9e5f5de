"""From a command's options to the job that a stage runs: its spec, console, device and processes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmbench.config.stages import STAGES, read_by
from fmbench.errors import ConfigError
from fmbench.system.progress import Console, Mode

if TYPE_CHECKING:
    import torch

    from fmbench.stages.shared.job import Job

PRINT_ONE = "Print one with `fmbench spec`"
REQUIRED_KEYS = {
    "prepare": "source",
    "check": "methods",
    "features": "settings",
    "train": "method",
    "gather": "kind",
    "table1": "overrides",
    "table4": "draws",
}
"""A key that the spec of a stage must have, to recognise a spec that is cut short; also one for each thing that is read."""


def read_json(text: str, option: str) -> Any:
    """Return the value of an option that is JSON, or ``@file`` with JSON.

    Raises:
        ConfigError: the text or the file is not JSON, or there is no such file.
    """
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{option} is not JSON and not a file with JSON: {error}. {PRINT_ONE}") from None


def read_spec(text: str, stage: str) -> dict[str, Any]:
    """Return the spec given by ``--spec`` to the command of ``stage``.

    Raises:
        ConfigError: it is not a spec, or it is the spec of another stage.
    """
    spec = read_json(text, "--spec")
    if not isinstance(spec, dict) or "stage" not in spec:
        raise ConfigError(f"--spec must be an object with a stage. {PRINT_ONE}")
    if spec["stage"] != stage:
        command = stage.replace("_", "-")
        raise ConfigError(f"--spec is for the stage {spec['stage']!r}, not for `fmbench {command}`. {PRINT_ONE}")
    for key in (REQUIRED_KEYS.get(stage, "stage"), *read_by(stage)):
        if key not in spec:
            raise ConfigError(f"--spec has no {key!r}, which the stage {stage!r} needs. {PRINT_ONE}")
    return spec


def open_console(spec: dict[str, Any], mode: Mode, log: Path | None) -> Console:
    """Return a console labelled by the stage, data set, method and seed of ``spec``."""
    method = spec.get("method")
    if isinstance(method, dict):
        method = method["name"]
    parts = [str(p) for p in (spec.get("dataset"), method, spec.get("seed")) if p is not None]
    return Console(" ".join([spec["stage"], "/".join(parts)]).strip(), mode, log)


@dataclass(frozen=True)
class JobOptions:
    """The options that every job of a stage takes; :mod:`fmbench.cli.options` describes them."""

    log: Path | None
    mode: Mode
    device: str
    threads: int
    code: str


def open_job(spec: dict[str, Any], options: JobOptions) -> "Job":
    """Return the job of this process, after joining the other processes and preparing its device.

    Raises:
        ConfigError: the job needs another number of processes, its device cannot be used, or its processes cannot find each
            other.
    """
    import torch

    from fmbench.config.execution import code_stage, launcher, processes
    from fmbench.config.plugins import plugins_in
    from fmbench.stages.shared.job import Job
    from fmbench.store.codehash import stage_hash
    from fmbench.system.distributed import choose_device, join_group, launched
    from fmbench.system.heap import keep_freed_memory

    started, wanted = launched(), processes(spec)
    if wanted != started and not (spec["stage"] in STAGES and STAGES[spec["stage"]].shared):
        command = f"{launcher(wanted)} fmbench {spec['stage'].replace('_', '-')} ..."
        raise ConfigError(f"this job needs {wanted} processes, but {started} were started; start it by {command}")
    torch.set_num_threads(max(1, options.threads // started))
    keep_freed_memory()
    device = _prepare_device(choose_device(options.device or spec.get("device", "cpu")))
    console = open_console(spec, options.mode, options.log)
    group = join_group(device, console.say)
    # Only the first process writes, so from here only that one reports.
    if not group.main:
        console = open_console(spec, "none", None)
    code_hash = options.code or stage_hash(code_stage(spec), plugins_in(spec))
    return Job(spec, console, device, code_hash, group=group)


def _prepare_device(name: str) -> "torch.device":
    import torch

    from fmbench.system.devices import reproducible, round_products

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"the device {name!r} cannot be used on this machine: {error}") from None
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        reproducible()  # only on a GPU, since it costs two seconds of imports
        # A solver at a tolerance of 1e-5 would pay for rounded products in evaluations. Trainings set their own precision.
        round_products("ieee")
    return device
