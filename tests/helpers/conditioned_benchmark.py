"""A tiny benchmark with conditions: images given their low-resolution images, or given their labels with guidance."""

import json
from typing import Any

from tiny_benchmark import VALUES

LOW: dict[str, Any] = {"low_resolution": {"factor": 2, "filter": "bicubic"}}
FROM_LOW: dict[str, Any] = {"name": "from_low", "use": "fm_ot", "source": {"name": "condition", "std": 0.5}}
FROM_LOW_ALONE: dict[str, Any] = {"name": "from_low_alone", "use": "fm_ot", "source": {"name": "condition", "std": 0.0}}


def values(condition: Any, methods: list[Any], **changes: Any) -> dict[str, Any]:
    """The tiny benchmark's images with a condition; ``changes`` are of their evaluation."""
    made = json.loads(json.dumps(VALUES)) | {"datasets": ["tall"], "methods": methods}
    tall = made["settings"]["tall"]
    tall["condition"] = condition
    if condition == "label":
        tall["training"]["label_dropout"] = 0.3
    tall["evaluation"] |= changes
    return dict(made)


def super_resolution() -> dict[str, Any]:
    """Images from their low-resolution images, with as many test images as samples."""
    methods = ["fm_ot", "ddpm", "regression", "oracle_ot", FROM_LOW, FROM_LOW_ALONE]
    made = values(LOW, methods, super_resolution={"window": 3})
    made["settings"]["tall"]["data"]["parameters"]["test"] = made["settings"]["tall"]["evaluation"]["sample"]["n"]
    return made


def by_label() -> dict[str, Any]:
    """Images from their labels, with samples of guidance 2."""
    return values("label", ["fm_ot", "oracle_ot"], guidance=2.0)
