"""What this machine has and lacks for a config: packages, device, disk, data, weights. Nothing is written or fetched."""

import importlib.metadata
import inspect
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from packaging.requirements import Requirement

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.names import sample_shape
from fmbench.config.plugins import is_dotted
from fmbench.data.prepared import read
from fmbench.data.sources import SOURCES, make
from fmbench.errors import DataError, FmbenchError
from fmbench.metrics.weights import WEIGHTS_SHA256, WEIGHTS_URL, default_weights, problem
from fmbench.store.files import sha256

OK: Final = "ok"
NOTE: Final = "note"
LACKING: Final = "LACKING"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``level``: ``ok``; ``note``, worth knowing; ``LACKING``, without which the config cannot run."""

    level: Literal["ok", "note", "LACKING"]
    what: str
    detail: str


def machine() -> list[Finding]:
    """What belongs to the machine and the installation, whatever the config."""
    import torch

    found = [Finding(OK, "python", f"{platform.python_version()}, {os.cpu_count()} cores")]
    found += packages()
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(k).total_memory / 2**30
            found.append(Finding(OK, "gpu", f"cuda:{k} is a {torch.cuda.get_device_name(k)} with {memory:.0f} GiB"))
    else:
        found.append(Finding(NOTE, "gpu", "none that torch can use; presets with device: cuda cannot run here"))
    return [*found, *weights()]


def packages() -> list[Finding]:
    """The installed versions of what the package requires."""
    found = []
    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("fmbench") or []]
    except importlib.metadata.PackageNotFoundError:
        return [Finding(NOTE, "packages", "fmbench runs from its sources without being installed; versions are not checked")]
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
    return found or [Finding(OK, "packages", f"all {len(requirements)} requirements are there")]


def weights() -> list[Finding]:
    """Weights of feature extractors that a config may name."""
    path = default_weights()
    if not path.exists():
        detail = f"{path} is missing; the extractor inception (FID proper) needs it, from {WEIGHTS_URL}"
        return [Finding(NOTE, "inception weights", detail)]
    if not sha256(path).startswith(WEIGHTS_SHA256):
        return [Finding(LACKING, "inception weights", f"{path} is not the official file; get it again from {WEIGHTS_URL}")]
    return [Finding(OK, "inception weights", str(path))]


def check(config: Config) -> list[Finding]:
    """What a config needs of this machine."""
    import torch

    results = Path(config.results_dir)
    found = []
    if config.device == "cuda" and not torch.cuda.is_available():
        found.append(Finding(LACKING, "device", "the config says cuda, and torch finds no GPU; lay `device: cpu` over it to try"))
    for name in config.datasets:
        found += data(config, name, results)
        if name in specs.images(config):
            found += extractors(config, name)
    found.append(disk(config, results))
    return found


def extractors(config: Config, name: str) -> list[Finding]:
    """The feature extractors that a data set of images is judged by."""
    found = []
    for part in config.dataset(name).evaluation.features.extractors():
        what, lacking = f"extractor {name}", problem(part.extractor, part.options)
        if lacking:
            found.append(Finding(LACKING, what, lacking))
        elif is_dotted(part.extractor):
            found.append(Finding(NOTE, what, f"one of your own, {part.extractor}, tried before any training"))
        else:
            detail = "trained in the DAG" if part.extractor == "classifier" else "packages and weights are here"
            found.append(Finding(OK, what, f"{part.extractor}: {detail}"))
    return found


def data(config: Config, name: str, results: Path) -> list[Finding]:
    """A data set: prepared and whole, or to be prepared from files that are here."""
    folder, what = results / "data" / name, f"data {name}"
    settings = config.dataset(name).data
    try:
        dataset = read(folder)
    except DataError:
        dataset = None
    if dataset is not None:
        if settings_hash(dataset.manifest["spec"]) != settings_hash(specs.prepare(config, name)):
            return [Finding(NOTE, what, f"{folder} was prepared with other settings, and will be prepared again")]
        splits = dataset.manifest["splits"]
        wrong = [split for split in splits if _hash(folder / f"{split}.npy") != splits[split]["sha256"]]
        if wrong:
            paths = ", ".join(str(folder / f"{split}.npy") for split in wrong)
            return [Finding(LACKING, what, f"{paths} is not what the manifest says; delete {folder} to prepare it again")]
        sizes = ", ".join(f"{split} {splits[split]['n']:,}" for split in splits)
        return [Finding(OK, what, f"prepared: {sizes}, hashes right")]
    parameters: dict[str, Any] = dict(settings.parameters)
    if is_dotted(settings.source):
        return [Finding(NOTE, what, f"a source of your own, {settings.source}, tried when it is prepared")]
    fetches = "download" in inspect.signature(SOURCES[settings.source]).parameters
    if fetches:
        parameters["download"] = False
    try:
        make(settings.source, parameters)
    except FmbenchError as error:
        if fetches and settings.parameters.get("download") is not False:
            return [Finding(NOTE, what, f"not here: it will be downloaded ({error})")]
        return [Finding(LACKING, what, str(error))]
    except ValueError as error:
        return [Finding(LACKING, what, str(error))]
    return [Finding(OK, what, "not prepared yet; its files are here")]


def _hash(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def disk(config: Config, results: Path) -> Finding:
    """Free space against what checkpoints, weights and samples of the config take."""
    from fmbench.stages.plan import disk_bytes, parameter_count

    place = results
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    need = 0
    for name in config.datasets:
        settings = config.dataset(name).data
        shape = sample_shape(settings.source, settings.parameters)
        if shape is not None:
            need += disk_bytes(config, name, shape, parameter_count(config, name, shape))
    text = f"{free / 2**30:.1f} GiB free at {place.resolve()}, about {need / 2**30:.1f} GiB needed beside the data sets"
    return Finding(OK if free > need else LACKING, "disk", text)


def text(findings: list[Finding], title: str) -> str:
    """Findings for reading."""
    width = max((len(f.what) for f in findings), default=0)
    return "\n".join([title, *(f"  {f.level:<8}{f.what:<{width}}  {f.detail}" for f in findings)])
