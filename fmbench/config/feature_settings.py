"""The feature extractors and metrics of sample quality in a config."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from fmbench.config import names
from fmbench.config.base import Parameters, Settings, ShortForm, known_name
from fmbench.config.messages import described
from fmbench.config.numbers import Count, Positive, Several, Width, twice, whole_number

Extractor = Annotated[str, known_name("extractor", tuple(names.EXTRACTORS))]
_OPTIONS = (
    "inception, dinov2 and clip_mmd take weights (a path), efficientnet_lite0 and _lite2 take size, a plug-in takes its own"
)


class ExtractorSettings(Settings):
    """A feature extractor of images and its options."""

    extractor: Extractor
    options: Parameters = Field({}, description=_OPTIONS)

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        allowed = names.EXTRACTORS.get(self.extractor)
        unknown = [] if allowed is None else sorted(set(self.options) - set(allowed))
        if unknown:
            takes = f"takes {', '.join(allowed)}" if allowed else "takes none; set epochs, width, ... beside it"
            raise ValueError(f"the extractor {self.extractor} has no option {', '.join(unknown)}: it {takes}")
        weights, size = self.options.get("weights"), self.options.get("size", 1)
        if not isinstance(weights, str | None) and allowed and "weights" in allowed:
            raise ValueError(f"options.weights must be the path of a file, as text, not {described(weights)}")
        if self.extractor.startswith("efficientnet_lite") and (type(size) is not int or not 1 <= size <= 10_000):
            raise ValueError(f"options.size must be a whole number of pixels from 1 to 10000, not {described(size)}")
        return self


class KidSettings(Settings):
    """The subsets of the kernel distance."""

    subsets: Several = 100
    size: Several = Field(1000, description="features in one subset; if there are fewer than 2 x size in all, half of them")


class FeatureSettings(Settings):
    """How samples are compared with data: images by the features of an extractor, points by their coordinates."""

    extractor: Extractor = Field(
        "classifier",
        description="the extractor of the tables' distance: classifier (trained on the labels of the data set), inception "
        "(that of the FID), efficientnet_lite0, efficientnet_lite2, dinov2, clip_mmd, or a plug-in 'package.module:FACTORY'",
    )
    options: Parameters = Field({}, description=_OPTIONS)
    more_extractors: list[Annotated[ExtractorSettings, ShortForm("extractor")]] = Field(
        [],
        max_length=100,
        description="further extractors; in their rows the metric is followed by their name, as in frechet/efficientnet_lite0",
    )
    epochs: Count = Field(20, description="epochs, batch_size, learning_rate and width belong to the classifier")
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    width: Width = 16
    batch: Count = Field(50, description="images at a time through an extractor other than the classifier")
    reference_n: Several | None = Field(
        None, description="number of training images to compare with, drawn at random; null for all"
    )
    max_samples: Several = Field(
        10000,
        description="the most features or points on each side, for metrics that take quadratic time (not Frechet)",
    )
    kid: KidSettings = KidSettings()
    neighbours: Count = Field(
        3, description="k of precision, recall, density and coverage: a ball reaches to the k-th nearest feature"
    )
    splits: Count = Field(10, description="of the Inception Score")
    infinity_sizes: Annotated[int, Field(ge=3, le=1000), BeforeValidator(whole_number)] | None = Field(
        None,
        description="number of sample sizes from which the distance is extrapolated to infinitely many; null for no such row",
    )
    projections: Count = Field(128, description="directions of the sliced Wasserstein distance of points")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        repeated = twice([part.extractor for part in self.extractors()])
        if repeated:
            raise ValueError(f"the extractor {', '.join(repeated)} is listed more than once")
        return self

    def extractors(self) -> list[ExtractorSettings]:
        """Every extractor, that of the tables first."""
        return [ExtractorSettings(extractor=self.extractor, options=self.options), *self.more_extractors]

    def used(self) -> dict[str, Any]:
        """The settings, without those of the classifier if it is not an extractor here."""
        values = self.model_dump()
        if "classifier" not in [part.extractor for part in self.extractors()]:
            for name in ("epochs", "batch_size", "learning_rate", "width"):
                del values[name]
        return values
