"""The condition of a data set in a config: what networks are told of each sample."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fmbench.config.base import Settings
from fmbench.config.datasets import POINT_SETS, sample_shape
from fmbench.config.messages import described
from fmbench.config.numbers import whole_number
from fmbench.config.super_resolution_settings import unsaid_size_filter

LABEL = "label"
_KINDS = "label, or {low_resolution: {factor: 4, filter: bicubic}}"


class LowResolutionSettings(Settings):
    """How a low-resolution image is made from the image, and upsampled again for the network (fmbench/data/resizing.py)."""

    factor: Annotated[int, Field(ge=2, le=1000), BeforeValidator(whole_number)] = Field(
        description="height and width of the image divided by those of the low-resolution image"
    )
    filter: Literal["bicubic", "bilinear", "area"] = Field("bicubic", description="Pillow's filter, both down and up")


class LowResolutionCondition(Settings):
    """The low-resolution image is the condition: super-resolution (Table 2)."""

    low_resolution: LowResolutionSettings


def _known_condition(value: Any) -> Any:
    if isinstance(value, LowResolutionCondition) or value is None or value == LABEL:
        return value
    if not isinstance(value, dict) or list(value) != ["low_resolution"]:
        found = ", ".join(map(str, value)) if isinstance(value, dict) else described(value)
        raise ValueError(f"unknown condition {found}; known: {_KINDS}")
    return LowResolutionCondition.model_validate(value)


ConditionSettings = Annotated[Literal["label"] | LowResolutionCondition, BeforeValidator(_known_condition)]


def condition_problem(
    condition: Literal["label"] | LowResolutionCondition | None, source: str, parameters: Mapping[str, Any], network: str
) -> str:
    """Why a source's samples cannot have a condition, as far as that is known before they are prepared; empty if they can.

    Args:
        parameters: of the source.
        network: its kind.
    """
    if condition is None:
        return ""
    if isinstance(condition, str):
        return f"condition: {source} has no labels, so label cannot be the condition; remove it" if source in POINT_SETS else ""
    shape = sample_shape(source, parameters)
    if network == "mlp" or (shape is not None and len(shape) != 3):
        whose = f"{source} has" if shape is not None and len(shape) != 3 else "an MLP takes"
        return f"condition: low_resolution is for images, and {whose} points; remove it"
    if shape is not None and (problem := unfit_factor(condition.low_resolution.factor, shape[1], shape[2])):
        return f"condition: {problem}"
    return unsaid_size_filter(source, parameters)


def unfit_factor(factor: int, height: int, width: int) -> str:
    """Why images of this size cannot be reduced by a factor; empty if they can."""
    if factor > 0 and height % factor == 0 and width % factor == 0:
        return ""
    possible = [f for f in range(2, min(height, width) + 1) if height % f == 0 and width % f == 0]
    remedy = f"choose from {', '.join(map(str, possible))}" if possible else "choose another size of the images"
    return f"images of {height} x {width} pixels cannot be reduced by the factor {factor}; {remedy}"
