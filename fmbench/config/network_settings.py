"""The network of a data set in a config: an MLP, a U-Net, a transformer, or a plug-in."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fmbench.config import names
from fmbench.config.base import Parameters, Settings
from fmbench.config.messages import described
from fmbench.config.numbers import Decay, Depth, Positive, Width
from fmbench.config.plugins import is_dotted


class MLPSettings(Settings):
    """The MLP for points (fmbench/networks/mlp.py)."""

    kind: Literal["mlp"]
    width: Width = 512
    depth: Depth = 5
    time_embedding: Literal["raw", "sinusoidal"] = "raw"
    time_dimension: Width = 32
    max_frequency: Positive = 60.0


class UNetSettings(Settings):
    """The ADM U-Net for images (fmbench/networks/unet.py)."""

    kind: Literal["unet"]
    channels: Width = 128
    channels_multiple: Annotated[list[Depth], Field(min_length=1, max_length=16)] = [1, 2, 2, 2]
    depth: Depth = 2
    attention_resolutions: Annotated[list[Width], Field(max_length=100)] = [16]
    head_channels: Width = 64
    dropout: Decay = 0.0
    resample_blocks: bool = True
    max_frequency: Positive = Field(
        1000.0, description="top frequency of the time embedding, in radians per unit of t; ADM has 1000"
    )


class TransformerSettings(Settings):
    """The plain transformer for images (fmbench/networks/transformer.py)."""

    kind: Literal["transformer"]
    patch: Width = Field(2, description="side of a patch in pixels; it must divide height and width of the images")
    width: Width = Field(384, description="of the tokens; divisible by 4 and by heads")
    depth: Depth = Field(12, description="number of blocks, each of attention and an MLP")
    heads: Width = Field(6, description="of the attention")
    max_frequency: Positive = Field(1000.0, description="top frequency of the time embedding, in radians per unit of t")


class PluginNetworkSettings(Settings):
    """A plug-in network: the dotted name of a class, which is called as cls(shape, **parameters)."""

    kind: Annotated[str, Field(pattern=":")]
    parameters: Parameters = {}


def network_of_its_kind(value: Any) -> Any:
    """The settings of a network, checked against those of its kind alone, so that errors name no key of another kind."""
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    known: dict[str, type[MLPSettings | UNetSettings | TransformerSettings]] = {
        "mlp": MLPSettings,
        "unet": UNetSettings,
        "transformer": TransformerSettings,
    }
    if not isinstance(kind, str):
        raise ValueError(f"a network needs a kind: {', '.join(names.NETWORKS)}, or a dotted name")
    if kind not in known and not is_dotted(kind):
        raise ValueError(f"unknown network kind {described(kind)}; known: {', '.join(names.NETWORKS)}; or a dotted name")
    chosen = known.get(kind, PluginNetworkSettings)
    others = {*PluginNetworkSettings.model_fields, *(field for settings in known.values() for field in settings.model_fields)}
    strange = [key for key in value if key in others - set(chosen.model_fields)]
    if strange:
        raise ValueError(
            f"a network of kind {kind} takes {', '.join(chosen.model_fields)}, but not {', '.join(strange)}. An earlier config "
            "file may have set these: files are merged key by key. If so, give your data set a name that no earlier file uses"
        )
    return chosen.model_validate(value)
