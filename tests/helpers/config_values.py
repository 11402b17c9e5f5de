"""A small config to change in tests, and the error of a wrong one."""

import copy
from typing import Any

import pytest

from fmbench.config.reading import parse
from fmbench.errors import ConfigError

EVALUATIONS = ("sample", "likelihood", "dequantisation", "sweep", "sample_quality", "learning_curve", "few_step", "trajectory")
"""The stages that evaluate one model."""

BASE: dict[str, Any] = {
    "results_dir": "results",
    "seeds": [0, 1],
    "datasets": ["board", "digits"],
    "methods": ["ddpm", "fm_ot", {"name": "mine", "path": "cosine_vp", "prediction": "v"}],
    "settings": {
        "board": {
            "data": {"source": "checkerboard", "parameters": {"train": 100}},
            "network": {"kind": "mlp", "width": 8},
            "training": {"iterations": 100, "learning_rate": 0.001, "warmup_iterations": 10},
            "evaluation": {"sweep": {"nfe": [4, 8]}, "likelihood": {"n": 10}, "sample": {"n": 10}},
        },
        "digits": {"data": "digits", "network": {"kind": "unet", "channels": 8}},
    },
    "tracking": {"enabled": False},
}


def changed(*changes: tuple[str, Any], base: dict[str, Any] = BASE) -> dict[str, Any]:
    """``base`` with the values at dotted places set; a number is a place in a list."""
    values = copy.deepcopy(base)
    for place, value in changes:
        *way, last = (int(key) if key.isdigit() else key for key in place.split("."))
        here: Any = values
        for key in way:
            here = here[key] if isinstance(here, list) else here.setdefault(key, {})
        here[last] = value
    return values


def config_error(values: dict[str, Any]) -> str:
    """The message with which reading these values fails."""
    with pytest.raises(ConfigError) as caught:
        parse(values)
    return str(caught.value)
