"""Small configs and presets to plan, and their plans."""

from functools import cache
from pathlib import Path

from fmbench.config.config import Config
from fmbench.config.reading import load, parse
from fmbench.stages.plan.estimate import run

ROOT = Path(__file__).parent.parent.parent
MLP = {"kind": "mlp", "width": 10, "depth": 1}


def points_config(methods=("fm_ot",), network=MLP, training=None, evaluation=None) -> Config:
    """The checkerboard with an MLP of 62 parameters and three seeds."""
    board = {"data": "checkerboard", "network": network, "training": training or {}, "evaluation": evaluation or {}}
    return parse({"datasets": ["board"], "methods": list(methods), "seeds": [0, 1, 2], "settings": {"board": board}})


def digits_config(processes=1, training=None, evaluation=None, parameters=None, condition=None) -> Config:
    """Digits with a small U-Net on GPUs, and 20 test images in the likelihood."""
    digits = {
        "data": {"source": "digits", "parameters": parameters or {}},
        "condition": condition,
        "network": {"kind": "unet", "channels": 32, "depth": 1},
        "training": training or {},
        "evaluation": {"likelihood": {"n": 20}} | (evaluation or {}),
    }
    base = {"datasets": ["digits"], "methods": ["fm_ot"], "device": "cuda", "processes": processes}
    return parse(base | {"settings": {"digits": digits}})


def plan_of(config: Config, folder: Path = Path("nowhere"), probe: float = 0) -> dict:
    """The plan of a config's only data set, with the hours of an H100."""
    (found,) = run(config, ["h100"], folder, probe, 1)["datasets"]
    return found


def preset(name: str) -> Config:
    """The default config with one of ``configs/``."""
    return load(str(ROOT / "config.yaml"), str(ROOT / "configs" / f"{name}.yaml"))


@cache
def plan_of_preset(name: str) -> dict:
    """The plan of a preset. Tests must not change it."""
    return plan_of(preset(name))
