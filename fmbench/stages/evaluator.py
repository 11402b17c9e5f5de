"""Evaluators of sample quality: extractors with the reference they compare to, read from what the stage ``features`` wrote.

Any stage that has samples can ask it. Of images it takes distances between features of samples and of training images; of
points, distances in the plane to the test set. What belongs to the reference alone is computed once for a data set and kept in
a file, whose name is a hash of the data, the extractor and its code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fmbench.config.feature_settings import FeatureSettings
from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import is_dotted
from fmbench.data.prepared import DataSet, drawn
from fmbench.errors import DataError
from fmbench.metrics.extractors import Extractor, View, extract, extract_batches, make_extractor
from fmbench.metrics.fid_infinity import frechet_infinity
from fmbench.metrics.frechet import FeatureAccumulator, FeatureStatistics, feature_statistics, frechet_distance
from fmbench.metrics.inception_score import inception_score
from fmbench.metrics.kid import kernel_distance
from fmbench.metrics.points import SUPPORTS, energy_distance, gaussian_mmd, sliced_wasserstein
from fmbench.metrics.precision_recall import precision_recall
from fmbench.stages import classifier as in_dag
from fmbench.store.checkpoint import load_weights
from fmbench.store.codehash import module_hash, plugin_code
from fmbench.store.files import atomic, read_json, sha256
from fmbench.system.distributed import ALONE, Group
from fmbench.system.progress import Console
from fmbench.system.rng import generator

UNITS = {
    "frechet": "squared features",
    "frechet_at_floor_n": "squared features",
    "frechet_infinity": "squared features",
    "frechet_infinity_slope": "squared features",
    "frechet_infinity_error": "squared features",
    "kid": "squared MMD",
    "kid_std": "squared MMD",
    "precision": "fraction",
    "recall": "fraction",
    "inception_score": "score",
    "inception_score_std": "score",
    "classifier_score": "score",
    "classifier_score_std": "score",
    "energy_distance": "data units",
    "sliced_wasserstein": "data units",
    "mmd": "squared MMD",
    "off_support": "fraction",
}
"""Every metric of an evaluator and its unit."""

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the MMD of points, in the median distance between two points of the data."""


class Measurement(NamedTuple):
    """One number about samples. ``n`` is how many of them it is of; ``features``, ``reference``: as in :class:`records.Row`."""

    metric: str
    value: float
    unit: str
    n: int
    features: str
    reference: str


class Metric(NamedTuple):
    """What an evaluator measures, for a row where it could not be."""

    metric: str
    unit: str
    features: str
    reference: str


class Evaluator(ABC):
    """What says how close samples are to the data.

    Attributes:
        primary: the metric that tables and figures show.
        features, reference: what the primary metric is taken on, and against.
    """

    primary: str
    features: str
    reference: str

    @abstractmethod
    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        """All that :meth:`measure` can give of enough samples.

        Raises:
            ValueError: ``only`` names what this evaluator does not measure.
        """

    @abstractmethod
    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        """Quality of samples of shape (N, *) in model space, all finite.

        Args:
            only: just these metrics; what they do not need is not computed.

        Raises:
            ValueError: samples of another shape, not finite, or fewer than two; a metric that this evaluator does not measure.
        """

    @abstractmethod
    def measure_data(self, values: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        """:meth:`measure` of values in data space, such as a split of the data set, in whatever order."""

    def _chosen(self, everything: Iterable[Metric], only: Sequence[str] | None) -> list[Metric]:
        everything = list(everything)
        known = [m.metric for m in everything]
        unknown = sorted(set(only or ()) - set(known))
        if unknown:
            raise ValueError(f"unknown metric {', '.join(unknown)}; this evaluator measures {', '.join(known)}")
        return [m for m in everything if only is None or m.metric in only]


@dataclass(frozen=True)
class Reference:
    """What an extractor makes of the training images: statistics of them, and features (m, F) of some, in random order."""

    name: str
    statistics: FeatureStatistics
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Side:
    """An extractor with its reference. ``suffix`` stands behind the names of its metrics: empty for the first extractor."""

    extractor: Extractor
    reference: Reference
    suffix: str
    batch: int


class ImageEvaluator(Evaluator):
    """Distances between features of samples and of the training images, for each extractor."""

    def __init__(
        self,
        dataset: DataSet,
        sides: Sequence[Side],
        settings: FeatureSettings,
        floor_n: int,
        seed: int,
        device: torch.device,
        console: Console | None = None,
        group: Group = ALONE,
    ) -> None:
        self.group = group
        self.dataset, self.sides, self.settings, self.floor_n, self.seed = dataset, sides, settings, floor_n, seed
        self.device, self.console = device, console
        self.primary, self.features, self.reference = "frechet", sides[0].extractor.name, sides[0].reference.name

    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        found = []
        for side in self.sides:
            names = ["frechet", "frechet_at_floor_n", "kid", "kid_std", "precision", "recall"]
            if side.extractor.logits is not None:
                names += [_score(side.extractor), f"{_score(side.extractor)}_std"]
            if self.settings.infinity_sizes is not None:
                names += ["frechet_infinity", "frechet_infinity_slope", "frechet_infinity_error"]
            found += [Metric(n + side.suffix, UNITS[n], side.extractor.name, side.reference.name) for n in names]
        return self._chosen(found, only)

    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        def read(rows: slice) -> NDArray[np.uint8]:
            piece = np.asarray(samples[rows])
            if not np.isfinite(piece).all():
                raise ValueError("samples are not all finite; what they come from has diverged")
            values: NDArray[np.uint8] = self.dataset.to_data(piece)
            return values

        return self._measure(View(len(samples), read), samples.shape[1:], only, of_data=False)

    def measure_data(self, values: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        return self._measure(View(len(values), lambda rows: np.asarray(values[rows])), values.shape[1:], only, of_data=True)

    def _measure(self, levels: View, shape: tuple[int, ...], only: Sequence[str] | None, of_data: bool) -> list[Measurement]:
        if shape != self.dataset.shape or len(levels) < 2:
            raise ValueError(f"need two or more samples of {self.dataset.shape}, not {len(levels)} of {shape}")
        chosen = {m.metric for m in self.metrics(only)}
        found: list[Measurement] = []
        for side in self.sides:
            own = {m.removesuffix(side.suffix) for m in chosen if m.endswith(side.suffix) and ("/" in m) == bool(side.suffix)}
            if own:
                found += self._of_side(side, levels, own, of_data)
        return found

    def _of_side(self, side: Side, levels: View, wanted: set[str], of_data: bool) -> list[Measurement]:
        extractor, reference, settings = side.extractor, side.reference, self.settings
        features = extract(extractor, pixels(extractor, self.dataset, levels), side.batch, _progress(self.console), self.group)
        n, found = len(features), []
        # Samples come in no order, while a split of the data may be sorted by class.
        places = torch.randperm(n, generator=generator(self.seed, "places")).numpy() if of_data else np.arange(n)

        def some(k: int) -> NDArray[np.float32]:
            return features if k == n else features[places[:k]]

        def add(metric: str, value: float, of: int, against: str = "") -> None:
            if metric in wanted:
                name = f"{reference.name}{against}"
                found.append(Measurement(metric + side.suffix, value, UNITS[metric], of, extractor.name, name))

        if "frechet" in wanted:
            add("frechet", frechet_distance(feature_statistics(features), reference.statistics), n)
        if "frechet_at_floor_n" in wanted and n >= self.floor_n >= 2:
            statistics = feature_statistics(some(self.floor_n))
            add("frechet_at_floor_n", frechet_distance(statistics, reference.statistics), self.floor_n)

        # On the device: these take many products of features.
        m = min(settings.max_samples, n)
        mine, real = (torch.from_numpy(f).to(self.device) for f in (some(m), reference.features[: settings.max_samples]))
        size = min(settings.kid.size, min(len(mine), len(real)) // 2)  # subsets that can differ from each other
        if wanted & {"kid", "kid_std"} and size >= 2:
            kid = kernel_distance(mine, real, generator(self.seed, "kid"), settings.kid.subsets, size)
            against = f"; {kid.subsets} subsets of {kid.size} out of {len(real)}"
            add("kid", kid.mean, m, against)
            add("kid_std", kid.std, m, against)
        both = min(len(mine), len(real))
        if wanted & {"precision", "recall"} and both > settings.neighbours:
            covered = precision_recall(real[:both], torch.from_numpy(some(both)).to(self.device), settings.neighbours)
            against = f"; {both} of them, k = {settings.neighbours}"
            add("precision", covered.precision, both, against)
            add("recall", covered.recall, both, against)
        score = _score(extractor)
        if extractor.logits is not None and wanted & {score, f"{score}_std"} and n >= settings.splits:
            pieces = (features[places[start : start + 1000]] for start in range(0, n, 1000))
            logits = np.concatenate([extractor.logits(torch.from_numpy(piece)).cpu().numpy() for piece in pieces])
            value = inception_score(logits, settings.splits)
            name = f"none; {settings.splits} splits"
            for metric, number in ((score, value.mean), (f"{score}_std", value.std)):
                if metric in wanted:
                    found.append(Measurement(metric + side.suffix, number, UNITS[metric], n, extractor.name, name))
        infinite = {w for w in wanted if w.startswith("frechet_infinity")}
        smallest = max(2, n // 10)
        if infinite and settings.infinity_sizes is not None and n - smallest >= settings.infinity_sizes - 1:
            order = generator(self.seed, "frechet_infinity")
            fit = frechet_infinity(features, reference.statistics, order, settings.infinity_sizes, smallest)
            against = f"; a line in 1 / n through {len(fit.sizes)} sizes from {smallest}"
            add("frechet_infinity", fit.intercept, n, against)
            add("frechet_infinity_slope", fit.slope, n, against)
            add("frechet_infinity_error", fit.error, n, against)
        return found


class PointEvaluator(Evaluator):
    """Distances in the plane to the test split, and the fraction off the support where it is known."""

    def __init__(self, dataset: DataSet, settings: FeatureSettings, median: float | None, seed: int) -> None:
        self.dataset, self.settings, self.seed = dataset, settings, seed
        self.bandwidths = [] if median is None else [median * b for b in BANDWIDTHS]
        self.primary, self.features, self.reference = "energy_distance", "coordinates", f"test, n = {len(dataset.test)}"

    def metrics(self, only: Sequence[str] | None = None) -> list[Metric]:
        names = ["energy_distance", "sliced_wasserstein", *(["mmd"] if self.bandwidths else [])]
        if self.dataset.manifest["support"] is not None:
            names.append("off_support")
        return self._chosen([Metric(n, UNITS[n], self.features, self.reference) for n in names], only)

    def measure(self, samples: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        if not np.isfinite(samples).all():
            raise ValueError("samples are not all finite; what they come from has diverged")
        return self.measure_data(self.dataset.to_data(np.asarray(samples)), only)

    def measure_data(self, values: NDArray, only: Sequence[str] | None = None) -> list[Measurement]:
        if values.shape[1:] != self.dataset.shape or len(values) < 2:
            raise ValueError(f"need two or more samples of {self.dataset.shape}, not {len(values)} of {values.shape[1:]}")
        test, points = np.asarray(self.dataset.test, np.float64), values.astype(np.float64)
        most = self.settings.max_samples
        found = []
        for metric, unit, features, reference in self.metrics(only):
            n = len(values)
            if metric == "energy_distance":
                value = energy_distance(points, test)
            elif metric == "sliced_wasserstein":
                shape = (self.settings.projections, self.dataset.dimensions)
                directions = torch.randn(shape, generator=generator(self.seed, "projections"), dtype=torch.float64).numpy()
                value = sliced_wasserstein(points, test, directions)
                reference = f"{reference}; {len(directions)} directions"
            elif metric == "mmd":
                n = min(n, most)
                some = drawn(points, most, self.seed, "mmd/samples")
                value = gaussian_mmd(some, drawn(test, most, self.seed, "mmd/test"), self.bandwidths)
                reference = f"{reference}; Gaussian kernels of {', '.join(f'{b:.3g}' for b in self.bandwidths)}"
            else:
                value = 1 - float(SUPPORTS[self.dataset.manifest["support"]](values).mean())
            found.append(Measurement(metric, value, unit, n, features, reference))
        return found


def _score(extractor: Extractor) -> str:
    """Only of Inception's classes is it the Inception Score."""
    return "inception_score" if extractor.is_inception else "classifier_score"


def _progress(console: Console | None) -> Callable[[int, int], None] | None:
    if console is None:
        return None
    shown: list[Any] = []

    def update(done: int, total: int) -> None:
        if not shown:
            shown.append(console.progress(total, "images"))
        shown[0].update(done)
        if done == total:
            shown[0].close()

    return update


def pixels(extractor: Extractor, dataset: DataSet, levels: View | NDArray[np.uint8]) -> View:
    """Images in the data set's levels as the extractor takes them: from 0 to 255, unless it takes the levels themselves."""
    top = (dataset.levels or 256) - 1

    def read(rows: slice) -> NDArray[np.uint8]:
        piece = np.asarray(levels[rows])
        return piece if extractor.native or top == 255 else np.rint(piece * (255 / top)).astype(np.uint8)

    return View(len(levels), read)


def reference_name(dataset: DataSet, n: int | None = None) -> str:
    """The reference set of a Frechet distance: training images, not augmented, every one or ``n``, with the split's hash."""
    entry = dataset.manifest["splits"]["train"]
    some = "" if n is None or n >= entry["n"] else f"{n} random of "
    return f"train, {some}n = {entry['n']}, sha256 {entry['sha256'][:12]}"


def make_reference(
    extractor: Extractor,
    dataset: DataSet,
    settings: FeatureSettings,
    seed: int,
    batch: int,
    console: Console | None = None,
    group: Group = ALONE,
) -> Reference:
    """One pass of the extractor over the training images, which the processes of ``group`` share; each is given all of it.

    The images of a reference that is not all of them, and those whose features are kept, are drawn at random: the first so many
    of a folder are of a few classes.
    """
    total = len(dataset.train)
    n = min(total, settings.reference_n or total)
    order = torch.randperm(total, generator=generator(seed, "reference")).numpy()[:n]
    used = np.sort(order)
    kept = order[: settings.max_samples]
    place = np.full(total, -1, np.int64)
    place[kept] = np.arange(len(kept))

    def read(rows: slice) -> NDArray[np.uint8]:
        return np.asarray(dataset.train[rows] if n == total else dataset.train[used[rows]])

    accumulator = FeatureAccumulator(extractor.dimensions)
    features = np.empty((len(kept), extractor.dimensions), np.float32)
    images = pixels(extractor, dataset, View(n, read))
    for start, found in extract_batches(extractor, images, batch, _progress(console), group):
        accumulator.update(found)
        where = place[used[start : start + len(found)]]
        features[where[where >= 0]] = found[where >= 0]
    return Reference(reference_name(dataset, n), accumulator.statistics(), features)


def reference_file(extractor: Extractor, part: dict[str, Any], dataset: DataSet, settings: FeatureSettings, seed: int) -> str:
    """The name of the file with a reference, by all that it depends on."""
    dotted = part["extractor"]
    key = {
        "data": dataset.manifest["splits"]["train"]["sha256"],
        "levels": dataset.levels,
        "extractor": extractor.name,
        "part": part,
        "code": module_hash("fmbench.stages.evaluator", (dotted,) if is_dotted(dotted) else ()),
        "n": settings.reference_n,
        "kept": settings.max_samples,
        "seed": seed,
        "batch": settings.batch,
        "torch": torch.__version__,
    }
    return f"reference-{settings_hash(key)}.safetensors"


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference, atomically."""
    statistics = reference.statistics
    arrays = {"mean": statistics.mean, "covariance": statistics.covariance, "features": reference.features}
    if statistics.factor is not None:
        arrays["factor"] = statistics.factor
    arrays["n"] = np.array([statistics.n], np.int64)
    with atomic(path) as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary)


def read_reference(path: Path, name: str) -> Reference:
    """The inverse of :func:`write_reference`.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        arrays = load_file(path)
        statistics = FeatureStatistics(arrays["mean"], arrays["covariance"], int(arrays["n"][0]), arrays.get("factor"))
        return Reference(name, statistics, arrays["features"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}, the reference's features, cannot be read ({error}); delete {path.parent} and rerun the stage features"
        ) from None


def open_extractor(part: dict[str, Any], folder: Path, dataset: DataSet, device: torch.device) -> tuple[Extractor, int]:
    """An extractor that ``extractor.json`` describes, and how many images at a time go through it.

    Raises:
        DataError: it is not the one whose reference is in ``folder``.
    """
    if part["extractor"] == "classifier":
        network = in_dag.Classifier(dataset.shape, part["classes"], part["width"])
        load_weights(folder / "classifier.safetensors", network)
        return in_dag.as_extractor(part["name"], network, dataset, device), in_dag.BATCH
    extractor = make_extractor(part["extractor"], device, **part["options"])
    if "name" in part and extractor.name != part["name"]:
        raise DataError(
            f"the reference in {folder} was made with {part['name']}, and {part['extractor']} is {extractor.name} now; "
            f"delete {folder} and rerun the stage features"
        )
    return extractor, part["batch"]


def evaluator_key(folder: Path) -> dict[str, Any]:
    """What tells one evaluator's numbers from another's: the spec alone does not know how a classifier turned out."""
    described = folder / "extractor.json"
    return {"evaluator": sha256(described), "plug-in code": plugin_code(read_json(described))}


def load_evaluator(
    folder: Path, dataset: DataSet, device: torch.device, console: Console | None = None, group: Group = ALONE
) -> Evaluator:
    """The evaluator that the stage ``features`` wrote into ``folder``.

    Args:
        console: where the progress of long extractions is shown.
        group: the processes that share the extraction of features.

    Raises:
        DataError, CheckpointError, ConfigError: something of it is missing, damaged or not what it was.
    """
    values = read_json(folder / "extractor.json")
    try:
        settings, seed = FeatureSettings.model_validate(values["settings"]), values["seed"]
        if not dataset.is_images:
            return PointEvaluator(dataset, settings, values["median_distance"], seed)
        sides = []
        for part in values["extractors"]:
            extractor, batch = open_extractor(part, folder, dataset, device)
            sides.append(
                Side(extractor, read_reference(folder / part["reference"], part["reference_name"]), part["suffix"], batch)
            )
        return ImageEvaluator(dataset, sides, settings, values["floor_n"], seed, device, console, group)
    except KeyError as error:
        raise DataError(
            f"{folder / 'extractor.json'} is of another version of fmbench (it lacks {error}); "
            f"delete {folder} and rerun the stage features"
        ) from None
