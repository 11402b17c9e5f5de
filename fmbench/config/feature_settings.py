"""The feature extractors and metrics of sample quality in a config."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from fmbench.config import names
from fmbench.config.base import Parameters, Settings, known
from fmbench.config.numbers import Count, Positive, Several, whole_number


class ExtractorSettings(Settings):
    """A feature extractor of images and its options."""

    extractor: Annotated[str, known("extractor", tuple(names.EXTRACTORS))]
    options: Parameters = Field({}, description="inception: weights (a path); efficientnet_lite0: size; a dotted name: its own")

    @model_validator(mode="after")
    def _takes_its_options(self) -> Self:
        known = names.EXTRACTORS.get(self.extractor)
        unknown = [] if known is None else sorted(set(self.options) - set(known))
        if unknown:
            takes = "takes none; its settings stand beside it: epochs, width, ..." if not known else f"takes {', '.join(known)}"
            raise ValueError(f"the extractor {self.extractor} has no option {', '.join(unknown)}: it {takes}")
        weights, size = self.options.get("weights"), self.options.get("size", 1)
        if self.extractor == "inception" and not isinstance(weights, str | None):
            raise ValueError(f"options.weights must be the path of a file, as text, not {weights!r}")
        if self.extractor == "efficientnet_lite0" and (type(size) is not int or size < 1):
            raise ValueError(f"options.size must be a whole number of pixels, 1 or more, not {size!r}")
        return self


class KidSettings(Settings):
    """The subsets of the kernel distance."""

    subsets: Several = 100
    size: Several = Field(1000, description="features of one subset; half of those there are, where they are fewer than twice it")


class FeatureSettings(Settings):
    """What judges the samples: of images, distances on an extractor's features; of points, distances in the plane."""

    extractor: Annotated[str, known("extractor", tuple(names.EXTRACTORS))] = Field(
        "classifier",
        description="whose features the tables' distance is of: classifier (trained in the DAG on the data set's labels), "
        "inception (the FID's), efficientnet_lite0, or a dotted name 'package.module:FACTORY'",
    )
    options: Parameters = Field({}, description="inception: weights (a path); efficientnet_lite0: size; a dotted name: its own")
    more_extractors: list[
        Annotated[
            ExtractorSettings,
            BeforeValidator(
                lambda v: {"extractor": v} if isinstance(v, str) else v, json_schema_input_type=str | ExtractorSettings
            ),
        ]
    ] = Field([], description="further extractors, whose rows have their name behind the metric's: frechet/efficientnet_lite0")
    epochs: Count = Field(20, description="epochs, batch_size, learning_rate and width are the classifier's")
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    width: Count = 16
    batch: Count = Field(50, description="images at a time through an extractor that is not the classifier")
    reference_n: Several | None = Field(None, description="so many training images, drawn at random; null for every one")
    max_samples: Several = Field(
        10000, description="at most so many features or points on each side, where time goes with their square (not Frechet)"
    )
    kid: KidSettings = KidSettings()
    neighbours: Count = Field(3, description="k of precision and recall: a ball reaches to the k-th nearest feature")
    splits: Count = Field(10, description="of the Inception Score")
    infinity_sizes: Annotated[int, Field(ge=3), BeforeValidator(whole_number)] | None = Field(
        None, description="sizes that the distance is taken at and extrapolated from to infinitely many samples; null for none"
    )
    projections: Count = Field(128, description="directions of the sliced Wasserstein distance of points")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        chosen = [part.extractor for part in self.extractors()]
        twice = sorted({name for name in chosen if chosen.count(name) > 1})
        if twice:
            raise ValueError(f"the extractor {', '.join(twice)} is listed more than once")
        return self

    def extractors(self) -> list[ExtractorSettings]:
        """Every extractor, the tables' first."""
        return [ExtractorSettings(extractor=self.extractor, options=self.options), *self.more_extractors]

    def used(self) -> dict[str, Any]:
        """The settings without the classifier's, where there is none."""
        values = self.model_dump()
        if "classifier" not in [part.extractor for part in self.extractors()]:
            for name in ("epochs", "batch_size", "learning_rate", "width"):
                del values[name]
        return values
