"""Distances of upsampled test images to the test split itself, beside those to the training split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fmbench.errors import DataError
from fmbench.stages.evaluators.base import Evaluator
from fmbench.stages.evaluators.images import ImageEvaluator
from fmbench.stages.evaluators.references import Reference, make_reference, read_reference, reference_name, write_reference

DISTANCES = ("frechet", "frechet_stderr")
"""The metrics whose reference is the test split, too. Their rows are called ``frechet_test`` and ``frechet_test_stderr``."""


def of_images(evaluator: Evaluator) -> ImageEvaluator:
    """The evaluator, if it is one of images.

    Raises:
        DataError: it is one of points.
    """
    if not isinstance(evaluator, ImageEvaluator):
        raise DataError("super-resolution is measured on images, and these are points; remove the condition of the data set")
    return evaluator


def write_test_references(evaluator: ImageEvaluator, out: Path) -> list[Reference]:
    """Write what each extractor makes of all test images into ``out``, and return it."""
    dataset, settings = evaluator.dataset, evaluator.settings.model_copy(update={"reference_n": None})
    found = []
    for i, comparison in enumerate(evaluator.comparisons):
        extractor, batch = comparison.extractor, comparison.batch
        found.append(make_reference(extractor, dataset, settings, evaluator.seed, batch, evaluator.extraction, "test"))
        write_reference(_file(out, i), found[i])
    return found


def read_test_references(evaluator: ImageEvaluator, folder: Path) -> list[Reference]:
    """What :func:`write_test_references` wrote into ``folder``; it raises as :func:`read_reference`."""
    name = reference_name(evaluator.dataset, split="test")
    return [read_reference(_file(folder, i), name) for i in range(len(evaluator.comparisons))]


def _file(folder: Path, extractor: int) -> Path:
    return folder / f"test-{extractor}.safetensors"


def against_test(evaluator: ImageEvaluator, references: Sequence[Reference]) -> ImageEvaluator:
    """The evaluator with the test split as its reference."""
    comparisons = [replace(c, reference=r) for c, r in zip(evaluator.comparisons, references, strict=True)]
    return evaluator.with_comparisons(comparisons)


def distances(evaluator: ImageEvaluator) -> list[str]:
    """The names of :data:`DISTANCES` for every extractor."""
    return [metric + comparison.suffix for comparison in evaluator.comparisons for metric in DISTANCES]


def called(metric: str) -> str:
    """The name of a distance to the test split in its row: ``frechet_test``, ``frechet_test_stderr/efficientnet_lite0``."""
    return metric.replace("frechet", "frechet_test", 1)
