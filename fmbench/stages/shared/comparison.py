"""Whether the upsampled images of a data set can be compared with their originals."""

import contextlib
from pathlib import Path
from typing import Any

from fmbench.config.datasets import split_sizes
from fmbench.config.super_resolution_settings import SuperResolutionSettings, super_resolution_problem
from fmbench.data.prepared import read
from fmbench.errors import DataError


def comparison_problems(settings: dict[str, Any], shape: tuple[int, ...], folder: Path) -> list[str]:
    """Why upsampled images of ``shape`` cannot be compared with their originals, if that is asked for.

    Args:
        settings: of the data set, as in the spec of the stage ``check``.
        folder: where the data set is or will be prepared.
    """
    if "comparison" not in settings:
        return []
    sizes = split_sizes(settings["data"]["source"], settings["data"]["parameters"])
    test = None if sizes is None else sizes[1]
    with contextlib.suppress(DataError):
        test = read(folder).manifest["splits"]["test"]["n"]
    about = settings["comparison"]
    values = SuperResolutionSettings.model_validate(about["settings"])
    problem = super_resolution_problem(values, about["n"], about["splits"], shape, test)
    return [f"evaluation.{problem}"] if problem else []
