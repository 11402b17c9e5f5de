"""The evaluator that the stage ``features`` wrote, read again."""

import json
from pathlib import Path
from typing import Any

import torch

from fmbench.config.feature_settings import FeatureSettings
from fmbench.data.prepared import DataSet
from fmbench.stages.evaluators.base import Evaluator
from fmbench.stages.evaluators.extraction import Extraction, open_extractor
from fmbench.stages.evaluators.image_metrics import Comparison
from fmbench.stages.evaluators.images import ImageEvaluator
from fmbench.stages.evaluators.points import PointEvaluator
from fmbench.stages.evaluators.references import read_reference
from fmbench.store.codehash import plugin_code
from fmbench.store.documents import read_document
from fmbench.store.seal import check_seal
from fmbench.store.shapes import EvaluatorOfImages, EvaluatorOfPoints
from fmbench.system.distributed import ALONE, Group
from fmbench.system.progress import Console


def load_evaluator(
    folder: Path, dataset: DataSet, device: torch.device, console: Console | None = None, group: Group = ALONE
) -> Evaluator:
    """The evaluator that the stage ``features`` wrote into ``folder``.

    Args:
        console: where the progress of long extractions is shown.
        group: the processes that share the extraction of features.

    Raises:
        DataError, CheckpointError, ConfigError: a part of it is missing, is damaged, or has changed since it was written.
    """
    values = read_document(folder / "extractor.json", EvaluatorOfImages if dataset.is_images else EvaluatorOfPoints)
    settings, seed = FeatureSettings.model_validate(values["settings"]), values["seed"]
    if not dataset.is_images:
        return PointEvaluator(dataset, settings, values["median_distance"], seed)
    comparisons = []
    for part in values["extractors"]:
        extractor, batch = open_extractor(part, folder, dataset, device)
        reference = read_reference(folder / part["reference"], part["reference_name"])
        comparisons.append(Comparison(extractor, batch, reference, part["suffix"]))
    return ImageEvaluator(dataset, comparisons, settings, values["floor_n"], seed, Extraction(device, console, group))


def evaluator_key(folder: Path) -> dict[str, Any]:
    """The entries of a cache key that identify an evaluator. The spec alone does not know how a classifier turned out."""
    described = folder / "extractor.json"
    return {"evaluator": check_seal(described), "plug-in code": plugin_code(json.loads(described.read_bytes()))}
