"""Reports what this machine has and lacks for a config: packages, device, disk, data, weights. It changes nothing."""

import importlib.metadata
import inspect
import os
import platform
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from packaging.requirements import Requirement

from fmbench.config import selections, specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import is_dotted
from fmbench.data.prepared import DataSet, read
from fmbench.data.sources import SOURCES, make
from fmbench.errors import DataError, FmbenchError
from fmbench.metrics.extractor_weights import WEIGHTS_SHA256, WEIGHTS_URL, default_weights, problem
from fmbench.store.files import sha256

OK: Final = "ok"
NOTE: Final = "note"
LACKING: Final = "LACKING"


@dataclass(frozen=True)
class Finding:
    """The state of one requirement."""

    level: Literal["ok", "note", "LACKING"]  # "LACKING": the config cannot run without it
    what: str  # the requirement
    detail: str  # what was found, with the remedy if it is lacking


def machine() -> list[Finding]:
    """The state of the machine and the installation, whatever the config."""
    import torch

    found = [Finding(OK, "python", f"{platform.python_version()}, {os.cpu_count()} cores")]
    found += packages()
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(k).total_memory / 2**30
            found.append(Finding(OK, "gpu", f"cuda:{k} is a {torch.cuda.get_device_name(k)} with {memory:.0f} GiB"))
    else:
        found.append(Finding(NOTE, "gpu", "torch finds no GPU; configs with device: cuda cannot run here"))
    return [*found, *weights()]


def packages() -> list[Finding]:
    """The packages that fmbench requires and that are missing or too old."""
    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("fmbench") or []]
    except importlib.metadata.PackageNotFoundError:
        return [Finding(NOTE, "packages", "fmbench runs from its sources without being installed; versions are not checked")]
    found = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(LACKING, "packages", f"{requirement.name} is not installed: pip install '{requirement}'"))
            continue
        if version not in requirement.specifier:
            found.append(Finding(LACKING, "packages", f"{requirement.name} is {version}: pip install '{requirement}'"))
    return found or [Finding(OK, "packages", f"all {len(requirements)} requirements are installed")]


def weights() -> list[Finding]:
    """The state of the Inception weights, which a config may ask for."""
    path = default_weights()
    if not path.exists():
        detail = f"{path} is missing; the extractor inception (for the FID) needs it: download {WEIGHTS_URL}"
        return [Finding(NOTE, "inception weights", detail)]
    if not sha256(path).startswith(WEIGHTS_SHA256):
        return [Finding(LACKING, "inception weights", f"{path} is not the official file; download {WEIGHTS_URL} again")]
    return [Finding(OK, "inception weights", str(path))]


def check(config: Config) -> list[Finding]:
    """The state of what a config needs of this machine."""
    import torch

    results = Path(config.results_dir)
    found = []
    if config.device == "cuda" and not torch.cuda.is_available():
        detail = "the config has device: cuda, but torch finds no GPU; set device: cpu to try it on the processor"
        found.append(Finding(LACKING, "device", detail))
    for name in config.datasets:
        found.append(data(config, name, results))
        if name in selections.images(config):
            found += extractors(config, name)
    found.append(disk(config, results))
    return found


def extractors(config: Config, name: str) -> list[Finding]:
    """The state of a data set's feature extractors."""
    found = []
    for part in config.dataset(name).evaluation.features.extractors():
        what, lacking = f"extractor {name}", problem(part.extractor, part.options)
        if lacking:
            found.append(Finding(LACKING, what, lacking))
        elif is_dotted(part.extractor):
            found.append(Finding(NOTE, what, f"plug-in {part.extractor}: tried before any training"))
        else:
            detail = "trained in the DAG" if part.extractor == "classifier" else "packages and weights are here"
            found.append(Finding(OK, what, f"{part.extractor}: {detail}"))
    return found


def data(config: Config, name: str, results: Path) -> Finding:
    """The state of a data set: prepared, or to be prepared from files that are here or not."""
    folder, what = results / "data" / name, f"data {name}"
    try:
        dataset = read(folder)
    except DataError:
        return _unprepared(config, name, what)
    if settings_hash(dataset.manifest["spec"]) != settings_hash(specs.prepare(config, name)):
        return Finding(NOTE, what, f"{folder} was prepared with other settings; it will be prepared again")
    return _prepared(dataset, folder, what)


def _prepared(dataset: DataSet, folder: Path, what: str) -> Finding:
    splits = dataset.manifest["splits"]
    wrong = [str(folder / f"{split}.npy") for split in splits if _hash(folder / f"{split}.npy") != splits[split]["sha256"]]
    if wrong:
        detail = f"not the files of the manifest: {', '.join(wrong)}; delete {folder} to prepare it again"
        return Finding(LACKING, what, detail)
    sizes = ", ".join(f"{split} {splits[split]['n']:,}" for split in splits)
    return Finding(OK, what, f"prepared: {sizes}, hashes match")


def _unprepared(config: Config, name: str, what: str) -> Finding:
    settings = config.dataset(name).data
    if is_dotted(settings.source):
        return Finding(NOTE, what, f"plug-in {settings.source}: tried when the data are prepared")
    parameters, downloads = dict(settings.parameters), "download" in inspect.signature(SOURCES[settings.source]).parameters
    may_download = downloads and parameters.get("download") is not False
    if downloads:
        parameters["download"] = False
    try:
        make(settings.source, parameters)
    except (FmbenchError, ValueError) as error:
        if may_download and isinstance(error, FmbenchError):
            return Finding(NOTE, what, f"not here; the preparation downloads it ({error})")
        return Finding(LACKING, what, str(error))
    return Finding(OK, what, "not prepared yet; its files are here")


def _hash(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def disk(config: Config, results: Path) -> Finding:
    """Free space against what the config's checkpoints, weights and samples take."""
    from fmbench.stages.plan.memory import disk_bytes
    from fmbench.stages.plan.workload import read_workload

    place = next(folder for folder in (results, *results.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    works = [read_workload(config, name, results) for name in config.datasets]
    need = sum(disk_bytes(replace(work, sizes=None)) for work in works if work is not None)
    detail = f"{free / 2**30:.1f} GiB free at {place.resolve()}, about {need / 2**30:.1f} GiB needed besides the data sets"
    return Finding(OK if free > need else LACKING, "disk", detail)


def text(findings: list[Finding], title: str) -> str:
    """Findings for reading."""
    width = max((len(f.what) for f in findings), default=0)
    return "\n".join([title, *(f"  {f.level:<8}{f.what:<{width}}  {f.detail}" for f in findings)])
